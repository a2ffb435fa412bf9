"""The data module from path to views: facts, stores that agree, exact starts, shares, evaluation, mistakes, races."""

import os
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from ssl_zoo.data.image import stores
from ssl_zoo.data.image.module import ImageData
from ssl_zoo.method import Batch
from ssl_zoo.views import Views
from ssl_zoo.views.colour import Normalize
from ssl_zoo.views.geometry import CenterCrop, RandomResizedCrop
from tests.data.pictures import SETTINGS, picture, tiff, write

REAL = Path(os.environ.get("SSL_ZOO_DATA") or "/nowhere")  # before own_cache hides it
CONF = Path(__file__).parents[3] / "conf" / "data"
pytestmark = pytest.mark.usefixtures("own_cache")


def data(path: Any, **settings: Any) -> ImageData:
    """Prepared, with two random crops as views and the whole image as plain view."""
    defaults = {"splits": {"train": ["train"], "test": "auto"}, "image_size": 8, "in_chans": 3, "batch_size": 4}
    path = str(path) if isinstance(path, Path) else path
    made = ImageData(**{"path": path, "mean": [0.5] * 3, "std": [0.2] * 3, "seed": 1, **defaults, **settings})
    made.prepare_data()
    made.setup()
    size = made.image_size
    plain = Views([[CenterCrop(size), Normalize(made.mean, made.std)]])
    made.attach(Views([[RandomResizedCrop(size, (0.3, 1)), Normalize(made.mean, made.std)]], [2]), plain)
    return made


def batches(made: ImageData, count: int) -> list[Batch]:
    return [made.on_after_batch_transfer(loaded, 0) for loaded in islice(made.train_dataloader(), count)]


def same(left: list[Tensor], right: list[Tensor], tolerance: float = 0.0) -> bool:
    return all((x - y).abs().max() <= tolerance for x, y in zip(left, right, strict=True))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Ten training and four test pictures of cats and dogs."""
    for split, count in (("train", 5), ("test", 2)):
        for k, name in enumerate(("cat", "dog")):
            write(tmp_path / "pets" / split / name, count, first=100 * (split == "test") + 10 * k)
    return tmp_path / "pets"


def test_facts_and_one_line(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    made = data(pets, num_classes=2)
    assert made.facts == {
        "modality": "image",
        "num_classes": 2,
        "class_names": ["cat", "dog"],
        "image_size": 8,
        "half_size": 4,
        "in_chans": 3,
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "num_train": 10,
        "num_indices": 10,
        "num_test": 4,
        "has_labels": True,
        "num_skipped": 0,
    }
    assert made.num_train == 10
    store = "device" if torch.cuda.is_available() else "ram"
    assert f"10 training and 4 test images, 2 classes (cat 5, dog 5); data.store={store} (" in caplog.text


def test_batches_hold_views_labels_and_indices(pets: Path) -> None:
    made = data(pets)
    seen = []
    for batch in batches(made, 2):
        assert [view.shape for view in batch.views] == [(4, 3, 8, 8)] * 2
        assert batch.views[0].dtype == torch.float32
        assert (batch.views[0] != batch.views[1]).any()
        assert batch.labels.tolist() == [index // 5 for index in batch.indices.tolist()]
        seen += batch.indices.tolist()
    assert len(set(seen)) == 8


def test_all_stores_give_the_same_training_and_evaluation(pets: Path) -> None:
    made = {store: data(pets, store=store, num_workers=1) for store in ("ram", "mmap", "device", "encoded")}
    reference = batches(made["ram"], 5)
    for store, other in made.items():
        rounding = 0.51 / 255 / 0.2 if store == "encoded" else 0.0  # its crops travel as uint8
        for expected, found in zip(reference, batches(other, 5), strict=True):
            assert same(expected.views, found.views, rounding)
            assert (expected.indices == found.indices).all()
        for split in ("train", "test"):
            pairs = zip(made["ram"].eval_batches(split, 3), other.eval_batches(split, 3), strict=True)
            assert all(same(a.views, b.views, 1e-6) and (a.labels == b.labels).all() for a, b in pairs)


def test_evaluation_is_in_order_and_plain(pets: Path) -> None:
    made = data(pets)
    found = list(made.eval_batches("test", 3))
    assert [len(batch.indices) for batch in found] == [3, 1]
    assert torch.cat([batch.indices for batch in found]).tolist() == [0, 1, 2, 3]
    assert torch.cat([batch.labels for batch in found]).tolist() == [0, 0, 1, 1]
    pixels = np.asarray(picture(110)).transpose(2, 0, 1) / 255  # the first dog
    assert np.abs(found[0].views[0][2].numpy() - (pixels - 0.5) / 0.2).max() < 1e-5
    assert len(next(iter(made.eval_batches("train", 100))).indices) == 10


@pytest.mark.parametrize("store", ["ram", "encoded"])
def test_starting_at_a_step_continues_bit_for_bit(pets: Path, store: str) -> None:
    whole = batches(data(pets, store=store, num_workers=0), 7)
    resumed = data(pets, store=store, num_workers=2 if store == "encoded" else 0)
    loader = resumed.train_dataloader()
    resumed.start_batch = 3  # set by the learner, when a checkpoint is restored
    rest = [resumed.on_after_batch_transfer(loaded, 0) for loaded in islice(loader, 4)]
    assert all(same(a.views, b.views) for a, b in zip(whole[3:], rest, strict=True))


def test_two_ranks_see_what_one_process_sees(pets: Path) -> None:
    class Rank:
        world_size, num_devices = 2, 2

        def __init__(self, global_rank: int):
            self.global_rank = global_rank

    alone, shares = batches(data(pets), 5), []
    for rank in range(2):
        made = data(pets)
        made.trainer = Rank(rank)  # type: ignore[assignment]
        made.setup()
        shares.append(batches(made, 5))
    for whole, first, second in zip(alone, *shares, strict=True):
        assert same(whole.views, [torch.cat(pair) for pair in zip(first.views, second.views, strict=True)])
    made.batch_size = 5
    with pytest.raises(ValueError, match=r"data.batch_size=5 cannot be shared evenly by 2 processes"):
        made.setup()


def test_lightning_trains_on_it_for_ever(pets: Path) -> None:
    class Seen(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.indices: list[int] = []

        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            assert isinstance(batch, Batch)
            self.indices += batch.indices.tolist()
            return self.weight * batch.views[0].mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    for store in ("device", "encoded"):
        made, seen = data(pets, store=store, num_workers=1), Seen()
        trainer = Trainer(
            max_steps=5,
            max_epochs=-1,
            accelerator="cpu",
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(seen, made)
        assert trainer.global_step == 5
        assert seen.indices == torch.cat([batch.indices for batch in batches(data(pets), 5)]).tolist()
        assert next(iter(made.eval_batches("test", 2))).labels.tolist() == [0, 0]  # also with a trainer at hand


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    write(tmp_path / "photos", 6)
    made = data(tmp_path / "photos")
    assert not made.facts["has_labels"]
    assert (made.facts["num_classes"], made.facts["num_test"]) == (0, 0)
    assert batches(made, 1)[0].labels.tolist() == [-1] * 4
    assert sum(len(batch.indices) for batch in made.eval_batches("train", 4)) == 6
    assert list(made.eval_batches("test", 4)) == []


@pytest.mark.parametrize("store", ["ram", "encoded"])
def test_unlabelled_examples_are_trained_on_but_not_judged(pets: Path, store: str) -> None:
    write(pets / "unlabeled", 6, first=500)
    made = data(pets, splits={"train": ["train", "unlabeled"], "test": "test"}, store=store, num_workers=0)
    assert (made.num_train, made.facts["num_test"], made.facts["has_labels"]) == (16, 4, True)
    assert torch.cat([batch.indices for batch in made.eval_batches("train", 4)]).tolist() == list(range(10))
    assert -1 in torch.cat([batch.labels for batch in batches(made, 4)])


def test_large_images_stay_encoded_unless_told(tmp_path: Path) -> None:
    for i in range(4):
        picture(i, 20, 12).save(tmp_path / f"{i}.png")
    assert data(tmp_path).store == "encoded"
    assert data(tmp_path, image_size=30).store == "encoded"  # not square: decoding once would cut
    assert data(tmp_path, store="ram").pixels["train"].shape == (4, 3, 8, 8)
    batch = next(iter(data(tmp_path, num_workers=0).eval_batches("train", 4)))
    assert batch.views[0].shape == (4, 3, 8, 8)


def test_the_nearest_place_with_room(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(stores, "MEMORY_SHARE", 0.0)
    assert data(pets).store == "mmap"
    monkeypatch.setattr(stores, "DECODED_LIMIT", 100)
    assert data(pets, num_workers=0).store == "encoded"


@pytest.mark.parametrize("store", ["ram", "encoded"])
def test_skipped_images_are_counted_and_the_rest_is_right(
    pets: Path, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    (pets / "train" / "cat" / "0001.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"0001.png: not an image file. Repair or remove .* data.on_error=skip"):
        data(pets, store=store)
    made = data(pets, store=store, on_error="skip", max_skipped=0.1, num_workers=0)
    assert (made.num_train, made.facts["num_skipped"]) == (9, 1)
    assert "skipped 1 of 10 train images, unreadable, such as" in caplog.text
    plain = next(iter(made.eval_batches("train", 9)))
    assert plain.labels.tolist() == [0] * 4 + [1] * 5
    pixels = np.asarray(picture(2)).transpose(2, 0, 1) / 255  # number 1 is now what was number 2
    assert np.abs(plain.views[0][1].numpy() - (pixels - 0.5) / 0.2).max() < 1e-5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"store": "disk"}, r"data.store=disk: give one of auto, device, ram, mmap, encoded"),
        ({"on_error": "ignore"}, r"data.on_error=ignore: give one of raise, skip"),
        ({"max_skipped": 1.5}, r"data.max_skipped=1.5: give a fraction"),
        ({"in_chans": 4}, r"data.mean=\[0.5, 0.5, 0.5\]: give data.in_chans=4 numbers"),
        ({"in_chans": 0}, r"data.in_chans=0: give 1 or more"),
        ({"bits": 8}, r"data.bits=8: give one of None, 9, 10, 11, 12, 13, 14, 15, 16"),
        ({"path": None}, r"data.path=null: give the path of a file or folder"),
        ({"path": True}, r"data.path=True: give the path"),
        ({"in_chans": 1}, r"data.mean=\[0.5, 0.5, 0.5\]: give data.in_chans=1 numbers"),
        ({"std": ["a", "b", "c"]}, r"data.std=\['a', 'b', 'c'\]: give data.in_chans=3 numbers"),
        ({"std": [0.2, 0.0, 0.2]}, r"data.std=\[0.2, 0.0, 0.2\]: .*std above 0"),
        ({"image_size": 0}, r"data.image_size=0: give 1 or more"),
        ({"num_workers": -1}, r"data.num_workers=-1: give 0 or more"),
        ({"num_workers": "abc"}, r"data.num_workers=abc: give a whole number, 0 or more"),
        ({"eval_examples": "abc"}, r"data.eval_examples=abc: give a whole number, 1 or more"),
        ({"image_size": "32"}, r"data.image_size=32: give a whole number, 1 or more"),
        ({"image_size": 32.5}, r"data.image_size=32.5: give a whole number, 1 or more"),
        ({"image_size": None}, r"data.image_size=None: give a whole number, 1 or more"),
        ({"num_classes": 10}, r"data.num_classes=10: .*pets has 2 \(cat, dog\)\. Give data.num_classes=null"),
        ({"batch_size": 11}, r"data.batch_size=11 is more than the 10 training examples.*data.batch_size=10 or less"),
        ({"splits": {"train": ["trian"], "test": None}}, r"data.splits.train=trian: no such split"),
        ({"path": "/nowhere/at/all"}, r"data.path=/nowhere/at/all: no such file or folder"),
    ],
)
def test_mistakes_are_named(pets: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data(**{"path": pets, **settings})


def test_views_that_workers_cannot_crop_are_refused_at_once(pets: Path) -> None:
    made = data(pets, store="encoded", num_workers=0)
    with pytest.raises(ValueError, match="begin it with"):
        made.attach(Views([[Normalize([0.5] * 3, [0.2] * 3)]]), made.evaluation_views)


def test_two_processes_prepare_once(pets: Path, own_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    context = get_context("fork")  # all is imported already
    sums = context.Queue()
    processes = [context.Process(target=lambda: sums.put(int(data(pets).pixels["train"].sum()))) for _ in range(2)]
    for process in processes:
        process.start()
    found = [sums.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert capfd.readouterr().out.count("decoding train") == 1
    assert found == [int(data(pets).pixels["train"].sum())] * 2
    assert len([path for path in (own_cache / "decoded").iterdir() if path.is_dir()]) == 1


def test_what_a_killed_process_left_is_not_read(pets: Path, own_cache: Path) -> None:
    expected = data(pets).pixels["train"]
    (folder,) = [path for path in (own_cache / "decoded").iterdir() if path.is_dir()]
    (folder / "train.pixels").write_bytes(b"half")
    folder.rename(folder.with_suffix(".partial"))  # as a process killed while it was decoding leaves it
    assert (data(pets).pixels["train"] == expected).all()
    assert not folder.with_suffix(".partial").exists()


def settings(name: str) -> dict[Any, Any]:
    """Of conf/data/<name>.yaml, as Hydra composes it from its base."""
    own = OmegaConf.load(CONF / f"{name}.yaml")
    config = OmegaConf.to_container(OmegaConf.merge(OmegaConf.load(CONF / "folder.yaml"), own))
    assert isinstance(config, dict)
    assert config.pop("_target_") == "ssl_zoo.data.image.module.ImageData"
    defaults = config.pop("defaults", ["folder"])
    assert defaults[0] == "folder"
    assert config.pop("check", False) is False  # it is for the run, not for the data
    return config


@pytest.mark.parametrize("name", ["folder", "digits", "cifar10", "cifar100", "stl10", "imagenet", "imagenet100"])
def test_every_config_names_every_setting(name: str) -> None:
    config = settings(name) | ({"path": "."} if name == "folder" else {})
    names = ImageData.__init__.__code__.co_varnames[1 : ImageData.__init__.__code__.co_argcount]
    assert set(config) == set(names) - {"seed"}  # which run.py gives
    picked = {key: SETTINGS[key] for key, value in config.items() if value == "auto" and key in SETTINGS}
    assert not picked or name == "folder"
    ImageData(**config | picked)


def test_digits() -> None:
    made = data(**settings("digits"))
    assert (made.facts["num_train"], made.facts["num_test"], made.facts["num_classes"]) == (1397, 400, 10)
    assert made.pixels["train"].shape == (1397, 1, 8, 8)
    pixels = made.pixels["train"] / 255
    assert pixels.mean().item() == pytest.approx(made.mean[0], abs=1e-3)
    assert pixels.std().item() == pytest.approx(made.std[0], abs=1e-3)


@pytest.mark.skipif(not (REAL / "cifar10").is_dir(), reason="no cifar10 below SSL_ZOO_DATA")
def test_real_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    splits = {"train": ["test"], "test": None}
    made = data("uoft-cs/cifar10", root=str(REAL), splits=splits, image_size=32, num_classes=10, store="ram")
    assert made.pixels["train"].shape == (10000, 3, 32, 32)
    assert made.labels["train"].bincount().tolist() == [1000] * 10
    assert made.facts["class_names"][:3] == ["airplane", "automobile", "bird"]
    assert (made.pixels["train"].float() / 255).mean().item() == pytest.approx(0.476, abs=0.005)


def test_a_part_of_the_images_can_be_judged(pets: Path) -> None:
    made = data(pets, eval_examples=4)
    (batch,) = made.eval_batches("train", 10)
    assert sorted(batch.labels.tolist()) == [0, 0, 1, 1]
    assert torch.equal(batch.indices, next(iter(data(pets, eval_examples=4, seed=2).eval_batches("train", 10))).indices)
    with pytest.raises(ValueError, match=r"data\.eval_examples=0: give 1 or more"):
        data(pets, eval_examples=0)


def test_a_folder_called_2024(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pets.rename(pets.parent / "2024")
    monkeypatch.chdir(pets.parent)
    assert data(2024).num_train == 10


def test_16_bit_images_that_would_be_black_are_refused_or_kept(tmp_path: Path) -> None:
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for i in range(3):
            values = np.full((8, 8), 1000 * k + 100 * i + 900, np.uint16)
            Image.fromarray(values).save(tmp_path / "scans" / name / f"{i}.png")
    grey = {"in_chans": 1, "mean": [0.5], "std": [0.2]}
    with pytest.raises(
        ValueError, match=r"data.bits=null: .* their values go to 2,100 only.* Give data.bits=12, which"
    ):
        data(tmp_path / "scans", **grey)
    assert data(tmp_path / "scans", **grey, bits=12).pixels["train"][0].unique().tolist() == [round(900 * 255 / 4095)]
    assert data(tmp_path / "scans", **grey, bits=16).pixels["train"][0].unique().tolist() == [round(900 / 257)]


@pytest.mark.parametrize("store", ["ram", "encoded"])
def test_images_of_many_bands(tmp_path: Path, store: str) -> None:
    (tmp_path / "bands").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 5), dtype=np.uint8)
        (tmp_path / "bands" / f"{i}.tif").write_bytes(tiff(pixels))
    settings = {"in_chans": 5, "mean": [0.5] * 5, "std": [0.2] * 5, "store": store, "num_workers": 0}
    made = data(tmp_path / "bands", **settings)
    assert batches(made, 1)[0].views[0].shape == (4, 5, 8, 8)
    plain = next(iter(made.eval_batches("train", 4))).views[0] * 0.2 + 0.5
    assert ((plain[3] * 255).round().permute(1, 2, 0).numpy() == pixels).all()
    with pytest.raises(
        ValueError, match=r"0.tif: 5 bands, and data.in_chans=3. Give data.in_chans=5 .* Repair or remove"
    ):
        data(tmp_path / "bands")


def test_one_class_is_no_label(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    made = data(pets / "train" / "cat")
    assert not made.facts["has_labels"]
    write(pets / "other" / "train" / "cat", 5)
    made = data(pets / "other", splits={"train": ["train"], "test": None})
    assert (made.facts["has_labels"], made.rows_have_labels, made.has_labels) == (False, False, False)
    assert "5 training and 0 test images, 1 class (cat 5), so no accuracy is measured;" in caplog.text


def test_what_is_not_read_is_said(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write(pets / "extra", 1)
    (pets / "train" / "cat" / "1.heic").write_bytes(b"")
    (pets / "train" / "cat" / "up").symlink_to("..")
    Image.new("RGBA", (8, 8), (200, 0, 0, 0)).save(pets / "train" / "cat" / "glass.png")
    for _ in range(2):  # the second time from the cache
        assert data(pets).num_train == 11
        said = caplog.text
        caplog.clear()
        assert "splits not used: extra (1 files)" in said
        assert "files left out by their endings: 1 .heic (such as" in said
        assert "1 links left out, such as" in said
        assert "the transparency of some images is composited on white" in said


def test_unreadable_files_of_any_kind_can_be_skipped(pets: Path) -> None:
    (pets / "train" / "cat" / "gone.png").symlink_to("nothing")
    os.mkfifo(pets / "train" / "dog" / "pipe.png")
    with pytest.raises(ValueError, match=r"gone.png: .*No such file"):
        data(pets)
    made = data(pets, on_error="skip", max_skipped=0.2)
    assert (made.num_train, made.facts["num_skipped"]) == (10, 2)


def test_a_batch_of_one(pets: Path) -> None:
    assert batches(data(pets, batch_size=1), 1)[0].labels.shape == (1,)


def test_test_images_without_a_label_are_counted(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for name in ("cat", "dog"):
        for path in (pets / "test" / name).iterdir():
            path.rename(pets / "test" / path.name)
        (pets / "test" / name).rmdir()
    data(pets)
    assert "10 training and 0 test images (4 more have no label), 2 classes" in caplog.text


def test_too_little_shared_memory_is_named(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**10))
    with pytest.raises(ValueError, match=r"data.num_workers=2: .* /dev/shm .* --shm-size=8g.*, or data.num_workers=0"):
        data(pets, store="encoded", num_workers=2)
    assert data(pets, store="encoded", num_workers=0).num_train == 10


def test_too_little_shared_memory_for_evaluation_is_named(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = data(pets, store="encoded", num_workers=1, batch_size=1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**11))
    with pytest.raises(ValueError, match=r"data.num_workers=1: .* /dev/shm .* data.num_workers=0"):
        next(made.eval_batches("train", 10))
    assert len(next(made.eval_batches("train", 2)).labels) == 2


@pytest.mark.parametrize("store", ["ram", "encoded"])
def test_few_labels_are_what_evaluators_see_and_supervised_methods_train_on(pets: Path, store: str) -> None:
    made = data(pets, labels_per_class=2, batch_size=3, store=store, num_workers=0)
    assert sorted(made.labels["train"].tolist()) == [-1] * 6 + [0, 0, 1, 1]
    assert made.num_train == 10
    assert not made.rows_have_labels
    assert [len(batch.indices) for batch in made.eval_batches("train", 100)] == [4]
    made.train_on_labelled()
    assert made.num_train == 4
    assert made.rows_have_labels
    known = (made.labels["train"] >= 0).nonzero().squeeze(1).tolist()
    for batch in batches(made, 4):
        assert (batch.labels >= 0).all()
        assert set(batch.indices.tolist()) <= set(known)
    assert made.facts["num_indices"] == 10
    other = data(pets, labels_per_class=2, seed=2)
    assert (other.labels["train"] != made.labels["train"]).any()
    with pytest.raises(ValueError, match=r"data\.batch_size=4 is more than the 2 training examples"):
        data(pets, label_fraction=0.1).train_on_labelled()


def test_images_without_a_test_split_are_held_out(tmp_path: Path) -> None:
    for k, name in enumerate(("cat", "dog")):
        write(tmp_path / name, 10, first=20 * k)
    made = data(tmp_path)
    assert (made.facts["num_train"], made.facts["num_test"]) == (16, 4)
    shown = np.concatenate([batch.views[0].numpy() for batch in made.eval_batches("test", 2)])
    trained = np.concatenate([batch.views[0].numpy() for batch in made.eval_batches("train", 7)])
    assert not any(np.array_equal(a, b) for a in shown for b in trained)
    assert data(tmp_path, heldout=0).facts["num_test"] == 0
