"""For timm: what `timm.create_model` loads, with features equal to the bit, small stems included."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
from torch import nn

from ssl_zoo.encoder import Encoder
from ssl_zoo.exporters.base import check_features

STEM_MODULE = '''"""Registers `ssl_zoo_encoder` in timm: {name} with the small stem that it was trained with."""

import timm
import torch
from safetensors.torch import load_file
from timm.models import register_model


@register_model
def ssl_zoo_encoder(pretrained=False, **kwargs):
    for key in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):  # those that timm passes to every model
        kwargs.pop(key, None)
    model = timm.create_model({name!r}, **({arguments!r} | kwargs))
    conv = model.get_submodule({conv!r})
    conv.weight = torch.nn.Parameter(torch.empty({shape!r}))
    conv.kernel_size, conv.stride, conv.padding = {kernel!r}, {stride!r}, {padding!r}
    if {without_pool!r}:
        model.maxpool = torch.nn.Identity()
    if pretrained:
        model.load_state_dict(load_file(__file__.replace("ssl_zoo_encoder.py", "model.safetensors")))
    return model
'''


def export_timm(encoder: Encoder, folder: Path) -> str:
    """Writes what `timm.create_model` loads; returns how to."""
    network: Any = encoder.network
    if not hasattr(network, "timm_arguments"):
        raise ValueError("format=timm: this encoder is no timm model. Give format=torch, onnx or hf")
    name, arguments = network.timm_arguments["name"], network.timm_arguments["options"]
    state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    about = encoder.inputs
    side = about["image_size"]
    pretrained_cfg = {
        "tag": "ssl_zoo",
        "custom_load": False,
        "input_size": [about["in_chans"], side, side],
        "fixed_input_size": network.pretrained_cfg.get("fixed_input_size", False),
        "interpolation": about.get("interpolation", "bilinear"),
        "crop_pct": about.get("crop_ratio", 1.0),
        "crop_mode": "center",
        "mean": about["mean"],
        "std": about["std"],
        "num_classes": 0,
        "pool_size": None,
        "first_conv": None,  # the weights have the right number of channels already
        "classifier": None,
    }
    config = {
        "architecture": name,
        "num_classes": 0,
        "num_features": encoder.num_features,
        "model_args": arguments,
        "pretrained_cfg": pretrained_cfg,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    usage = 'model = timm.create_model("local-dir:<this folder>", pretrained=True).eval()'
    if has_own_stem(network):
        (folder / "ssl_zoo_encoder.py").write_text(_stem_module(network, name, arguments))
        (folder / "config.json").unlink()  # timm's own loader would build the stem for large images
        usage = 'import ssl_zoo_encoder; model = timm.create_model("ssl_zoo_encoder", pretrained=True).eval()'
    check_features(encoder, _load_timm(folder, has_own_stem(network)), "timm")
    return f"import timm; {usage}"


def has_own_stem(network: Any) -> bool:
    """Whether the stem is smaller than that of timm's model of this name: timm has no option for it."""
    conv = network.get_submodule(network.pretrained_cfg["first_conv"])
    without_pool = isinstance(getattr(network, "maxpool", None), nn.Identity)
    is_patch = conv.kernel_size == conv.stride and hasattr(network, "patch_embed")  # a ViT has patch_size
    return without_pool or (network.small_stem is not False and not is_patch)


def _stem_module(network: Any, name: str, arguments: dict[str, Any]) -> str:
    key = network.pretrained_cfg["first_conv"]
    conv = network.get_submodule(key)
    return STEM_MODULE.format(
        name=name,
        arguments={"num_classes": 0, **arguments},
        conv=key,
        shape=tuple(conv.weight.shape),
        kernel=conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        without_pool=isinstance(getattr(network, "maxpool", None), nn.Identity),
    )


def _load_timm(folder: Path, own_stem: bool) -> nn.Module:
    if not own_stem:
        model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
        return model.eval()
    spec = importlib.util.spec_from_file_location("ssl_zoo_encoder", folder / "ssl_zoo_encoder.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ssl_zoo_encoder"] = module  # timm looks for a model's module there
    spec.loader.exec_module(module)
    model = timm.create_model("ssl_zoo_encoder", pretrained=True)
    return model.eval()
