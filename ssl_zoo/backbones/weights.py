"""Weights from files: finds the backbone in a checkpoint, renames its tensors to timm's names, and loads them.

Files of timm, torchvision, lightly, solo-learn, MoCo, DINO, DINOv2, MAE and of this package are read, and every other
dictionary of tensors whose names are those of one of `LAYOUTS`, at any depth and below any prefix. Only tensors and
plain values are unpickled. Nothing is loaded silently in part: `load_weights` logs what matched and what did not.
"""

import argparse
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pickle import UnpicklingError
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from timm.models import adapt_input_conv
from torch import Tensor, nn

log = logging.getLogger(__name__)

MIN_SHARE = 0.9
"""Share of the model's tensors that a file must have in any case."""
LAYOUTS: dict[str, dict[str, str]] = {
    "names of timm": {},  # also those of torchvision's ResNets, MoCo, DINO, DINOv2 and MAE
    "names of timm, with blocks in chunks": {  # as DINOv2 saves them during training
        r"^blocks\.\d+\.(\d+)\.": r"blocks.\1.",
    },
    "names of torchvision's ViT": {
        r"^class_token$": "cls_token",
        r"^conv_proj\.": "patch_embed.proj.",
        r"^encoder\.pos_embedding$": "pos_embed",
        r"^encoder\.ln\.": "norm.",
        r"^encoder\.layers\.encoder_layer_(\d+)\.": r"blocks.\1.",
        r"\.ln_([12])\.": r".norm\1.",
        r"\.self_attention\.in_proj_": ".attn.qkv.",
        r"\.self_attention\.out_proj\.": ".attn.proj.",
        r"\.mlp\.(0|linear_1)\.": ".mlp.fc1.",
        r"\.mlp\.(3|linear_2)\.": ".mlp.fc2.",
    },
    "names of torchvision's ConvNeXt": {
        r"^features\.0\.": "stem.",
        **{rf"^features\.{2 * s + 1}\.(\d+)\.": rf"stages.{s}.blocks.\1." for s in range(4)},
        **{rf"^features\.{2 * s}\.": f"stages.{s}.downsample." for s in range(1, 4)},
        r"\.layer_scale$": ".gamma",
        r"\.block\.0\.": ".conv_dw.",
        r"\.block\.2\.": ".norm.",
        r"\.block\.3\.": ".mlp.fc1.",
        r"\.block\.5\.": ".mlp.fc2.",
        r"^classifier\.0\.": "head.norm.",
        r"^classifier\.2\.": "head.fc.",
    },
    "names of lightly's ResNetGenerator": {
        r"^0\.": "conv1.",
        r"^1\.": "bn1.",
        **{rf"^{s + 1}\.": f"layer{s}." for s in range(1, 5)},
        r"\.shortcut\.": ".downsample.",
    },
}
"""Regular expressions and what replaces them, in this order, from the names in a file to timm's.

One more is made from the model: its children by number, as in `nn.Sequential(*list(resnet.children())[:-1])`.
"""
_PREFERRED = re.compile(r"teacher|target_encoder|_ema\.")
_SECONDARY = re.compile(r"student|momentum|encoder_k|target")
_HEAD = re.compile(
    r"(^|\.)(fc|linear|heads?|head_\w+|\w+_head|classifier\w*|aux\w*|pre_logits|attn_pool|proj\w*|\w*projector|\w*predictor"
    r"|prototypes?|decoder\w*|mask_token|queue\w*|center|last_layer)(\.|$)"
)
"""What a file may have beyond the backbone: classifiers, heads of methods, decoders."""


class FoundWeights(NamedTuple):
    """The backbone in a file.

    Attributes:
        path: the file.
        prefix: what the names of its tensors begin with in the file.
        layout: which names they have there, a key of `LAYOUTS`.
        state: its tensors by timm's names, whatever their shape, with those of heads below the same prefix.
        others: prefixes below which the file has another copy of the network.
        left_over: names of the other tensors in the file, with their number.
    """

    path: str
    prefix: str
    layout: str
    state: dict[str, Tensor]
    others: list[str]
    left_over: dict[str, int]


class _Match(NamedTuple):
    """What loading found, see `_match`."""

    fitting: dict[str, Tensor]  # including the integer buffers
    num_own: int  # tensors of the model that count
    missing: list[str]
    reshaped: list[str]
    foreign: list[str]
    heads: list[str]
    adapted: list[str]

    @property
    def num_fitting(self) -> int:
        return self.num_own - len(self.missing) - len(self.reshaped)


def read_weights(model: nn.Module, path: str) -> FoundWeights:
    """Finds the tensors of `model` in a safetensors or torch file, below any prefix and in any of `LAYOUTS`.

    Where the file has several copies of the network, the one that the paper evaluates is taken: the teacher of DINO and
    its successors, the target encoder of I-JEPA, timm's moving average, else the network that is trained (encoder_q and
    base_encoder of MoCo, `backbone` and not its momentum copy). In a checkpoint of this package it is its encoder.

    Raises:
        ValueError: if the file cannot be read or has no tensor of the model.
    """
    tensors, encoder = _read_tensors(path)
    own = {name for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    layouts = {**LAYOUTS, "children of the network by number": _children_by_number(model)}
    found: dict[str, tuple[int, str]] = {}  # prefix -> number of matches, layout
    for layout, rules in layouts.items():
        for prefix, count in _prefixes(tensors, own, rules).items():
            found[prefix] = max(found.get(prefix, (0, "")), (count, layout), key=lambda item: item[0])
    if not found:
        raise ValueError(
            f"backbone.pretrained={path}: 0 of {len(own)} tensors match, at least 90 % must. It holds "
            f"{_listed(tensors) or 'no tensors'}: give backbone.name as these weights had it"
        )

    # The copies of the network, the one to take first.
    most = max(count for count, _ in found.values())
    copies = [prefix for prefix, (count, _) in found.items() if count >= MIN_SHARE * most]
    prefix, *others = sorted(copies, key=lambda name: (_rank(name, encoder), -found[name][0]))
    layout = found[prefix][1]
    inside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    depth = max(1, prefix.count("."))
    outside = Counter(".".join(name.split(".")[:depth]) for name in tensors if not name.startswith(prefix))
    state = {_renamed(name, layouts[layout]): tensor for name, tensor in inside.items()}
    return FoundWeights(path, prefix, layout, state, others, dict(outside))


def load_weights(model: Any, found: FoundWeights, strict: bool) -> None:
    """Loads the weights into `model`, in place, adapted as timm adapts its own, and logs a table of what matched.

    Position embeddings, patches and relative position biases are resampled to the model's size, and the channels of the
    first layer are summed up or repeated for another number of channels.

    Args:
        model: a timm model without classifier.
        found: what `read_weights` returned.
        strict: whether every tensor of the model must be in the file with its shape, and every tensor in the file
            either in the model or part of a head. If not, tensors that are missing or of another shape keep their
            random values, and others are left out.

    Raises:
        ValueError: for a partial match if `strict`; in any case if less than 90 % of the tensors match.
    """
    match = _match(model, found)
    report = f"backbone.pretrained={found.path}: {match.num_fitting} of {match.num_own} tensors match"
    wrong = {"missing": match.missing, "of another shape": match.reshaped, "not in this model": match.foreign}
    problems = "; ".join(f"{what}: {_listed(names)}" for what, names in wrong.items() if names)
    if match.num_fitting < MIN_SHARE * match.num_own:
        raise ValueError(
            f"{report}; {problems}. At least 90 % must match: are these the weights of another model? Give "
            "backbone.name, data.in_chans, backbone.small_stem and backbone.patch_size as these weights had them"
        )
    if problems and strict:
        raise ValueError(
            f"{report}; {problems}. Give backbone.name, data.in_chans, backbone.small_stem and backbone.patch_size as "
            "these weights had them, or backbone.strict=false to leave random what does not match"
        )
    model.load_state_dict(match.fitting, strict=False)
    log.info("%s\n%s", report, _table(found, match))


def _read_tensors(path: str) -> tuple[dict[str, Tensor], str | None]:
    """All tensors of a file by dotted names, and the encoder's name in a checkpoint of this package."""
    try:
        if path.endswith(".safetensors"):
            return safetensors.torch.load_file(path), None
        with torch.serialization.safe_globals([argparse.Namespace]):  # the arguments in checkpoints of DINO and MAE
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, LookupError, AttributeError, EOFError, RuntimeError, UnpicklingError, SafetensorError) as error:
        if blocked := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"backbone.pretrained={path} holds an object ({blocked[1]}) beside its tensors, and unpickling objects "
                "may run code. If you trust the file, load it where it was written, and save its tensors alone: "
                "torch.save(checkpoint['state_dict'], 'weights.pt')"
            ) from error
        reason = str(error).splitlines()[:1] or [type(error).__name__]
        raise ValueError(f"backbone.pretrained={path}: no such file, or not one of weights ({reason[0]}).") from error
    if not isinstance(contents, Mapping):
        raise ValueError(f"backbone.pretrained={path}: not a dictionary of tensors, but {type(contents).__name__}")
    state = contents.get("ssl_zoo")
    encoder = state.get("encoder") if isinstance(state, Mapping) else None
    return dict(_tensors(contents)), encoder if isinstance(encoder, str) else None


def _tensors(contents: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested dictionaries; those of optimizers have numbers for names and are left out."""
    for key, value in contents.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            yield prefix + key, value
        elif isinstance(key, str) and isinstance(value, Mapping):
            yield from _tensors(value, f"{prefix}{key}.")


def _children_by_number(model: nn.Module) -> dict[str, str]:
    return {rf"^{number}\.": f"{name}." for number, (name, _) in enumerate(model.named_children())}


def _renamed(name: str, rules: Mapping[str, str]) -> str:
    for pattern, replacement in rules.items():
        name = re.sub(pattern, replacement, name)
    return name


def _prefixes(names: Iterable[str], own: set[str], rules: Mapping[str, str]) -> Counter[str]:
    """How many names are one of `own` behind each prefix, once they are renamed."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            if _renamed(".".join(parts[start:]), rules) in own:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    return counts


def _rank(prefix: str, encoder: str | None) -> int:
    """The order in which copies of a network are preferred, see `read_weights`."""
    if encoder is not None and prefix.endswith(f".{encoder}."):
        return -2
    return -1 if _PREFERRED.search(prefix) else int(bool(_SECONDARY.search(prefix)))


def _match(model: Any, found: FoundWeights) -> _Match:
    """Compares the adapted tensors of the file with the model's, by name and shape."""
    own = model.state_dict()
    counted = [name for name, tensor in own.items() if tensor.is_floating_point()]  # old files lack batch counters
    classifier = model.pretrained_cfg.get("classifier") or ()
    classifiers = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    children = {name for name, _ in model.named_children()}

    def is_head(name: str) -> bool:
        if name in own:
            return False
        top = name.split(".")[0]
        named = _HEAD.match(name) if top in children else _HEAD.search(name)
        return bool(named) or name.startswith(classifiers)

    state, adapted = _adapted(
        model, {name: x for name, x in found.state.items() if name == "mask_token" or not is_head(name)}
    )
    other = {name for name in counted if name in state and state[name].shape != own[name].shape}
    return _Match(
        fitting={name: state[name] for name in own if name in state and state[name].shape == own[name].shape},
        num_own=len(counted),
        missing=[name for name in counted if name not in state],
        reshaped=[f"{name} {tuple(state[name].shape)}, here {tuple(own[name].shape)}" for name in sorted(other)],
        foreign=[n for n, x in state.items() if n not in own and x.is_floating_point() and not is_head(n)],
        heads=[name for name in found.state if is_head(name)],
        adapted=adapted,
    )


def _adapted(model: Any, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors as timm would load them, and which of them were changed for that, in words."""
    own = model.state_dict()
    new = dict(state)
    if convert := getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None):
        with suppress(AssertionError, LookupError, RuntimeError, ValueError):  # what does not fit is listed later
            new = convert(dict(state), model)
    first = model.pretrained_cfg.get("first_conv")
    for name, tensor in new.items():
        target = own.get(name)
        if target is None or target.shape == tensor.shape:
            continue
        if target.squeeze().shape == tensor.squeeze().shape:
            new[name] = tensor.reshape(target.shape)
        elif name == f"{first}.weight" and tensor.ndim == 4 and target.shape[1] != tensor.shape[1]:
            new[name] = adapt_input_conv(target.shape[1], tensor, base_chans=tensor.shape[1])
    changed = [
        f"{name} {tuple(state[name].shape)} -> {tuple(tensor.shape)}, {_how(state[name], tensor)}"
        for name, tensor in new.items()
        if name in state and state[name].squeeze().shape != tensor.squeeze().shape
    ]
    return new, changed


def _how(old: Tensor, new: Tensor) -> str:
    """What changed the shape: channels, as dimension 1 of filters, or positions."""
    if new.ndim == 4 and old.ndim == 4 and new.shape[1] != old.shape[1]:
        return "channels summed up" if new.shape[1] == 1 else "channels repeated"
    return "patches resized" if new.ndim == 4 else "fitted to the grid of this image size"


def _table(found: FoundWeights, match: _Match) -> str:
    """What matched and what did not, one line each."""
    heads = Counter(name.split(".")[0] for name in match.heads)
    left_over = [f"{name} ({count})" for name, count in (heads + Counter(found.left_over)).items()]
    rows = {
        "taken from": f"{found.prefix.rstrip('.') or 'the top level'}, with the {found.layout}",
        "not taken": ", ".join(name.rstrip(".") or "the top level" for name in found.others),
        "adapted": "; ".join(match.adapted),
        "missing": _listed(match.missing),
        "other shape": _listed(match.reshaped),
        "not in model": _listed(match.foreign),
        "left over": ", ".join(left_over),
    }
    return "\n".join(f"  {name:<13} {text or 'none'}" for name, text in rows.items())


def _listed(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
