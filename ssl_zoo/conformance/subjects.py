"""Subjects of the checks: a method on a tiny backbone, with batches of views that are equal in every process.

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

B = 16
SIZE = 16
"""Side of the images."""
LENGTH = 16
"""Tokens per text, including padding."""
LARGE_NUMBER = 256
"""`shrink_config` replaces integers from here on."""
VOCAB_SIZE = 60
PAD_ID = 0
CLS_ID = 2
SEP_ID = 3
MASK_ID = 4
NUM_SPECIAL = 5

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
    "vocab_size": VOCAB_SIZE,
    "max_length": LENGTH,
    "pad_id": PAD_ID,
    "unk_id": 1,
    "cls_id": CLS_ID,
    "sep_id": SEP_ID,
    "mask_id": MASK_ID,
    "num_special": NUM_SPECIAL,
    "word_starts": "".join("01"[i % 3 == 0] for i in range(VOCAB_SIZE)),
}
"""Facts of the tiny images and texts generated here, as data modules would give them."""

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
        "vocab_size": VOCAB_SIZE,
        "max_length": LENGTH,
        "pad_id": PAD_ID,
        "sep_id": SEP_ID,
        **TINY,
    },
}


class Subject(NamedTuple):
    """One method on one backbone.

    Attributes:
        name: method and kind of backbone.
        make: builds the method with weights from torch's generator; picklable, because other processes build it too.
        views: "image" or "text" for each view of a batch, as many as `min_views`.
    """

    name: str
    make: Callable[[], Method]
    views: tuple[str, ...]

    def build(self, seed: int) -> Method:
        """Builds the method with the weights of `seed`."""
        torch.manual_seed(seed)
        return self.make()

    def batch(self, number: int, more: tuple[int, ...] = (), lengths: Tensor | None = None) -> Batch:
        """Global batch `number` of B examples.

        Args:
            number: seed of the examples.
            more: sides of additional square views, for multi-crop.
            lengths: (B,) int64, number of tokens of each text; None for full length minus up to two.
        """
        generator = torch.Generator().manual_seed(number)
        views = [
            _random_images(generator) if kind == "image" else _random_texts(generator, lengths) for kind in self.views
        ]
        views += [_random_images(generator, side) for side in more]
        indices = (number * B + torch.arange(B)) % FACTS["num_train"]
        return Batch(views, torch.arange(B) % FACTS["num_classes"], indices)


RAGGED = 3 + torch.arange(B) % (LENGTH - 2)
"""Lengths of texts from 3 tokens to LENGTH."""


def _random_images(generator: torch.Generator, side: int = SIZE) -> Tensor:
    """(B, 3, side, side) normal pixels with a different brightness for each example."""
    brightness = torch.arange(B).view(B, 1, 1, 1) / B
    return torch.randn(B, 3, side, side, generator=generator) + brightness


def _random_texts(generator: torch.Generator, lengths: Tensor | None) -> Tensor:
    """(B, L) token ids: [CLS] words [SEP] with up to two positions of padding, or words of the given lengths only."""
    ids = torch.randint(NUM_SPECIAL, VOCAB_SIZE, (B, LENGTH), generator=generator)
    if lengths is not None:
        return ids.masked_fill(torch.arange(LENGTH) >= lengths[:, None], PAD_ID)
    ids[:, 0] = CLS_ID
    ends = LENGTH - 1 - torch.arange(B) % 3
    ids[torch.arange(B), ends] = SEP_ID
    return ids.masked_fill(torch.arange(LENGTH) > ends[:, None], PAD_ID)


def conv_net(in_chans: int = 3, widths: Sequence[int] = (16, 32)) -> nn.Module:
    """A small convolutional network for any image size; each of its layers halves the sides."""
    layers: list[nn.Module] = []
    for width, out in pairwise([in_chans, *widths]):
        layers += [nn.Conv2d(width, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.num_features = widths[-1]  # type: ignore[assignment]
    return net


def make_from(method: dict[str, Any], backbone: dict[str, Any]) -> Method:
    """Builds a method from plain configurations, as a run does; raises what its constructor raises."""
    try:
        return instantiate(method, backbone=instantiate(backbone, _convert_="all"), _convert_="all")
    except InstantiationException as error:
        raise error.__cause__ or error from None  # instead of Hydra's own exception


def method_names() -> list[str]:
    """Names of the methods in conf/method."""
    return sorted(path.stem for path in (CONF / "method").glob("*.yaml"))


def compose_config(name: str, *overrides: str) -> DictConfig:
    """The configuration of `python run.py method=<name> <overrides>`. Raises ValueError for an unknown name."""
    if name not in method_names():
        raise ValueError(
            f"{name}: no such method{nearest(name, method_names())} There are: {', '.join(method_names())}"
        )
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [f"method={name}", *overrides])


def backbone_kind(backbone: Mapping[str, Any]) -> str:
    """The kind of backbone that a configuration builds: conv, vit or text."""
    if "backbones.text" in backbone["_target_"]:
        return "text"
    return "vit" if "vit_" in backbone.get("name", "") else "conv"


@cache
def subjects_of(name: str) -> tuple[Subject, ...]:
    """The method `name` of conf/method on the backbone of its configuration and on each other kind that it accepts.

    A method for text is checked on text only. Other methods may reject a kind of backbone by ValueError.
    """
    cfg = compose_config(name)
    cfg.facts = FACTS
    method: Any = shrink_config(OmegaConf.to_container(cfg.method, resolve=True), 64, BACKBONES["text"])
    backbone: Any = OmegaConf.to_container(cfg.backbone, resolve=True)
    own = backbone_kind(backbone)
    kept = {key: value for key, value in backbone.items() if "drop" not in key}  # without dropout, which is random
    backbones = BACKBONES | ({own: kept | BACKBONES[own]} if own != "conv" else {})
    makers = {kind: partial(make_from, method, backbones[kind]) for kind in ([own] if own == "text" else BACKBONES)}
    return accepted_subjects(name, makers, own, paired=own != "text" and _has_text(method))


def shrink_config(config: Any, size: int, text: dict[str, Any]) -> Any:
    """Replaces integers from LARGE_NUMBER on in a configuration by `size`, and overrides its text networks by `text`.

    Smaller numbers are kept, because they may depend on each other, as width and number of heads do; so are facts of
    the data.
    """
    if isinstance(config, dict) and "TextTransformer" in str(config.get("_target_")):
        return config | text
    if isinstance(config, dict):
        return {key: value if key in FACTS else shrink_config(value, size, text) for key, value in config.items()}
    if isinstance(config, list):
        return [shrink_config(value, size, text) for value in config]
    return size if isinstance(config, int) and config >= LARGE_NUMBER else config


def _has_text(config: Any) -> bool:
    """Whether a method's configuration contains a text network, as CLIP's does."""
    values = config.values() if isinstance(config, dict) else ()
    return any(_has_text(value) or (isinstance(value, str) and "backbones.text" in value) for value in values)


def accepted_subjects(
    name: str, makers: Mapping[str, Callable[[], Method]], own: str | None, paired: bool
) -> tuple[Subject, ...]:
    """A subject for each kind of backbone with which the method can be built and accepts a batch.

    Args:
        name: of the method.
        makers: builds the method, for each kind of backbone.
        own: the kind that the method must accept; None if any one kind suffices. Other kinds may raise ValueError.
        paired: whether the last view is text.
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


def subjects_of_class(
    path: str, arguments: Mapping[str, Any], kinds: tuple[str, ...] = tuple(BACKBONES)
) -> tuple[Subject, ...]:
    """The class `path` (package.module.Class) on each kind of backbone that it accepts.

    Args:
        path: of the class.
        arguments: of its constructor, except the backbone.
        kinds: kinds of backbone to try.

    Raises:
        ValueError: for a path without such a class, and for unknown or missing arguments.
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
    return accepted_subjects(
        name, {kind: partial(make_from, config, BACKBONES[kind]) for kind in kinds}, None, paired=False
    )
