"""Weights of other frameworks: the loaded backbone has the features of the module that was saved."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from lightly.models import ResNetGenerator
from lightly.models.modules import (
    DINOProjectionHead,
    MaskedVisionTransformerTIMM,
    MaskedVisionTransformerTorchvision,
    MoCoProjectionHead,
    SimCLRProjectionHead,
)
from omegaconf import OmegaConf
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor, nn

from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.backbones.weights import read_weights

VIT: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 3, "global_pool": "token"}
"""A tiny ViT, with which a test takes no time."""


def randomised(module: nn.Module, seed: int = 0) -> Any:
    """The module in evaluation mode with every parameter and buffer random, so that none is what a new one has."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            values = 0.05 * torch.randn(tensor.shape, generator=generator)
            tensor.copy_(1 + values.abs() if "var" in name or tensor.ndim == 1 else values)
    return module.eval()


def resnet(seed: int = 0, name: str = "resnet18") -> Any:
    """A ResNet of torchvision that returns its features."""
    module = torchvision.models.get_model(name)
    module.fc = nn.Identity()
    return randomised(module, seed)


def vit(seed: int = 0, **options: Any) -> Any:
    return randomised(timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64, **VIT, **options), seed)


def children(module: nn.Module) -> nn.Sequential:
    """What lightly's documentation makes of a ResNet."""
    return nn.Sequential(*list(module.children())[:-1])


def below(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def loaded(contents: Any, folder: Path, name: str = "resnet18", size: int = 64, **options: Any) -> Any:
    """The backbone with the weights of a file that has these contents, in evaluation mode."""
    path = folder / "weights.pt"
    torch.save(contents, path)
    options = {"small_stem": False} | options
    return image_backbone(name, 3, size, pretrained=str(path), **options).eval()


def same_features(model: nn.Module, source: Callable[[Tensor], Tensor], size: int = 64, in_chans: int = 3) -> None:
    images = torch.randn(2, in_chans, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = source(images).flatten(1)
        assert expected.std() > 1e-3
        torch.testing.assert_close(model(images) / expected.std(), expected / expected.std(), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------ torchvision


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvision_resnets(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = randomised(torchvision.models.get_model(name))
    with caplog.at_level("INFO"):
        model = loaded(source.state_dict(), tmp_path, name)
    source.fc = nn.Identity()
    same_features(model, source)
    assert "left over     fc (2)" in caplog.text


def test_torchvision_vit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = randomised(torchvision.models.vit_b_16())
    with caplog.at_level("INFO"):
        model = loaded(source.state_dict(), tmp_path, "vit_base_patch16_224", 224, global_pool="token")
    source.heads = nn.Identity()
    same_features(model, source, 224)
    assert "names of torchvision's ViT" in caplog.text
    assert "left over     heads (2)" in caplog.text


def test_torchvision_convnext(tmp_path: Path) -> None:
    source = randomised(torchvision.models.convnext_tiny())
    model = loaded(source.state_dict(), tmp_path, "convnext_tiny")
    del source.classifier[2]
    same_features(model, source)


# ---------------------------------------------------------------------------------------------------- lightly


class LightlySimCLR(nn.Module):
    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.projection_head = SimCLRProjectionHead(512, 512, 128)


class LightlyMoCo(nn.Module):
    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.projection_head = MoCoProjectionHead(512, 512, 128)
        self.backbone_momentum = randomised(copy.deepcopy(backbone), 7)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)


class LightlyDINO(nn.Module):
    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.student_backbone = randomised(copy.deepcopy(backbone), 7)
        self.student_head = DINOProjectionHead(512, 512, 64, 2048, freeze_last_layer=1)
        self.teacher_backbone = backbone
        self.teacher_head = DINOProjectionHead(512, 512, 64, 2048)


@pytest.mark.parametrize("kind", [LightlySimCLR, LightlyMoCo, LightlyDINO])
@pytest.mark.parametrize("of_timm", [False, True])
def test_lightly(kind: Any, of_timm: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backbone = randomised(timm.create_model("resnet18", num_classes=0)) if of_timm else resnet()
    with caplog.at_level("INFO"):
        model = loaded({"state_dict": kind(children(backbone)).state_dict()}, tmp_path)
    same_features(model, backbone)
    assert "children of the network by number" in caplog.text
    assert {"backbone_momentum" in caplog.text, "student_backbone" in caplog.text} == {
        kind is LightlyMoCo,
        kind is LightlyDINO,
    }


def test_lightly_resnet_of_small_images(tmp_path: Path) -> None:
    source = children(randomised(ResNetGenerator("resnet-18")))
    backbone = nn.Sequential(source[0], source[1], nn.ReLU(), *source[2:], nn.AdaptiveAvgPool2d(1))
    saved = nn.Sequential(*source, nn.AdaptiveAvgPool2d(1))
    model = loaded({"state_dict": LightlySimCLR(saved).state_dict()}, tmp_path, size=32, small_stem=True)

    def features(images: Tensor) -> Tensor:
        return backbone(images)

    same_features(model, features, 32)


def test_lightly_masked_vits(tmp_path: Path) -> None:
    source = vit()
    masked = MaskedVisionTransformerTIMM(source, weight_initialization="skip", pos_embed_initialization="skip")
    same_features(loaded(below("backbone.", masked), tmp_path, "vit_tiny_patch16_224", **VIT), source)
    small = torchvision.models.VisionTransformer(64, 16, 2, 3, 48, 192)
    small.heads = nn.Identity()
    other = MaskedVisionTransformerTorchvision(randomised(small))
    same_features(loaded(below("backbone.", other), tmp_path, "vit_tiny_patch16_224", **VIT), small)


# ------------------------------------------------------------------ others, whose names are written out from their code


def moco(q: nn.Module, k: nn.Module) -> dict[str, Any]:
    """MoCo v1 and v2: module.encoder_q and encoder_k, with two layers for fc, and the queue."""
    heads = {f"module.encoder_{x}.fc.{i}.weight": torch.ones(4, 4) for x in "qk" for i in (0, 2)}
    state = below("module.encoder_q.", q) | below("module.encoder_k.", k) | heads
    return {"epoch": 200, "arch": "resnet18", "state_dict": state | {"module.queue": torch.ones(4, 8)}}


def mocov3(base: nn.Module, momentum: nn.Module) -> dict[str, Any]:
    heads = {f"module.{x}.head.{i}.weight": torch.ones(4, 4) for x in ("base_encoder", "predictor") for i in (0, 3)}
    state = below("module.momentum_encoder.", momentum) | below("module.base_encoder.", base) | heads
    return {"epoch": 300, "state_dict": state, "optimizer": {"state": {0: {"mu": torch.ones(3)}}, "param_groups": []}}


def dino(teacher: nn.Module, student: nn.Module) -> dict[str, Any]:
    import argparse

    head = {"head.mlp.0.weight": torch.ones(4, 4), "head.last_layer.weight_g": torch.ones(4, 1)}
    return {
        "student": below("module.backbone.", student) | {f"module.{name}": x for name, x in head.items()},
        "teacher": below("backbone.", teacher) | head,
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", lr=0.1),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }


def ijepa(target: nn.Module, encoder: nn.Module) -> dict[str, Any]:
    return {
        "encoder": below("module.", encoder),
        "predictor": {"module.predictor_pos_embed": torch.ones(4)},
        "target_encoder": below("module.", target),
    }


def mae(model: nn.Module, _: nn.Module) -> dict[str, Any]:
    decoder = {"decoder_embed.weight": torch.ones(4, 4), "decoder_blocks.0.norm1.weight": torch.ones(4)}
    return {"model": below("", model) | decoder | {"mask_token": torch.ones(1, 1, 48)}}


def solo(backbone: nn.Module, momentum: nn.Module) -> dict[str, Any]:
    state = below("backbone.", backbone) | below("momentum_backbone.", momentum)
    heads = {"classifier.weight": torch.ones(10, 4), "projector.0.weight": torch.ones(4, 4)}
    return {"epoch": 1, "pytorch-lightning_version": "2.0", "state_dict": state | heads, "hyper_parameters": {"lr": 1}}


def timm_training(ema: nn.Module, model: nn.Module) -> dict[str, Any]:
    head = {"fc.weight": torch.ones(10, 4), "head.weight": torch.ones(10, 4)}
    return {"state_dict": below("module.", model) | head, "state_dict_ema": below("module.", ema) | head}


def compiled(model: nn.Module, _: nn.Module) -> dict[str, Any]:
    return below("module._orig_mod.", model)


@pytest.mark.parametrize("make", [resnet, vit])
@pytest.mark.parametrize("layout", [moco, mocov3, dino, ijepa, mae, solo, timm_training, compiled])
def test_files_of_other_repositories(layout: Any, make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of two copies of the network, that which the paper evaluates is loaded, and the other one is named."""
    wanted, other = make(0), make(7)
    name, options = ("resnet18", {}) if make is resnet else ("vit_tiny_patch16_224", VIT)
    with caplog.at_level("INFO"):
        model = loaded(layout(wanted, other), tmp_path, name, **options)
    same_features(model, wanted)
    assert ("not taken     none" in caplog.text) == (layout in (mae, compiled))


@pytest.mark.parametrize("chunks", [False, True])
def test_dinov2_with_registers(chunks: bool, tmp_path: Path) -> None:
    """Its position embeddings include the class token's, timm's do not; during training blocks lie in chunks."""
    options: dict[str, Any] = {"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-5}
    source = vit(**options)
    state = source.state_dict()
    position = torch.randn(1, 1, 48)
    state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
    state["cls_token"] = state["cls_token"] - position
    state["register_tokens"] = state.pop("reg_token")
    state["mask_token"] = torch.zeros(1, 48)
    if chunks:
        state = {
            name.replace("blocks.1.", "blocks.0.1.").replace("blocks.0.n", "blocks.0.0.n"): x
            for name, x in state.items()
        }
    saved = {
        "teacher": {f"backbone.{name}": x for name, x in state.items()} | {"dino_head.mlp.0.weight": torch.ones(3)}
    }
    same_features(loaded(saved, tmp_path, "vit_tiny_patch16_224", **VIT, **options), source)


def test_own_checkpoints_name_their_encoder(tmp_path: Path) -> None:
    wanted, other = resnet(0), resnet(7)
    state = below("method.backbone.", other) | below("method.ema.", wanted)
    same_features(loaded({"state_dict": state, "ssl_zoo": {"encoder": "method.ema"}}, tmp_path), wanted)


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
@pytest.mark.parametrize("prefix", ["", "method.backbone."])
def test_own_weights(kind: str, prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = image_backbone("resnet10t", 3, 32)
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        safetensors.torch.save_file(below(prefix, source), path)
    else:
        torch.save({"state_dict": below(prefix, source) | {"method.head.weight": torch.ones(2, 2)}}, path)
    with caplog.at_level("INFO"):
        model = image_backbone("resnet10t", 3, 32, pretrained=str(path))
    torch.testing.assert_close(dict(model.state_dict()), dict(source.state_dict()))
    assert "70 of 70 tensors match" in caplog.text


def test_names_of_timm_with_numbers(tmp_path: Path) -> None:
    """MobileNet has blocks.0.0, which are no chunks."""
    source = randomised(timm.create_model("mobilenetv3_small_050", num_classes=0))
    same_features(loaded(source.state_dict(), tmp_path, "mobilenetv3_small_050", 96), source, 96)


# ------------------------------------------------------------------------------------------------- adaptation


def saved(tmp_path: Path, name: str, in_chans: int, size: int, **options: Any) -> tuple[dict[str, Tensor], str]:
    """The weights of a model whose parameters are all random, as a tensor file and as tensors."""
    state = image_backbone(name, in_chans, size, **options).state_dict()
    state = {key: torch.randn_like(x) if x.is_floating_point() else x for key, x in state.items()}
    torch.save(state, tmp_path / "weights.pt")
    return state, str(tmp_path / "weights.pt")


def equal_but(model: nn.Module, state: dict[str, Tensor], *others: str) -> bool:
    """Whether the model has the weights of `state` but for the tensors `others`."""
    return all(torch.equal(x, state[key]) for key, x in model.state_dict().items() if key not in others)


@pytest.mark.parametrize("global_pool", ["avg", "token"])
def test_position_embeddings_are_resampled_to_the_size_of_the_images(
    tmp_path: Path, global_pool: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**VIT, "global_pool": global_pool, "fc_norm": False}
    state, path = saved(tmp_path, "vit_tiny_patch16_224", 3, 224, **options)
    with caplog.at_level("INFO"):
        model = image_backbone("vit_tiny_patch16_224", 3, 96, pretrained=path, **options)
    assert "pos_embed (1, 197, 48) -> (1, 37, 48), fitted to the grid of this image size" in caplog.text
    assert equal_but(model, state, "pos_embed")
    expected = resample_abs_pos_embed(state["pos_embed"], [6, 6], num_prefix_tokens=1)
    torch.testing.assert_close(model.state_dict()["pos_embed"], expected)
    with caplog.at_level("INFO"):
        small = image_backbone("vit_tiny_patch16_224", 3, 32, pretrained=path, **options)
    assert "patch_embed.proj.weight (48, 3, 16, 16) -> (48, 3, 4, 4), patches resized" in caplog.text
    assert equal_but(small, state, "pos_embed", "patch_embed.proj.weight")
    expected = resample_patch_embed(state["patch_embed.proj.weight"], [4, 4])
    torch.testing.assert_close(small.state_dict()["patch_embed.proj.weight"], expected)


@pytest.mark.parametrize(
    ("name", "size", "key", "options"),
    [
        ("resnet10t", 224, "conv1.0.weight", {}),
        ("resnet18", 32, "conv1.weight", {}),
        ("vit_tiny_patch16_224", 224, "patch_embed.proj.weight", VIT),
    ],
)
def test_colours_are_summed_up_for_grey_images(
    tmp_path: Path, name: str, size: int, key: str, options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    state, path = saved(tmp_path, name, 3, size, **options)
    with caplog.at_level("INFO"):
        model = image_backbone(name, 1, size, pretrained=path, **options)
    assert equal_but(model, state, key)
    torch.testing.assert_close(model.state_dict()[key], state[key].sum(1, keepdim=True))
    assert "channels summed up" in caplog.text
    assert image_backbone(name, 5, size, pretrained=path, **options).state_dict()[key].shape[1] == 5


# --------------------------------------------------------------------------------------- what does not match


def test_other_weights_are_refused(tmp_path: Path) -> None:
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"of \d+ tensors match.*90 %"):
            loaded(resnet().state_dict(), tmp_path, "resnet50", strict=strict)
        with pytest.raises(ValueError, match=r"match.*At least 90 % must"):
            loaded(vit().state_dict(), tmp_path, "vit_tiny_patch16_224", **VIT | {"embed_dim": 96}, strict=strict)
        with pytest.raises(ValueError, match=r"0 of 100 tensors match.*at least 90 % must"):
            loaded({"a": torch.ones(2)}, tmp_path, strict=strict)


def test_tensors_of_another_shape_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state, path = saved(tmp_path, "resnet18", 3, 32)
    with pytest.raises(ValueError, match=r"other shape: conv1.weight \(64, 3, 3, 3\), here \(64, 3, 7, 7\). Give"):
        image_backbone("resnet18", 3, 224, pretrained=path)
    with caplog.at_level("INFO"):
        model = image_backbone("resnet18", 3, 224, pretrained=path, strict=False)
    assert equal_but(model, state, "conv1.weight")
    assert "99 of 100 tensors match" in caplog.text
    assert "other shape   conv1.weight (64, 3, 3, 3), here (64, 3, 7, 7)" in caplog.text


def test_missing_tensors_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = resnet()
    state = {name: x for name, x in source.state_dict().items() if not name.startswith("layer4.1.conv2")}
    with pytest.raises(ValueError, match=r"99 of 100 .* missing: layer4.1.conv2.weight.*backbone.strict=false"):
        loaded(state, tmp_path)
    with caplog.at_level("INFO"):
        model = loaded(state, tmp_path, strict=False)
    assert equal_but(model, state, "layer4.1.conv2.weight")
    assert "missing       layer4.1.conv2.weight" in caplog.text


@pytest.mark.parametrize(
    ("source", "name", "options", "said"),
    [
        (lambda: resnet(name="resnet34"), "resnet18", {}, r"100 of 100 .*not in this model: layer1.2.conv1.weight"),
        (lambda: vit(init_values=1e-5), "vit_tiny_patch16_224", VIT, r"not in this model: blocks.0.ls1.gamma"),
        (lambda: vit(reg_tokens=4), "vit_tiny_patch16_224", VIT, r"not in this model: reg_token"),
    ],
)
def test_a_network_that_has_more_is_refused(source: Any, name: str, options: Any, said: str, tmp_path: Path) -> None:
    """All tensors of the model are in the file, but the features would be others."""
    with pytest.raises(ValueError, match=said):
        loaded(source().state_dict(), tmp_path, name, **options)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    """As in checkpoints of Lightning with hyperparameters of OmegaConf, which solo-learn writes."""
    contents = solo(resnet(), resnet()) | {"hyper_parameters": OmegaConf.create({"lr": 1})}
    with pytest.raises(ValueError, match=r"holds an object \(omegaconf.dictconfig.DictConfig\).*'state_dict'"):
        loaded(contents, tmp_path)


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_what_is_no_file_of_weights_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{kind}"
    for content in (b"not a checkpoint", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not one of weights"):
            read_weights(nn.Linear(2, 2), str(path))
    with pytest.raises(ValueError, match="no such file"):
        read_weights(nn.Linear(2, 2), str(tmp_path))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="not a dictionary of tensors, but list"):
        read_weights(nn.Linear(2, 2), str(tmp_path / "list.pt"))
