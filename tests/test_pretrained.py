"""Encoders of timm and of transformers from local files: the same features as those libraries give, no network."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import ssl_zoo
from ssl_zoo.encoder import load, save_encoder

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS)


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an empty cache of the Hub, without a network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"


def snapshot(hub: Path, repository: str) -> Path:
    """An empty snapshot of a repository in the cache."""
    root = hub / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("a" * 40)
    folder = root / "snapshots" / ("a" * 40)
    folder.mkdir(parents=True)
    return folder


def test_timm_from_the_cache(hub: Path, tmp_path: Path) -> None:
    theirs: Any = timm.create_model("resnet10t")
    name = theirs.pretrained_cfg["hf_hub_id"]
    safetensors.torch.save_file(theirs.state_dict(), snapshot(hub, name) / "model.safetensors")
    encoder = load("timm:resnet10t")
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=theirs))
    images = torch.stack([transform(IMAGE)])
    theirs.reset_classifier(0)
    with torch.no_grad():
        assert torch.allclose(encoder(images), theirs.eval()(images), atol=1e-5)
    assert encoder.inputs["interpolation"] == theirs.pretrained_cfg["interpolation"]
    assert (encoder.transform(IMAGE) - images[0]).abs().mean() < 0.05  # rounding of Pillow's resizing
    # Its file is complete: it loads without the cache.
    save_encoder(tmp_path, encoder.network, encoder.manifest, None)
    again = load(tmp_path / "encoder.safetensors")
    assert torch.equal(again(images), encoder(images))
    assert again.manifest["weights_hash"] == encoder.manifest["weights_hash"]


def test_timm_from_a_repository_of_the_hub(hub: Path) -> None:
    theirs: Any = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=5)
    folder = snapshot(hub, "me/vit")
    cfg = {
        "input_size": [3, 32, 32],
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    }
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 5, "pretrained_cfg": cfg}
    cfg |= {"num_classes": 5, "classifier": "head", "first_conv": "patch_embed.proj"}
    config["model_args"] = {"img_size": 32, "patch_size": 8}
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(theirs.state_dict(), folder / "model.safetensors")
    encoder = load("timm:hf-hub:me/vit")
    assert encoder.inputs["image_size"] == 32
    assert encoder.inputs["mean"] == [0.5] * 3
    theirs.reset_classifier(0)
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(encoder(images), theirs.eval()(images), atol=1e-5)
    with pytest.raises(ValueError, match="a model of timm: give encoder=timm:hf-hub:me/vit"):
        load("hf:me/vit")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:resnet10t", "weights are not here, or timm has none"),
        ("timm:resnet10", "no such model. Nearest names: .*resnet10t"),
        ("timm:hf-hub:me/none", "the Hub cannot be asked or has no me/none"),
        ("hf:me/none", "the Hub cannot be asked or has no me/none"),
        ("hf:", "give a name after the colon"),
    ],
)
def test_what_is_not_there(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        load(name)
    assert "\n" not in str(error.value)


def tokenizer(roberta: bool) -> Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>"] if roberta else ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["a", "good", "movie", "bad", "it", "was", "not", "film"]
    vocabulary = {word: number for number, word in enumerate([*special, *words, *(["<mask>"] * roberta)])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=special[3 if roberta else 1]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    begin, end = ("<s>", "</s>") if roberta else ("[CLS]", "[SEP]")
    ids = [(begin, vocabulary[begin]), (end, vocabulary[end])]
    made.post_processor = processors.TemplateProcessing(single=f"{begin} $A {end}", special_tokens=ids)
    return made


def text_folder(folder: Path, kind: str, **pooling: bool) -> Any:
    """A repository of a small text encoder with random weights, and its model."""
    transformers = pytest.importorskip("transformers")
    roberta = kind == "roberta"
    made = tokenizer(roberta)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=made.get_vocab_size(), pad_token_id=int(roberta), max_position_embeddings=40, **size
    )
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).eval()
    folder.mkdir(exist_ok=True)
    model.save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    if pooling:
        (folder / "1_Pooling").mkdir()
        settings = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": False, **pooling}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return model


TEXTS = ["a good movie", "it was not a bad film it was good", "movie"]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_text_with_the_tokens_that_the_model_expects(kind: str, pool: str, tmp_path: Path) -> None:
    """Against transformers, one text at a time: special tokens and pooling as sentence-transformers has them."""
    mode = {"pooling_mode_cls_token": pool == "cls", "pooling_mode_mean_tokens": pool == "mean"}
    model = text_folder(tmp_path / "model", kind, **mode)
    encoder = load(f"hf:{tmp_path / 'model'}")
    made = tokenizer(kind == "roberta")
    rows = []
    with torch.no_grad():
        for text in TEXTS:
            hidden = model(input_ids=torch.tensor([made.encode(text).ids])).last_hidden_state[0]
            rows.append(hidden[0] if pool == "cls" else hidden.mean(0))
    assert torch.allclose(encoder.embed(TEXTS), torch.stack(rows), atol=1e-5)
    assert encoder.inputs["max_length"] == 40 - 2 - 2 * (kind == "roberta")
    longest = encoder.transform(" ".join(["good"] * 99))
    assert encoder(longest[None]).isfinite().all()
    features = encoder.tokens(encoder.collate([encoder.transform(text) for text in TEXTS]))
    assert features.features.shape[:2] == features.valid.shape == (3, 9)  # of the text alone


def test_a_text_encoder_is_saved_and_loaded(tmp_path: Path) -> None:
    text_folder(tmp_path / "model", "bert")
    encoder = load(f"hf:{tmp_path / 'model'}")
    save_encoder(tmp_path, encoder.network, encoder.manifest, encoder.tokenizer)
    assert torch.equal(load(tmp_path / "encoder.safetensors").embed(TEXTS), encoder.embed(TEXTS))
    assert torch.equal(load(f"hf:{tmp_path}").embed(TEXTS), encoder.embed(TEXTS))  # a repository with our file


def test_text_from_the_cache_of_the_hub(hub: Path) -> None:
    text_folder(snapshot(hub, "me/bert"), "bert")
    assert load("hf:me/bert").embed(TEXTS).shape == (3, 16)


def test_image_encoder_with_the_settings_of_its_processor(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=24, patch_size=8
    )
    model = transformers.AutoModel.from_config(config).eval()
    model.save_pretrained(tmp_path)
    settings = {"do_resize": True, "size": {"shortest_edge": 32}, "do_center_crop": True, "resample": 3}
    settings |= {"crop_size": {"height": 24, "width": 24}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = load(f"hf:{tmp_path}")
    assert encoder.inputs["image_size"] == 24
    assert encoder.inputs["crop_ratio"] == 0.75
    assert encoder.inputs["interpolation"] == "bicubic"
    images = torch.stack([encoder.transform(IMAGE)])
    with torch.no_grad():
        assert torch.allclose(encoder(images), model(pixel_values=images).last_hidden_state[:, 0], atol=1e-5)
    assert encoder.tokens(images).grid == (3, 3)
    save_encoder(tmp_path, encoder.network, encoder.manifest, None)
    assert torch.equal(ssl_zoo.load(tmp_path)(images), encoder(images))


def test_folders_that_hold_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json that can be read"):
        load(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="transformers cannot load its weights"):
        load(f"hf:{tmp_path}")
    text_folder(tmp_path / "other", "bert", pooling_mode_mean_tokens=True, pooling_mode_cls_token=True)
    with pytest.raises(ValueError, match="not by mean, cls or max alone"):
        load(f"hf:{tmp_path / 'other'}")
