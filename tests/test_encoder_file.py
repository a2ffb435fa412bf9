import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ssl_zoo import encoder_file
from ssl_zoo.report import results


def write(file: Path, **manifest: object) -> Path:
    whole = {
        "format": encoder_file.FORMAT,
        "version": 1,
        "modality": "image",
        "builder": encoder_file.IMAGE_BUILDER,
        "arguments": {},
        "num_features": 1,
        "input": {},
        "weights_hash": "",
        **manifest,
    }
    save_file({"x": torch.ones(1)}, file, {"manifest": json.dumps(whole)})
    return file


def test_the_manifest_is_in_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "moved.safetensors", licence="mit")
    assert encoder_file.find_encoder_file(file) == file
    assert encoder_file.read_manifest(file)["licence"] == "mit"


def test_a_folder_stands_for_its_encoder(tmp_path: Path) -> None:
    file = write(tmp_path / encoder_file.WEIGHTS_NAME)
    (tmp_path / encoder_file.MANIFEST_NAME).write_text("{}")
    assert encoder_file.find_encoder_file(tmp_path) == file
    assert encoder_file.find_encoder_file(tmp_path / encoder_file.MANIFEST_NAME) == file


@pytest.mark.parametrize(
    ("status", "remedy"), [("interrupted", "to finish it"), ("running", "to finish it"), ("completed", "step-")]
)
def test_a_folder_without_an_encoder_says_why(tmp_path: Path, status: str, remedy: str) -> None:
    budget = {"kind": "steps", "value": 1}
    results.write_results(tmp_path, results.empty_results(status, method="m", data="d") | {"budget": budget})
    with pytest.raises(ValueError, match=rf"encoder=.*{remedy}"):
        encoder_file.find_encoder_file(tmp_path)


def test_an_empty_folder_and_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder of a completed run"):
        encoder_file.find_encoder_file(tmp_path)
    with pytest.raises(ValueError, match="no such file or folder"):
        encoder_file.find_encoder_file(tmp_path / "none")


@pytest.mark.parametrize(
    "content", [b"", b"\x10", b"\xff" * 8, (9**9).to_bytes(8, "little") + b"{}", b"PK\x03\x04" * 9]
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"encoder=.*x\.safetensors: damaged"):
        encoder_file.read_manifest(file)


def test_weights_without_a_manifest(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"backbone\.pretrained="):
        encoder_file.read_manifest(tmp_path / "x.safetensors")


@pytest.mark.parametrize("change", [{"version": 2}, {"format": "other"}, {"modality": "sound"}])
def test_manifests_of_other_versions(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="manifest cannot be used"):
        encoder_file.read_manifest(write(tmp_path / "x.safetensors", **change))
