"""Images with captions: facts, the right caption for each image, exact starts, shares, evaluation, mistakes."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from ssl_zoo.data.image.module import ImageData
from ssl_zoo.data.pairs import PairData, PairViews
from ssl_zoo.method import Batch
from ssl_zoo.views import Views
from ssl_zoo.views.colour import Normalize
from ssl_zoo.views.geometry import CenterCrop, RandomResizedCrop
from tests.conftest import make_images, write_parquet
from tests.data.pictures import SETTINGS, encode, picture, write

CONF = Path(__file__).parents[2] / "conf" / "data"
pytestmark = pytest.mark.usefixtures("own_cache")
TEXTS = [f"caption {chr(97 + i)} of a picture" for i in range(12)]


def data(path: Path | str, **settings: Any) -> PairData:
    """Prepared, with one random crop as the view of an image."""
    given: dict[str, Any] = {
        **SETTINGS,
        "batch_size": 4,
        "seed": 1,
        "tokenizer": {"vocab_size": 300},
        "max_length": 12,
        "caption_column": "caption",
    }
    made = PairData(**{"path": str(path), **given, **settings})
    made.prepare_data()
    made.setup()
    normalize = Normalize(made.mean, made.std)
    made.attach(Views([[RandomResizedCrop(8, (0.3, 1)), normalize]]), Views([[CenterCrop(8), normalize]]))
    return made


def batches(made: ImageData, count: int) -> list[Batch]:
    return [made.on_after_batch_transfer(loaded, 0) for loaded in islice(made.train_dataloader(), count)]


def captions(made: PairData, batch: Batch) -> list[str]:
    return [made.tokenizer.decode(row[row != made.tokenizer.pad_id]) for row in batch.views[-1]]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(left, right, strict=True))


def table(path: Path, captions: list, **columns: list) -> Path:
    """A parquet file of pictures with captions; those numbered in `broken` are no images."""
    broken = columns.pop("broken", [])
    images = [b"nothing" if i in broken else encode(picture(i)) for i in range(len(captions))]
    rows = [{"bytes": image, "path": None} for image in images]
    pandas.DataFrame({"image": rows, "caption": captions, **columns}).to_parquet(path)
    return path


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    return table(tmp_path / "captioned.parquet", TEXTS)


def test_facts_are_those_of_images_and_of_the_text(captioned: Path) -> None:
    made = data(captioned, image_column="image")
    assert made.facts["modality"] == "image"
    assert (made.facts["num_train"], made.facts["num_captions"], made.facts["has_labels"]) == (12, 12, False)
    expected: dict[str, Any] = {"pad_id": 0, "sep_id": 3, "num_special": 5, "max_length": 12}
    expected |= {"vocab_size": made.tokenizer.vocab_size, "tokenizer_hash": made.tokenizer.identity}
    assert expected.items() <= made.facts.items()
    assert 261 < made.facts["vocab_size"] <= 300


def test_the_last_view_is_the_caption_of_the_image(captioned: Path) -> None:
    made = data(captioned, image_column="image")
    assert len(made.views) == 2
    for batch in batches(made, 4):
        assert [view.shape for view in batch.views] == [(4, 3, 8, 8), (4, 12)]
        assert batch.views[1].dtype == torch.int64
        assert captions(made, batch) == [TEXTS[i] for i in batch.indices.tolist()]


def test_order_and_images_are_those_of_image_data(captioned: Path) -> None:
    made = data(captioned, image_column="image")
    plain = ImageData(str(captioned), made.splits, 8, 3, [0.5] * 3, [0.2] * 3, 4, seed=1, image_column="image")
    plain.setup()
    assert isinstance(made.views, PairViews)
    plain.attach(made.views.images, made.evaluation_views)
    for ours, theirs in zip(batches(made, 7), batches(plain, 7), strict=True):
        assert same([*ours.views[:-1], ours.indices, ours.labels], [*theirs.views, theirs.indices, theirs.labels])
    for ours, theirs in zip(made.eval_batches("train", 5), plain.eval_batches("train", 5), strict=True):
        assert same(ours.views, theirs.views)


def test_captions_are_cut_and_padded(captioned: Path) -> None:
    made = data(captioned, image_column="image", max_length=3)
    rows = made.tokenise(["caption a of a picture", "a", "", "[MASK]"])
    assert rows.shape == (4, 3)
    assert (rows != 0).sum(1).tolist() == [3, 1, 0, 3]  # what reads "[MASK]" in a caption is no mask
    assert torch.equal(rows[0], torch.from_numpy(made.tokenizer.encode(["caption a of a picture"])[0][:3]))


def test_one_of_several_captions_in_each_epoch(tmp_path: Path) -> None:
    texts = [[f"first {i}", f"second {i}", f"third {i}"] if i % 2 else [f"only {i}"] for i in range(8)]
    made = data(table(tmp_path / "several.parquet", texts), image_column="image")
    assert made.facts["num_captions"] == 16
    seen: dict[int, set[str]] = {i: set() for i in range(8)}
    for batch in batches(made, 40):
        for index, text in zip(batch.indices.tolist(), captions(made, batch), strict=True):
            seen[index].add(text)
    assert [seen[i] for i in range(8)] == [set(texts[i]) for i in range(8)]


def evaluated(made: PairData, split: str) -> list[tuple[str, int]]:
    ids, owners = made.eval_captions(split)
    assert ids.shape == (len(owners), made.max_length)
    return [
        (made.tokenizer.decode(row[row != made.tokenizer.pad_id]), int(i)) for row, i in zip(ids, owners, strict=True)
    ]


def test_captions_of_the_images_that_are_evaluated(tmp_path: Path) -> None:
    """Empty ones are left out, and so are those of unreadable images; the others keep the image's index."""
    (tmp_path / "set").mkdir()
    table(tmp_path / "set" / "train.parquet", [["one", "two"], ["three"], ["four", ""], ["five"]])
    table(tmp_path / "set" / "test.parquet", [["six"], ["broken"], ["seven", None], [], ["eight"]], broken=[1])
    made = data(tmp_path / "set", image_column="image", on_error="skip", max_skipped=0.5)
    assert evaluated(made, "train") == [("one", 0), ("two", 0), ("three", 1), ("four", 2), ("five", 3)]
    assert evaluated(made, "test") == [("six", 0), ("seven", 1), ("eight", 3)]
    assert [batch.indices.tolist() for batch in made.eval_batches("test", 8)] == [[0, 1, 2, 3]]
    assert made.facts["num_captions"] == 6  # of the training split
    made.eval_examples = 2
    (batch,) = made.eval_batches("test", 8)
    assert {index for _, index in evaluated(made, "test")} <= set(batch.indices.tolist())


def test_captions_of_templates_are_not_evaluated(tmp_path: Path) -> None:
    for k, name in enumerate(("cat", "dog")):
        write(tmp_path / "pets" / name, 4, first=10 * k)
    made = data(tmp_path / "pets", caption_column=None, templates=["see the {}"])
    with pytest.raises(ValueError, match=r"data\.caption_column=null: .* leave retrieval out of evaluators"):
        made.eval_captions("train")


def test_a_test_split_without_captions_is_named(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    table(tmp_path / "set" / "train.parquet", TEXTS)
    table(tmp_path / "set" / "test.parquet", TEXTS, title=TEXTS)
    pandas.read_parquet(tmp_path / "set" / "test.parquet").drop(columns="caption").to_parquet(
        tmp_path / "set" / "test.parquet"
    )
    made = data(tmp_path / "set", image_column="image")
    with pytest.raises(ValueError, match=r"data\.caption_column=caption: no such column\. There are: image, title"):
        made.eval_captions("test")


@pytest.mark.parametrize("store", ["ram", "encoded"])
def test_unreadable_images_take_their_captions_along(tmp_path: Path, store: str) -> None:
    path = table(tmp_path / "broken.parquet", TEXTS, broken=[3])
    made = data(path, image_column="image", on_error="skip", max_skipped=0.1, store=store, num_workers=0)
    rest = TEXTS[:3] + TEXTS[4:]
    for batch in batches(made, 3):
        assert captions(made, batch) == [rest[i] for i in batch.indices.tolist()]


@pytest.mark.parametrize("store", ["ram", "encoded"])
def test_starting_at_a_step_continues_bit_for_bit(captioned: Path, store: str) -> None:
    settings = {"image_column": "image", "store": store}
    whole = batches(data(captioned, num_workers=0, **settings), 7)
    resumed = data(captioned, num_workers=1 if store == "encoded" else 0, **settings)
    resumed.start_batch = 3
    assert all(same(a.views, b.views) for a, b in zip(whole[3:], batches(resumed, 4), strict=True))


def test_two_ranks_see_what_one_process_sees(captioned: Path) -> None:
    class Rank:
        world_size, num_devices = 2, 2

        def __init__(self, global_rank: int):
            self.global_rank = global_rank

    alone, shares = batches(data(captioned, image_column="image"), 5), []
    for rank in range(2):
        made = data(captioned, image_column="image")
        made.trainer = Rank(rank)  # type: ignore[assignment]
        shares.append(batches(made, 5))
    for whole, first, second in zip(alone, *shares, strict=True):
        assert same(whole.views, [torch.cat(pair) for pair in zip(first.views, second.views, strict=True)])


def test_the_second_time_nothing_is_read_or_trained(
    captioned: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = data(captioned, image_column="image")
    monkeypatch.setattr(PairData, "_texts", lambda self: pytest.fail("read again"))
    assert "training a bpe tokenizer" in caplog.text
    caplog.clear()
    second = data(captioned, image_column="image")
    assert second.facts == first.facts
    assert torch.equal(second.captions.ids, first.captions.ids)
    assert not any("tokenizer" in line for line in caplog.messages)


def test_hub_layout_with_labels_and_templates(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_parquet(tmp_path / "set", {"train": make_images(20, rng), "test": make_images(10, rng)})
    templates = ["a photo of a {}.", "one {}"]
    made = data(tmp_path / "set", caption_column=None, templates=templates, image_column="img", label_column="label")
    for batch in batches(made, 5):
        expected = [templates[i % 2].replace("{}", str(i % 10)) for i in batch.indices.tolist()]
        assert captions(made, batch) == expected
        assert batch.labels.tolist() == [i % 10 for i in batch.indices.tolist()]
    assert (made.facts["num_classes"], made.facts["num_test"]) == (10, 10)
    assert [len(batch.views) for batch in made.eval_batches("test", 10)] == [1]


def test_a_folder_with_captions_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "pets", 5)
    rows = "".join(f"{i:04d}.png,number {i}\n" for i in range(5))
    (tmp_path / "pets" / "metadata.csv").write_text("file_name,caption\n" + rows)
    made = data(tmp_path / "pets")
    for batch in batches(made, 3):
        assert captions(made, batch) == [f"number {i}" for i in batch.indices.tolist()]


def test_class_folders_with_templates(tmp_path: Path) -> None:
    for k, name in enumerate(("cat", "dog")):
        write(tmp_path / "pets" / name, 4, first=10 * k)
    made = data(tmp_path / "pets", caption_column=None, templates=["see the {}"])
    for batch in batches(made, 2):
        assert captions(made, batch) == [f"see the {('cat', 'dog')[i // 4]}" for i in batch.indices.tolist()]


def test_empty_captions_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = data(table(tmp_path / "some.parquet", [*TEXTS[:6], None, ""]), image_column="image")
    assert "2 of 8 captions are empty" in caplog.text
    assert [len(row[row != 0]) > 0 for row in made.captions.ids] == [True] * 6 + [False] * 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"caption_column": None}, "give exactly one of the two"),
        ({"templates": ["a {}"]}, "give exactly one of the two"),
        ({"caption_column": None, "templates": ["a photo"]}, r"data\.templates: 'a photo' has no place \{\}"),
        ({"max_length": 0}, r"data\.max_length=0: give a whole number"),
        ({"caption_column": "text"}, r"data\.caption_column=text: no such column\. There are: image, caption, number"),
        ({"caption_column": "number"}, r"data\.caption_column=number: holds 0, which is no text"),
        ({"caption_column": "nothing"}, r"data\.caption_column=nothing: all captions are empty"),
        ({"caption_column": None, "templates": ["a {}"]}, r"data\.templates: not all training images .* have a class"),
        ({"tokenizer": {"vocab_size": 10}}, r"data\.tokenizer\.vocab_size=10"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, settings: dict, words: str) -> None:
    path = table(tmp_path / "bad.parquet", TEXTS, number=list(range(12)), nothing=[""] * 12)
    with pytest.raises(ValueError, match=words):
        data(path, image_column="image", **settings)


def test_captions_need_a_table(tmp_path: Path) -> None:
    write(tmp_path / "photos", 5)
    with pytest.raises(ValueError, match=r"data\.caption_column=caption: .*photos is no table.*metadata\.csv"):
        data(tmp_path / "photos")


def settings(name: str) -> dict[str, Any]:
    """Of conf/data/<name>.yaml, as Hydra composes it from its bases."""
    parts = [OmegaConf.load(CONF / f"{base}.yaml") for base in dict.fromkeys(("folder", "captions", name))]
    config = OmegaConf.to_container(OmegaConf.merge(*parts))
    assert isinstance(config, dict)
    del config["defaults"]
    assert config.pop("_target_") == "ssl_zoo.data.pairs.PairData"
    assert config.pop("check") is False  # it is for the run, not for the data
    return {str(key): value for key, value in config.items()}


@pytest.mark.parametrize("name", ["captions", "cifar10_captions", "flickr8k"])
def test_every_config_names_every_setting(name: str) -> None:
    config = settings(name) | ({"path": "."} if name == "captions" else {})
    names = {
        name
        for made in (ImageData, PairData)
        for name in made.__init__.__code__.co_varnames[1 : made.__init__.__code__.co_argcount]
    }
    assert set(config) == names - {"seed"}
    PairData(**config | {key: SETTINGS[key] for key, value in config.items() if value == "auto" and key in SETTINGS})


def test_cifar10_captions(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_ZOO_DATA", str(data_root))
    made = data(**settings("cifar10_captions"))
    (batch,) = batches(made, 1)
    texts = settings("cifar10_captions")["templates"]
    for index, label, text in zip(batch.indices.tolist(), batch.labels.tolist(), captions(made, batch), strict=True):
        assert text == texts[index % len(texts)].replace("{}", made.facts["class_names"][label])
