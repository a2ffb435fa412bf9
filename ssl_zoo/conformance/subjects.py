"""What the kit examines: a method on a tiny backbone, and batches of views for it, the same in every process.

Kinds of backbone: conv (BatchNorm, any image size), vit (tokens of an image) and text (tokens of a text).
Letters: B examples, C H W image, L tokens.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ssl_zoo.config import CONF, nearest
from ssl_zoo.method import Batch, Method

B, SIZE, LENGTH, LARGE = 16, 16, 16, 256
VOCABULARY, PAD, CLS, SEP, MASK, SPECIAL = 60, 0, 2, 3, 4, 5

FACTS: dict[str, Any] = {
    "num_train": 64,
    "num_indices": 64,
    "num_test": 16,
    "num_classes": 10,
    "class_names": [f"class {i}" for i in range(10)],
    "has_labels": True,
    "image_size": SIZE,
    "half_size": SIZE // 2,
    "in_chans": 3,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "vocab_size": VOCABULARY,
    "max_length": LENGTH,
    "pad_id": PAD,
    "unk_id": 1,
    "cls_id": CLS,
    "sep_id": SEP,
    "mask_id": MASK,
    "num_special": SPECIAL,
    "word_starts": "".join("01"[i % 3 == 0] for i in range(VOCABULARY)),
}
"""What the data modules would say of the tiny images and texts made here."""

TINY = {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2}
BACKBONES: dict[str, dict[str, Any]] = {
    "conv": {"_target_": "ssl_zoo.conformance.subjects.conv_net"},
    "vit": {
        "_target_": "ssl_zoo.backbones.image.image_backbone",
        "name": "vit_tiny_patch16_224",
        "in_chans": 3,
        "image_size": SIZE,
        "patch_size": 4,
        "global_pool": "avg",
        "fc_norm": False,
        **TINY,
    },
    "text": {
        "_target_": "ssl_zoo.backbones.text.TextTransformer",
        "trunk": "eva02_tiny_patch14_224",
        "vocab_size": VOCABULARY,
        "max_length": LENGTH,
        "pad_id": PAD,
        "sep_id": SEP,
        **TINY,
    },
}


class Subject(NamedTuple):
    """One method on one backbone.

    make: builds it with weights from torch's generator; a picklable function, for other processes build it too.
    views: what each view of a batch is, "image" or "text", as many as `min_views`.
    """

    name: str
    make: Callable[[], Method]
    views: tuple[str, ...]

    def build(self, seed: int) -> Method:
        """With the weights of `seed`."""
        torch.manual_seed(seed)
        return self.make()

    def batch(self, number: int, more: tuple[int, ...] = (), lengths: Tensor | None = None) -> Batch:
        """Global batch `number` of B examples.

        Args:
            number: seeds the examples.
            more: sides of further square views, for multi-crop.
            lengths: (B,) tokens of each text; None: all of them, less up to two.
        """
        generator = torch.Generator().manual_seed(number)
        views = [_images(generator) if kind == "image" else _texts(generator, lengths) for kind in self.views]
        views += [_images(generator, side) for side in more]
        indices = (number * B + torch.arange(B)) % FACTS["num_train"]
        return Batch(views, torch.arange(B) % FACTS["num_classes"], indices)


RAGGED = 3 + torch.arange(B) % (LENGTH - 2)
"""Lengths of texts, from 3 tokens to LENGTH."""


def _images(generator: torch.Generator, side: int = SIZE) -> Tensor:
    """(B, 3, side, side) normal pixels, a shade of its own for each example."""
    shade = torch.arange(B).view(B, 1, 1, 1) / B
    return torch.randn(B, 3, side, side, generator=generator) + shade


def _texts(generator: torch.Generator, lengths: Tensor | None) -> Tensor:
    """(B, L) ids: [CLS] words [SEP], and up to two positions of padding; or words of the given lengths, as documents
    are."""
    ids = torch.randint(SPECIAL, VOCABULARY, (B, LENGTH), generator=generator)
    if lengths is not None:
        return ids.masked_fill(torch.arange(LENGTH) >= lengths[:, None], PAD)
    ids[:, 0] = CLS
    ends = LENGTH - 1 - torch.arange(B) % 3
    ids[torch.arange(B), ends] = SEP
    return ids.masked_fill(torch.arange(LENGTH) > ends[:, None], PAD)


def conv_net(in_chans: int = 3, widths: Sequence[int] = (16, 32)) -> nn.Module:
    """(B, in_chans, H, W) -> (B, last width), for any H and W; each width's layer halves the sides."""
    layers: list[nn.Module] = []
    for width, out in pairwise([in_chans, *widths]):
        layers += [nn.Conv2d(width, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.num_features = widths[-1]  # type: ignore[assignment]
    return net


def make_from(method: dict[str, Any], backbone: dict[str, Any]) -> Method:
    """A method from plain configurations, as `run.py` would; raises what its constructor raises."""
    try:
        return instantiate(method, backbone=instantiate(backbone, _convert_="all"), _convert_="all")
    except InstantiationException as error:
        raise error.__cause__ or error from None  # Hydra's own message hides the constructor's


def names() -> list[str]:
    """The methods of conf/method."""
    return sorted(path.stem for path in (CONF / "method").glob("*.yaml"))


def composed(name: str, *overrides: str) -> DictConfig:
    """The configuration of `python run.py method=<name> <overrides>`. Raises ValueError for an unknown name."""
    if name not in names():
        raise ValueError(f"{name}: no such method{nearest(name, names())} There are: {', '.join(names())}")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [f"method={name}", *overrides])


def kind_of(backbone: Mapping[str, Any]) -> str:
    """conv, vit or text: what a backbone's configuration builds."""
    if "backbones.text" in backbone["_target_"]:
        return "text"
    return "vit" if "vit_" in backbone.get("name", "") else "conv"


@cache
def of(name: str) -> tuple[Subject, ...]:
    """The method `name` of conf/method on the backbone its configuration asks for, and on others that it takes.

    One that asks for text is examined on text alone. Others may refuse a kind of backbone by ValueError.
    """
    cfg = composed(name)
    cfg.facts = FACTS
    method: Any = shrunk(OmegaConf.to_container(cfg.method, resolve=True), 64, BACKBONES["text"])
    backbone: Any = OmegaConf.to_container(cfg.backbone, resolve=True)
    own = kind_of(backbone)
    kept = {key: value for key, value in backbone.items() if "drop" not in key}  # dropout is no part of the maths
    backbones = BACKBONES | ({own: kept | BACKBONES[own]} if own != "conv" else {})
    makers = {kind: partial(make_from, method, backbones[kind]) for kind in ([own] if own == "text" else BACKBONES)}
    return taken(name, makers, own, paired=own != "text" and _has_text(method))


def shrunk(config: Any, size: int, text: dict[str, Any]) -> Any:
    """The same configuration with whole numbers above 256 replaced by `size`, and `text` put into its text networks.

    Smaller numbers stay, for they may depend on each other, as a width and its heads do; and so do facts of the data.
    """
    if isinstance(config, dict) and "TextTransformer" in str(config.get("_target_")):
        return config | text
    if isinstance(config, dict):
        return {key: value if key in FACTS else shrunk(value, size, text) for key, value in config.items()}
    if isinstance(config, list):
        return [shrunk(value, size, text) for value in config]
    return size if isinstance(config, int) and config > LARGE else config


def _has_text(config: Any) -> bool:
    """Whether a method's configuration holds a text network of its own, as CLIP's does."""
    inside = config.values() if isinstance(config, dict) else ()
    return any(_has_text(value) or (isinstance(value, str) and "backbones.text" in value) for value in inside)


def taken(name: str, makers: Mapping[str, Callable[[], Method]], own: str | None, paired: bool) -> tuple[Subject, ...]:
    """A subject for each kind of backbone in `makers` with which the method is built and takes a batch.

    It may refuse a kind by ValueError, except `own`; with `own` None it must take one. paired: its last view is text.
    """
    subjects, refusals = [], []
    for kind, make in makers.items():
        try:
            method = make()
            view = "text" if kind == "text" else "image"
            views = (view,) * (method.min_views - paired) + ("text",) * paired
            subject = Subject(f"{name}/{kind}", make, views)
            method(subject.batch(0), 0.0)
        except ValueError as error:
            if kind == own:
                raise
            refusals.append(f"{kind}: {error}")
        else:
            subjects.append(subject)
    if not subjects:
        raise ValueError(f"{name} takes no backbone. " + "; ".join(refusals))
    return tuple(subjects)


def of_class(path: str, arguments: Mapping[str, Any], kinds: tuple[str, ...] = tuple(BACKBONES)) -> tuple[Subject, ...]:
    """The class `package.module.Class`, built with `arguments` besides its backbone, on each kind that it takes.

    Raises ValueError for a path without such a class, or arguments its constructor does not have or misses.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{path}: {error}. Give package.module.Class of something that can be imported") from error
    if not (inspect.isclass(found) and issubclass(found, Method)):
        raise ValueError(f"{path} is no subclass of ssl_zoo.method.Method")
    try:
        inspect.signature(found).bind(backbone=None, **arguments)
    except TypeError as error:
        raise ValueError(f"{path}: {error}. Its arguments are {inspect.signature(found)}") from error
    config = {"_target_": path, **arguments}
    return taken(name, {kind: partial(make_from, config, BACKBONES[kind]) for kind in kinds}, None, paired=False)
