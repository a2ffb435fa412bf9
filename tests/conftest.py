"""Small real-looking data in the Hub's layout, and the command line called in this process."""

import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each worker has a core; threads of two would fight for both

# A shell that starts us in the background has interrupts ignored, and our children would inherit that; some get them.
signal.signal(signal.SIGINT, signal.default_int_handler)

WORDS = """the movie was great and plot acting of a film that I never saw so bad
it moved me to tears again""".split()  # noqa: SIM905


class Ended(NamedTuple):
    """How a command ended: exit status and what it wrote."""

    status: int
    out: str
    err: str


def write_parquet(folder: Path, splits: dict[str, dict[str, list]]) -> None:
    import pandas

    folder.mkdir(parents=True)
    for split, columns in splits.items():
        pandas.DataFrame(columns).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    files = "".join(f"  - split: {split}\n    path: {split}-*\n" for split in splits)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")


def make_images(count: int, rng: np.random.Generator) -> dict[str, list]:
    """CIFAR-like: each of 10 classes has a colour of its own under noise, as JPEG bytes."""
    labels = [i % 10 for i in range(count)]
    images = []
    for label in labels:
        tint = np.array([label * 25, 255 - label * 25, (label * 67) % 256])
        pixels = np.clip(tint + rng.normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    return {"img": images, "label": labels}


def make_texts(count: int, rng: np.random.Generator, labelled: bool = True) -> dict[str, list]:
    texts, labels = [], []
    for i in range(count):
        label = i % 2
        words = rng.choice(WORDS, rng.integers(20, 60)).tolist()
        texts.append(" ".join([*words, "good" if label else "bad", *words[::-1]]) + f".<br />Number {i}.")
        labels.append(label if labelled else -1)
    return {"text": texts, "label": labels}


def make_captions(count: int) -> list[list[str]]:
    """Five short sentences each."""
    rng = np.random.default_rng(count)
    return [[" ".join(rng.choice(WORDS, 8)) + f" {i}." for _ in range(5)] for i in range(count)]


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to use as SSL_ZOO_DATA: tiny sets with the names, splits and columns of the real ones."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    write_parquet(root / "cifar10", {"train": make_images(300, rng), "test": make_images(100, rng)})
    texts = {"train": make_texts(200, rng), "test": make_texts(80, rng)}
    write_parquet(root / "imdb", texts | {"unsupervised": make_texts(200, rng, labelled=False)})
    sizes = {"train": 40, "test": 20}
    pictures = {split: make_images(count, rng)["img"] for split, count in sizes.items()}
    captioned = {split: {"image": images, "caption": make_captions(len(images))} for split, images in pictures.items()}
    write_parquet(root / "flickr8k_1000", captioned)
    write_parquet(root / "flickr8k_captions", {"train": {"captions": make_captions(200)}})
    labelled = {split: make_images(count, rng) for split, count in {"train": 40, "validation": 20}.items()}
    columns = {split: {"image": images["img"], "label": images["label"]} for split, images in labelled.items()}
    write_parquet(root / "imagenette160", columns)
    return root


@pytest.fixture(scope="session")
def cache_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def transcript_ends() -> Iterator[None]:
    """Gives stdout and stderr back after a test that called a task and not `main`, which does so itself."""
    yield
    from ssl_zoo.training import transcript

    transcript.stop_transcript()


@pytest.fixture
def cli(
    data_root: Path,
    cache_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Callable[..., Ended]:
    """`cli("method=byol", ...)` is `python run.py method=byol ...` in an empty folder, in this process."""
    from ssl_zoo import run

    monkeypatch.setenv("SSL_ZOO_DATA", str(data_root))
    monkeypatch.setenv("SSL_ZOO_CACHE", str(cache_root))
    monkeypatch.setenv("SSL_ZOO_RUN_ID", "test")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # `main` sets it; so it ends with the test
    monkeypatch.setattr(logging, "raiseExceptions", True)  # likewise
    monkeypatch.setenv("HF_DATASETS_CACHE", str(cache_root / "hf"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        status = 0
        try:
            run.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        out, err = capfd.readouterr()
        return Ended(status, out, err)

    return call
