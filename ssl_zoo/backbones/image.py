"""Image backbones: any timm model, adapted to small images, with random, hub or local weights.

An image backbone maps (B, C, H, W) to (B, D), with D as `num_features`. Letters: B batch, C H W image, D width.
"""

import difflib
import inspect
import logging
import math
from collections.abc import Iterable
from functools import cache
from typing import Any

import timm
import torch
from timm.models import is_model_in_modules
from torch import Tensor, nn

from ssl_zoo.backbones.weights import FoundWeights, load_weights, read_weights

log = logging.getLogger(__name__)

LOADING_OPTIONS = frozenset(inspect.signature(timm.create_model).parameters) - {"pretrained"}
"""Options with which timm loads files and URLs; they are never taken from a file that describes a network."""


def image_backbone(
    name: str,
    in_chans: int,
    image_size: int,
    small_stem: bool | None = None,
    pretrained: bool | str = False,
    strict: bool = True,
    zero_init_last: bool | None = None,
    grad_checkpointing: bool = False,
    **timm_kwargs: Any,
) -> nn.Module:
    """A timm image model without its classifier: (B, in_chans, image_size, image_size) float -> (B, D).

    The attribute `small_stem` of the network tells which stem it has; None for an intermediate stride.

    Args:
        name: name of a timm model.
        in_chans: number of channels of the images.
        image_size: side of the images in pixels.
        small_stem: True for the smallest stem (ResNet: 3x3 stride-1 convolution, no max-pool; ConvNeXt: 2x2 instead of
            4x4 patches; ViT: patches that give about 8x8 tokens); False for timm's stem, designed for 224 pixels; None
            to choose by image size, see `stem_stride` (ViT: the small stem up to 64 pixels). Other families have no
            standard small stem: True is an error, and so is None up to 64 pixels.
        pretrained: True loads timm's weights from the hub; a path loads a safetensors or torch file, of timm or another
            framework, see `weights.read_weights`. A small stem is cropped from the loaded one, unless the file already
            has a small one.
        strict: whether such a file must match entirely, see `weights.load_weights`.
        zero_init_last: for ResNets, whether the last BatchNorm of each residual branch is initialised to zero; None
            keeps timm's default (True) and is required for models without this option.
        grad_checkpointing: recompute activations in the backward pass to save memory.
        timm_kwargs: options of the model, such as `drop_path_rate` or `patch_size`.

    Raises:
        ValueError: for an unknown name or option, an undefined small stem, images that are too small, missing weights,
            or checkpointing of a model that has none.
    """
    if not isinstance(pretrained, bool | str):
        raise ValueError(f"backbone.pretrained={pretrained}: give true, false or the path of a file of weights")
    # Options of the timm model.
    small = image_size <= 64 if small_stem is None else small_stem
    cfg = timm.get_pretrained_cfg(name.partition(".")[0])
    if cfg is not None and cfg.fixed_input_size:
        timm_kwargs = {"img_size": image_size} | timm_kwargs
    is_vit = is_model_in_modules(name, {"vision_transformer", "eva", "deit", "beit"})
    if small and is_vit:
        timm_kwargs = {"patch_size": _patch_size(image_size)} | timm_kwargs
    if zero_init_last is not None:
        timm_kwargs = {"zero_init_last": zero_init_last} | timm_kwargs
    options = {"in_chans": in_chans, **timm_kwargs}
    model = _create_for_any_size(name, pretrained is True, options)

    # Weights from a file are loaded into timm's stem, which is then reduced, unless the file has a small stem.
    stride = 4 if is_vit else stem_stride(name, image_size, small_stem)
    found = read_weights(model, pretrained) if isinstance(pretrained, str) else None
    small_in_file = found is not None and stride < 4 and _has_small_stem(model, found)
    if found is not None and not small_in_file:
        load_weights(model, found, strict)
    _shrink_stem(model, name, stride)
    if found is not None and small_in_file:
        load_weights(model, found, strict)

    # Facts of the network.
    small = small if is_vit else stride < 4
    is_intermediate = not is_vit and small and stride != stem_stride(name, image_size, True)
    if small:
        log.info("backbone.name=%s: small stem for images of %d pixels", name, image_size)
    exact_convolutions(model)
    model.small_stem = None if is_intermediate else small
    model.num_features = _feature_width(model, name, in_chans, image_size)
    if grad_checkpointing:
        checkpoint_activations(model, name)
    return model


def checkpoint_activations(model: Any, name: str) -> None:
    """Makes a timm model recompute the activations of its blocks in the backward pass; ValueError if it cannot."""
    try:
        model.set_grad_checkpointing(True)
    except (AssertionError, AttributeError) as error:
        raise ValueError(
            f"backbone.grad_checkpointing=true: timm's {name} has no checkpointing. Give false and a smaller "
            "data.batch_size, or choose a ResNet, a ViT or a ConvNeXt"
        ) from error


def create_timm_model(key: str, name: str, pretrained: bool, kwargs: dict[str, Any]) -> Any:
    """Creates a timm model without classifier.

    Raises:
        ValueError: naming the setting `key`, for an unknown name or option.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=4)
        raise ValueError(f"{key}={name}: timm has no such model. Nearest names: {', '.join(near) or 'none'}.")
    section = key.partition(".")[0]
    for option, value in kwargs.items():
        if option.endswith("_rate") and not (isinstance(value, int | float) and 0 <= value < 1):
            raise ValueError(f"{section}.{option}={value} is a share to drop: give a number from 0 to less than 1")
    try:
        model: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, **kwargs)
    except (
        TypeError,
        ArithmeticError,
        AssertionError,
        OSError,
        RuntimeError,
    ) as error:  # timm passes options on unchecked
        hint = " Weights come from the Hugging Face hub; without it, give a local file as backbone.pretrained."
        raise ValueError(f"{key}={name} with {kwargs}: {error}{hint * pretrained}") from error
    model.timm_arguments = {"name": name, "options": kwargs}  # for an export
    return model


def _create_for_any_size(name: str, pretrained: bool, kwargs: dict[str, Any]) -> Any:
    """Creates the model, accepting images of any size (for multi-crop) if its constructor has an option for it."""
    cfg = timm.get_pretrained_cfg(name.partition(".")[0])
    options: list[dict[str, Any]] = [{"dynamic_img_size": True}, {"strict_img_size": False}]
    for option in options if cfg is not None and cfg.fixed_input_size else []:
        try:
            return create_timm_model("backbone.name", name, pretrained, option | kwargs)
        except ValueError as error:
            if not isinstance(error.__cause__, TypeError) or next(iter(option)) not in str(error.__cause__):
                raise
    return create_timm_model("backbone.name", name, pretrained, kwargs)


def _patch_size(image_size: int) -> int:
    """The divisor of image_size, 2 or more, that gives the grid of tokens nearest to 8x8 and at least 4x4.

    Patches of a single pixel are useless for masked methods: on 8x8 digits their features do not improve on random
    weights.
    """
    divisors = [p for p in range(2, image_size // 4 + 1) if image_size % p == 0]
    return min(divisors, key=lambda p: abs(image_size // p - 8), default=1)


def stem_stride(name: str, image_size: int, small_stem: bool | None = None) -> int:
    """Stride of the stem of a convolutional network: 1 (not for ConvNeXt), 2, or 4, which is timm's.

    If `small_stem` is None, the stride is chosen so that the last grid, `image_size / (8 * stride)` wide, is nearest to
    4x4 as a ratio: for a ResNet 1 up to 45 pixels, 2 up to 90, then 4. The cost per image then stays within a factor of
    two of that of 32 pixels for 23 to 181 pixels; with a single threshold at 64 pixels, images of 64 pixels would cost
    ten times as much as images of 65.

    Args:
        name: name of a timm model.
        image_size: side of the images in pixels.
        small_stem: see `image_backbone`.

    Raises:
        ValueError: for a small stem of a family that has none.
    """
    if small_stem is False:
        return 4
    if not is_model_in_modules(name, {"resnet", "convnext"}):
        if small_stem is None and image_size > 64:
            return 4
        raise ValueError(
            f"backbone.name={name}: no small stem is known for this family. Give backbone.small_stem=false to keep "
            "the stem made for large images, or choose a ResNet, a ConvNeXt or a ViT."
        )
    strides = (2, 4) if is_model_in_modules(name, {"convnext"}) else (1, 2, 4)
    return strides[0] if small_stem else min(strides, key=lambda s: abs(math.log2(image_size / (8 * s) / 4)))


def _shrink_stem(model: Any, name: str, stride: int) -> None:
    """Reduces the stride of the stem from timm's 4 to `stride`, in place.

    ResNet: no max-pool for 2, and a 3x3 stride-1 convolution for 1. ConvNeXt: 2x2 patches for 2. Filters are cropped to
    their centre and scaled to the variance with which a filter of the new size would be initialised.
    """
    if stride == 4:
        return
    if is_model_in_modules(name, {"resnet"}):
        model.maxpool = nn.Identity()
        if stride == 2:  # the stride of the first convolution, which is kept
            return
    conv = _first_conv(model)
    old = conv.kernel_size[0]
    new, stride, padding = (2, 2, 0) if conv.kernel_size == conv.stride else (3, 1, 1)
    centre = slice((old - new) // 2, (old + new) // 2)
    conv.weight = nn.Parameter(conv.weight.detach()[:, :, centre, centre].contiguous() * (old / new))
    conv.kernel_size = (new, new)
    conv.stride = (stride, stride)
    conv.padding = (padding, padding)


def _first_conv(model: Any) -> nn.Conv2d:
    return model.get_submodule(model.pretrained_cfg["first_conv"])


def _has_small_stem(model: Any, found: FoundWeights) -> bool:
    """Whether the filters of the first convolution in the file are smaller than timm's, as those of a small stem."""
    stem = found.state.get(f"{model.pretrained_cfg['first_conv']}.weight")
    return (
        stem is not None
        and stem.ndim == 4
        and stem.shape[2] in (2, 3)
        and stem.shape[2] < _first_conv(model).kernel_size[0]
    )


def _feature_width(model: nn.Module, name: str, in_chans: int, image_size: int) -> int:
    """D, measured on one blank image, because timm's `num_features` is not always the width of the output."""
    try:
        with torch.no_grad():
            return model.eval()(torch.zeros(1, in_chans, image_size, image_size)).shape[1]
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"backbone.name={name} takes no images of {image_size} pixels: {error}") from error
    finally:
        model.train()


def exact_convolutions(model: nn.Module) -> None:
    """Makes each Conv2d in `model` compute in float32 where oneDNN's bfloat16 gradient is wrong, in place.

    On the CPU, if the stride exceeds the input or a kernel position sees only padding, oneDNN leaves entries of the
    weight's gradient uninitialised (torch 2.15). An example is a 3x3 stride-2 convolution of a 1x1 input, as in the
    last stages of a ResNet on small crops. The class of the module changes, as with `torch.nn.utils.parametrize`;
    parameters and names stay.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module, _ExactConvolution):
            module.__class__ = _exact(type(module))  # type: ignore[arg-type]  # mypy considers classes unhashable


@cache
def _exact(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    return type(kind.__name__, (_ExactConvolution, kind), {})


class _ExactConvolution(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        """Convolves (B, C, H, W) to (B, C', H', W'); in float32 if the input is too small, see `exact_convolutions`."""
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or not self._is_small(x):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(torch.get_autocast_dtype("cpu"))

    def _is_small(self, x: Tensor) -> bool:
        """Whether a kernel position may see only padding, or the stride exceeds the input."""
        padding = (0, 0) if isinstance(self.padding, str) else self.padding
        extents = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        return any(n + p < k + s - 1 for n, p, k, s in zip(x.shape[-2:], padding, extents, self.stride, strict=True))


def check_view_sizes(model: Any, name: str, sides: Iterable[int], in_chans: int) -> None:
    """Checks that local crops (views smaller than the largest) give more than one spatial position of features.

    A network without `forward_features` (timm's method before the pooling) is not checked.

    Raises:
        ValueError: if a local crop gives a single position.
    """
    local = sorted(set(sides))[:-1]
    if not local or not hasattr(model, "forward_features"):
        return
    was_training = model.training
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        positions = {side: _positions(model, torch.zeros(1, in_chans, side, side, device=device)) for side in local}
    model.train(was_training)
    for side, count in positions.items():
        if count <= 1:
            raise ValueError(
                f"views: backbone.name={name} leaves local crops of {side} pixels a single position of features. "
                "Choose views without local crops, a larger data.image_size, or a backbone that reduces less"
            )


def _positions(model: Any, image: Tensor) -> int:
    """Number of spatial positions of the features of one image before pooling."""
    features = model.forward_features(image)
    if features.ndim == 3:  # (1, N, D), including class and register tokens
        return features.shape[1] - getattr(model, "num_prefix_tokens", 0)
    channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    return math.prod(features.shape[1:3] if channels_last else features.shape[2:])
