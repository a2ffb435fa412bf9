"""An encoder loaded from its file gives the features that its run had, and takes nothing but plain values from it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_zoo import encoder_file
from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.backbones.text import TextTransformer, transformers_backbone
from ssl_zoo.data.image.decode import UnreadableImage
from ssl_zoo.data.image.module import ImageData
from ssl_zoo.data.text.tokenizer import TextTokenizer, train_tokenizer
from ssl_zoo.encoder import Encoder, load, save_encoder
from ssl_zoo.training.encoder_card import make_encoder_card, make_manifest
from ssl_zoo.views import Views
from ssl_zoo.views.colour import Normalize
from ssl_zoo.views.geometry import CenterCrop

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.2]
IMAGES: dict[str, dict[str, Any]] = {
    "conv": {"name": "resnet10t", "image_size": 32},
    "halved stem": {"name": "resnet10t", "image_size": 64},
    "vit": {"name": "vit_tiny_patch16_224", "image_size": 16, "depth": 2, "embed_dim": 32, "num_heads": 2},
    "swin": {"name": "swin_tiny_patch4_window7_224", "image_size": 64, "small_stem": False, "depths": [1, 1, 1, 1]},
}
TEXTS = ["a film that I never saw", "so bad", "", "it moved me to tears again and again and again"]


def image_encoder(kind: str, folder: Path) -> tuple[nn.Module, Path]:
    torch.manual_seed(1)
    arguments = {"in_chans": 3, **IMAGES[kind]}
    network = image_backbone(**arguments).eval()
    for module in network.modules():  # running statistics that differ from those of a new network
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
    facts = {"image_size": arguments["image_size"], "in_chans": 3, "mean": MEAN, "std": STD}
    card = make_encoder_card("any", arguments, network, facts)
    manifest = make_manifest(encoder_file.IMAGE_BUILDER, card, network, {"bits": None}, {"method": "simclr"})
    return network, save_encoder(folder, network, manifest, None)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer([" ".join(TEXTS)] * 3, "bpe", 300, True).save(str(path))
    return TextTokenizer(path)


def text_encoder(kind: str, tokenizer: TextTokenizer, folder: Path) -> tuple[nn.Module, Path]:
    torch.manual_seed(1)
    arguments: dict[str, Any] = {"vocab_size": tokenizer.vocab_size, "max_length": 8, "pad_id": tokenizer.pad_id}
    if kind == "ours":
        target = encoder_file.TEXT_BUILDER
        arguments |= {"trunk": "eva02_tiny_patch14_224", "depth": 1, "embed_dim": 32, "num_heads": 2}
        network: nn.Module = TextTransformer(**arguments)
    else:
        target = encoder_file.TRANSFORMERS_BUILDER
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        arguments |= {"name": "bert", **sizes}
        network = transformers_backbone(**arguments)
    card = make_encoder_card("any", arguments, network, {"tokenizer_hash": tokenizer.identity})
    settings = {"max_length": 8, "replace": {"<br />": " "}}
    manifest = make_manifest(target, card, network, settings, {"method": "mlm"})
    return network.eval(), save_encoder(folder, network, manifest, tokenizer)


def pictures(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for i, (height, width) in enumerate([(40, 60), (32, 32), (100, 33)]):
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("kind", IMAGES)
@torch.no_grad()
def test_an_image_encoder_comes_back_bit_equal(kind: str, tmp_path: Path) -> None:
    network, file = image_encoder(kind, tmp_path)
    encoder = load(tmp_path)
    size = IMAGES[kind]["image_size"]
    x = torch.randn(2, 3, size, size)
    assert torch.equal(encoder(x), network(x))
    assert encoder.num_features == network(x).shape[1]
    assert not encoder.training
    file.rename(tmp_path / "moved.safetensors")
    assert torch.equal(load(tmp_path / "moved.safetensors")(x), network(x))
    features, grid, valid = encoder.tokens(x)
    assert features.shape == (2, grid[0] * grid[1], encoder.num_features)
    assert valid.all()
    if kind != "vit":  # these pool by the mean over positions
        assert torch.allclose(features.mean(dim=1), encoder(x), atol=1e-5)


@torch.no_grad()
def test_vit_tokens_are_those_of_the_patches(tmp_path: Path) -> None:
    network: Any = image_encoder("vit", tmp_path)[0]
    x = torch.randn(2, 3, 16, 16)
    features, grid, _ = load(tmp_path).tokens(x)
    assert grid == (8, 8)
    assert torch.equal(features, network.forward_features(x)[:, network.num_prefix_tokens :])


def test_transform_gives_the_inputs_of_the_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_ZOO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = pictures(folder)
    data = ImageData(str(folder), {"train": "train", "test": None}, 32, 3, MEAN, STD, batch_size=2, store="ram")
    data.prepare_data()
    plain = Views([[CenterCrop(32, 1.0), Normalize(MEAN, STD)]])
    data.attach(plain, plain)
    expected = torch.cat([batch.views[0] for batch in data.eval_batches("train", 2)])
    image_encoder("conv", tmp_path)
    encoder = load(tmp_path)
    assert torch.equal(torch.stack([encoder.transform(path) for path in paths]), expected)
    assert torch.equal(encoder.transform(paths[0].read_bytes()), expected[0])
    assert torch.equal(encoder.transform(str(paths[0])), expected[0])
    with Image.open(paths[0]) as image:
        assert torch.equal(encoder.transform(image), expected[0])
        assert torch.equal(encoder.transform(np.asarray(image)), expected[0])
    # Vectors come in the order of the items, whatever the size of a batch, and the mode of the encoder stays.
    encoder.train()
    vectors = encoder.embed(paths, batch_size=2)
    assert encoder.training
    assert vectors.shape == (3, 512)
    with torch.no_grad():
        assert torch.allclose(vectors, encoder.eval()(expected), atol=1e-5)
    assert encoder.embed([]).shape == (0, 512)


@pytest.mark.parametrize("kind", ["ours", "transformers"])
@torch.no_grad()
def test_a_text_encoder_comes_back_with_its_tokenizer(kind: str, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    if kind == "transformers":
        pytest.importorskip("transformers")
    network, _ = text_encoder(kind, tokenizer, tmp_path)
    encoder = load(tmp_path)
    ids = encoder.transform("so<br />bad")
    assert ids.tolist() == tokenizer.encode(["so bad"])[0].tolist()
    assert len(encoder.transform("word " * 50)) == 8
    one_by_one = [network(encoder.transform(text)[None]) for text in TEXTS]
    assert torch.allclose(encoder.embed(TEXTS, batch_size=2), torch.cat(one_by_one), atol=1e-5)
    batch = encoder.collate([encoder.transform(text) for text in TEXTS])
    features, grid, valid = encoder.tokens(batch)
    assert features.shape[:2] == valid.shape == batch.shape
    assert grid == (1, batch.shape[1])
    assert valid[1].sum() == len(encoder.transform("so bad"))


def test_wrong_items_are_named(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    text_encoder("ours", tokenizer, tmp_path / "text")
    image_encoder("conv", tmp_path)
    texts, images = load(tmp_path / "text"), load(tmp_path)
    with pytest.raises(TypeError, match="for text: give str, not int"):
        texts.transform(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"give \[item\]"):
        texts.embed("one text")
    with pytest.raises(TypeError, match="for images: give a path"):
        images.transform(3)  # type: ignore[arg-type]
    (tmp_path / "no.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=r"no\.png"):
        images.embed([tmp_path / "no.png"])


def rewrite(file: Path, change: dict[str, Any], state: dict[str, Tensor] | None = None) -> None:
    manifest = json.loads(encoder_file.header_texts(file)["manifest"])
    state = safetensors.torch.load_file(file) if state is None else state
    safetensors.torch.save_file(state, file, {"manifest": json.dumps(manifest | change)})


def test_damage_is_found(tmp_path: Path) -> None:
    _, file = image_encoder("vit", tmp_path)
    whole = file.read_bytes()
    for content in (whole[:-100], whole[: len(whole) // 2], whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"encoder=.*damaged.*(Copy|give)"):
            load(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"builder": "os.system", "arguments": {"command": "true"}}, "code that a file names is never run"),
        ({"arguments": {"name": "resnet10t", "in_chans": 3, "image_size": 32, "checkpoint_path": "x"}}, "never taken"),
        ({"arguments": {"name": "hf-hub:evil/model:tag", "in_chans": 3, "image_size": 32}}, "no plain value"),
        *(
            ({"arguments": {"name": "resnet10t", "in_chans": 3, "image_size": 32, "pretrained": given}}, "to be loaded")
            for given in ("/x", "weights.pt", True)
        ),
        ({"arguments": {"name": "resnet18", "in_chans": 3, "image_size": 32}}, "weights are not those of its network"),
    ],
)
def test_a_file_builds_only_what_is_ours(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    _, file = image_encoder("conv", tmp_path)
    rewrite(file, change)
    with pytest.raises(ValueError, match=message):
        load(file)


def test_a_network_of_ones_own_can_be_given(tmp_path: Path) -> None:
    network, file = image_encoder("vit", tmp_path)
    rewrite(file, {"builder": "mine.Backbone", "arguments": {}})
    other = image_backbone(in_chans=3, **IMAGES["vit"])
    encoder = load(file, network=other)
    assert isinstance(encoder, Encoder)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), network.parameters(), strict=True))


def test_loading_needs_neither_hydra_nor_lightning(tmp_path: Path) -> None:
    image_encoder("vit", tmp_path)
    lines = f"""
import sys, ssl_zoo
for name in ("hydra", "lightning", "omegaconf", "wandb", "datasets"):
    sys.modules[name] = None  # an import of it fails
encoder = ssl_zoo.load({str(tmp_path)!r})
assert encoder.num_features == 32, encoder.num_features
"""
    subprocess.run([sys.executable, "-c", lines], check=True)


def test_public_names() -> None:
    import ssl_zoo

    assert ssl_zoo.load is load
    assert ssl_zoo.Encoder is Encoder
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ssl_zoo.nothing
