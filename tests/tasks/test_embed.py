"""Every example gets its vector, a killed call goes on, and mistakes end before the work."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from ssl_zoo.data.embeddings import read_embeddings
from ssl_zoo.data.examples import open_examples
from ssl_zoo.encoder import load
from ssl_zoo.tasks import embed as task
from ssl_zoo.tasks.embed import embed_data
from tests.conftest import Ended
from tests.data.pictures import write
from tests.tasks.encoders import colour_encoder, saved_encoder, word_encoder


def test_vectors_are_those_of_the_encoder_in_order(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        write(tmp_path / "pets" / label, 5, first=5 * (label == "dog"))
    encoder = colour_encoder()
    found = embed_data(encoder, tmp_path / "pets", batch_size=3)
    assert found.paths is not None
    assert found.labels == ["cat"] * 5 + ["dog"] * 5
    expected = encoder.embed([tmp_path / "pets" / path for path in found.paths])
    assert np.allclose(found.vectors, expected.numpy(), atol=1e-6)
    assert len(np.unique(found.vectors, axis=0)) == 10


def test_texts_of_any_length_keep_their_order(tmp_path: Path) -> None:
    lines = ["the movie", "good", "", "a bad film and the good one was great", "film film"]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    encoder = word_encoder(tmp_path)
    found = embed_data(encoder, tmp_path / "texts.txt", batch_size=2)
    assert found.indices.tolist() == [0, 1, 3, 4]
    assert found.paths is None
    assert np.array_equal(found.vectors, encoder.embed([line for line in lines if line]).numpy())


def test_half_is_half_as_large_and_nearly_equal(tmp_path: Path) -> None:
    write(tmp_path / "pets", 4)
    whole = embed_data(colour_encoder(), tmp_path / "pets")
    half = embed_data(colour_encoder(), tmp_path / "pets", tmp_path / "half", half=True)
    assert pandas.read_parquet(tmp_path / "half" / "embeddings.parquet")["vector"][0].dtype == np.float16
    assert np.allclose(half.vectors, whole.vectors, rtol=1e-3)


def test_a_killed_call_goes_on_after_its_last_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "pets", 10)
    monkeypatch.setattr(task, "ROWS_PER_PART", 4)
    monkeypatch.setattr(task, "TRIED_FIRST", 0)
    write_part = task.write_part

    def killed(path: Path, *rest: object) -> None:
        if path.name == "000002.parquet":
            raise KeyboardInterrupt
        write_part(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(task, "write_part", killed)
    with pytest.raises(KeyboardInterrupt):
        embed_data(colour_encoder(), tmp_path / "pets", tmp_path / "out")
    assert not (tmp_path / "out" / "embeddings.parquet").exists()
    monkeypatch.setattr(task, "write_part", write_part)
    encoder = colour_encoder()
    found = embed_data(encoder, tmp_path / "pets", tmp_path / "out")
    assert encoder.network.images == 2, "eight were embedded before"
    assert np.array_equal(found.vectors, embed_data(colour_encoder(), tmp_path / "pets").vectors)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["embeddings.parquet"]
    embed_data(encoder, tmp_path / "pets", tmp_path / "out")
    assert encoder.network.images == 2, "a complete file is left as it is"


@pytest.mark.parametrize("change", ["encoder", "data", "half"])
def test_a_folder_with_other_embeddings_is_left_as_it_is(change: str, tmp_path: Path) -> None:
    write(tmp_path / "pets", 3)
    embed_data(colour_encoder(), tmp_path / "pets", tmp_path / "out")
    before = (tmp_path / "out" / "embeddings.parquet").read_bytes()
    encoder = colour_encoder()
    if change == "encoder":
        encoder.network.scale.data *= 2
    if change == "data":
        write(tmp_path / "pets", 4)
    with pytest.raises(ValueError, match=rf"hydra\.run\.dir=.*made with another {change}\. Give another folder"):
        embed_data(encoder, tmp_path / "pets", tmp_path / "out", half=change == "half")
    assert (tmp_path / "out" / "embeddings.parquet").read_bytes() == before


def test_unreadable_images_are_named_and_skipped_only_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "pets", 6)
    (tmp_path / "pets" / "0003.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"0003\.png: not an image file\. Repair .* data\.on_error=skip"):
        embed_data(colour_encoder(), tmp_path / "pets")
    with pytest.raises(ValueError, match=r"data\.max_skipped=0\.01: 1 of 6 images cannot be read"):
        embed_data(colour_encoder(), tmp_path / "pets", on_error="skip")
    found = embed_data(colour_encoder(), tmp_path / "pets", on_error="skip", max_skipped=0.2)
    assert found.paths == ["0000.png", "0001.png", "0002.png", "0004.png", "0005.png"]
    assert found.about["skipped"] == 1
    assert "skipped 1 of 6 images, unreadable" in caplog.text


def test_other_channels_are_refused_before_the_work(tmp_path: Path) -> None:
    write(tmp_path / "pets", 3)
    encoder = colour_encoder(in_chans=5)
    with pytest.raises(
        ValueError, match=r"data\.path=.*takes images of 5 channels.*3 bands.*Choose other data"
    ) as said:
        embed_data(encoder, tmp_path / "pets", tmp_path / "out", on_error="skip")
    assert "\n" not in str(said.value)
    assert encoder.network.images == 0
    assert not (tmp_path / "out").exists()


def test_a_vector_that_is_no_number_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "pets", 3)
    encoder = colour_encoder()
    encoder.network.scale.data *= torch.nan
    with pytest.raises(ValueError, match=r"encoder: its vector of .*0000\.png.* is NaN or Inf"):
        embed_data(encoder, tmp_path / "pets")


def test_the_command(cli: Callable[..., Ended], tmp_path: Path) -> None:
    saved_encoder(tmp_path / "run")
    write(tmp_path / "pets", 5)
    Image.new("L", (20, 9)).save(tmp_path / "pets" / "grey.png")
    command = ("task=embed", "encoder=run", "data.path=pets", "hydra.run.dir=out", "trainer.accelerator=cpu")
    ended = cli(*command)
    assert ended.status == 0, ended.err
    assert "out/embeddings.parquet (6 x 512 float32" in ended.out
    found, encoder = read_embeddings(tmp_path / "out"), load(tmp_path / "run")
    assert np.allclose(found.vectors[0], encoder.embed([tmp_path / "pets" / "0000.png"])[0].numpy(), atol=1e-5)
    assert found.about["encoder"] == encoder.manifest["weights_hash"]
    assert found.about["data"] == open_examples("image", "pets").fingerprint()
    assert found.about["path"] == "pets"
    json.dumps(found.about)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data.path=pets"], "task=embed needs encoder=<run folder"),
        (["encoder=nowhere", "data.path=pets"], "encoder=nowhere: no such file or folder"),
        (["encoder=pets", "data.path=pets"], "encoder=pets: no encoder.safetensors in this folder"),
        (["encoder=run", "data.path=gone"], "data.path=gone: no such file or folder"),
        (["encoder=run", "data.path=empty"], "data.path=empty: no images in"),
        (["encoder=run", "data=text_folder", "data.path=pets"], "data: it is of text, and the encoder is for image"),
        (["encoder=run", "data.path=pets", "data.image_size=9"], "data.image_size=9: the encoder is for 8"),
        (["encoder=run", "data.path=pets", "half=maybe"], "half=maybe must be of type bool"),
    ],
)
def test_mistakes(arguments: list[str], said: str, cli: Callable[..., Ended], tmp_path: Path) -> None:
    saved_encoder(tmp_path / "run")
    write(tmp_path / "pets", 2)
    (tmp_path / "empty").mkdir()
    ended = cli("task=embed", "hydra.run.dir=out", "trainer.accelerator=cpu", *arguments)
    assert ended.status == 2
    assert f"error: {said}" in ended.err.splitlines()[-1], "one line"
    left = [path.name for path in (tmp_path / "out").glob("*")] if (tmp_path / "out").exists() else []
    assert not set(left) - {"run.log"}
