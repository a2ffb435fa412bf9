import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from ssl_zoo import encoder_file
from ssl_zoo.encoder_data import fit_data_to_encoder, with_encoder_data


def encoder(folder: Path, modality: str = "image", overrides: list[str] | None = None) -> str:
    manifest = {
        "format": encoder_file.FORMAT,
        "version": 1,
        "modality": modality,
        "builder": encoder_file.IMAGE_BUILDER,
        "arguments": {},
        "num_features": 1,
        "input": {},
        "weights_hash": "",
        "training": {} if overrides is None else {"overrides": overrides},
    }
    save_file({"x": torch.ones(1)}, folder / encoder_file.WEIGHTS_NAME, {"manifest": json.dumps(manifest)})
    return f"encoder={folder}"


def test_a_path_alone_is_read_as_the_encoder_needs(tmp_path: Path) -> None:
    given = ["task=embed", encoder(tmp_path), "data.path=x"]
    assert with_encoder_data(given) == ["data=folder", *given]
    given = ["task=embed", encoder(tmp_path, "text"), "data.path=x"]
    assert with_encoder_data(given) == ["data=text_folder", *given]
    assert with_encoder_data(["task=embed", "encoder=timm:vit_tiny", "data.path=x"])[0] == "data=folder"


def test_without_data_it_is_that_of_the_run(tmp_path: Path) -> None:
    chosen = [
        "experiment=cifar10_200",
        "data=cifar10",
        "data.eval_examples=100",
        "method=byol",
        "+data.bits=12",
        "seed=1",
    ]
    given = ["task=evaluate", encoder(tmp_path, overrides=chosen), "data.eval_examples=200"]
    assert with_encoder_data(given) == ["experiment=cifar10_200", "data=cifar10", "+data.bits=12", *given]


@pytest.mark.parametrize("evil", ["+data._target_=os.system", "data={_target_: os.system}", "data.path=${oc.env:HOME}"])
def test_a_file_cannot_name_code(tmp_path: Path, evil: str) -> None:
    given = ["task=evaluate", encoder(tmp_path, overrides=[evil])]
    assert with_encoder_data(given) == given


def test_what_is_given_stays(tmp_path: Path) -> None:
    for given in (
        ["method=byol"],
        ["task=evaluate", encoder(tmp_path), "data=cifar10"],
        ["task=pretrain", encoder(tmp_path)],
        ["task=doctor"],
    ):
        assert with_encoder_data(given) == given


def test_an_encoder_that_knows_no_data(tmp_path: Path) -> None:
    for given in (encoder(tmp_path), "encoder=timm:vit_tiny"):
        with pytest.raises(ValueError, match=r"Give data\.path="):
            with_encoder_data(["task=evaluate", given])


def fit(data: dict[str, Any], inputs: dict[str, Any], given: list[str], folder: Path, modality: str = "image") -> Any:
    cfg = OmegaConf.create({"data": data})
    tokenizer = SimpleNamespace(content=b"{}") if modality == "text" else None
    loaded: Any = SimpleNamespace(modality=modality, inputs=inputs, tokenizer=tokenizer)
    fit_data_to_encoder(cfg, loaded, given, folder)
    return cfg.data


def test_data_takes_the_inputs_of_the_encoder(tmp_path: Path) -> None:
    inputs = {"image_size": 32, "in_chans": 1, "mean": [0.5], "std": [0.2], "bits": None, "interpolation": "bilinear"}
    data = fit({"image_size": 224, "in_chans": 3, "mean": [0, 0, 0], "std": [1, 1, 1]}, inputs, [], tmp_path)
    assert data == {"image_size": 32, "in_chans": 1, "mean": [0.5], "std": [0.2], "bits": None}
    text = {"tokenizer": {"name": None, "kind": "bpe"}, "max_length": 256}
    data = fit(text, {"max_length": 64, "tokenizer_hash": "x"}, [], tmp_path, "text")
    assert data.max_length == 64
    assert Path(data.tokenizer.name).read_bytes() == b"{}"


def test_contradictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.image_size=64: the encoder is for 32"):
        fit({"image_size": 64}, {"image_size": 32}, ["data.image_size=64"], tmp_path)
    with pytest.raises(ValueError, match="it is of image, and the encoder is for text"):
        fit({"image_size": 64}, {}, [], tmp_path, "text")
    with pytest.raises(ValueError, match=r"data\.tokenizer"):
        fit({"tokenizer": {}}, {}, ["data.tokenizer.kind=bpe"], tmp_path, "text")
