"""Fine-tuning: a classifier on an encoder, trained with labels. `train_classifier` is the loop.

Layer decay and drop path: Bao et al., "BEiT", ICLR 2022, https://arxiv.org/abs/2106.08254. Recipe: He et al.,
"Masked Autoencoders", CVPR 2022, https://arxiv.org/abs/2111.06377, Tables 9 and 10, made shorter in conf/config.yaml.
"""

import io
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import timm.data.mixup
import timm.loss
import torch
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from ssl_zoo import files
from ssl_zoo.evaluators.linear import Probe, StandardizedProbe
from ssl_zoo.schedules import warmup_cosine

log = logging.getLogger(__name__)

SAVE_SECONDS = 60.0
"""Time between two checkpoints; a shorter training has none."""


@dataclass(frozen=True)
class Recipe:
    """The settings of a fine-tuning, the keys of `finetune`; each is explained in conf/config.yaml.

    Raises:
        ValueError: for a value out of its range.
    """

    mode: str
    epochs: int
    min_steps: int
    batch_size: int
    lr: float
    linear_lr: float
    weight_decay: float
    layer_decay: float
    warmup: float
    label_smoothing: float
    mixup: float
    cutmix: float
    drop_path: float

    def __post_init__(self) -> None:
        if self.mode not in ("full", "linear"):
            raise ValueError(f"finetune.mode={self.mode}: give full or linear")
        least = {"epochs": 1, "min_steps": 1, "batch_size": 2, "weight_decay": 0, "mixup": 0, "cutmix": 0}
        for key, minimum in least.items():
            if getattr(self, key) < minimum:
                raise ValueError(f"finetune.{key}={getattr(self, key)}: give {minimum} or more")
        for key in ("lr", "linear_lr", "layer_decay"):
            if getattr(self, key) <= 0:
                raise ValueError(f"finetune.{key}={getattr(self, key)}: give a number above 0")
        for key in ("warmup", "label_smoothing", "drop_path"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(f"finetune.{key}={getattr(self, key)}: give a number from 0 to less than 1")
        if self.layer_decay > 1:
            raise ValueError(f"finetune.layer_decay={self.layer_decay}: give a number up to 1, which is no decay")
        if self.mixes and self.batch_size % 2:
            raise ValueError(f"finetune.batch_size={self.batch_size}: mixup and cutmix need an even number")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with each other."""
        return self.mixup > 0 or self.cutmix > 0

    def sizes(self, labelled: int) -> tuple[int, int]:
        """Examples per step and number of steps for that many labelled examples."""
        batch_size = min(self.batch_size, labelled - labelled % 2)
        return batch_size, max(self.epochs * (labelled // batch_size), self.min_steps)


class LinearClassifier(nn.Module):
    """A linear layer on a network, which is trained too, or frozen and followed by a BatchNorm without weights.

    Args:
        network: the encoder, with D as `num_features`.
        num_classes: C.
        frozen: whether only the linear layer is trained.
    """

    def __init__(self, network: nn.Module, num_classes: int, frozen: bool):
        super().__init__()
        width = int(network.num_features)  # type: ignore[arg-type]
        self.network = network
        self.frozen = frozen
        self.norm = nn.BatchNorm1d(width, affine=False) if frozen else nn.Identity()
        self.head = nn.Linear(width, num_classes)
        nn.init.zeros_(self.head.bias)
        nn.init.trunc_normal_(self.head.weight, std=0.01)

    def train(self, mode: bool = True) -> "LinearClassifier":
        """Sets the training mode; a frozen network stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Maps inputs (B, ...) to logits (B, C)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.network(x)
        logits: Tensor = self.head(self.norm(features))
        return logits

    def probe(self) -> StandardizedProbe:
        """The head as it is kept with the encoder: a function of the encoder's features."""
        weight, bias = self.head.weight.detach().cpu(), self.head.bias.detach().cpu()
        mean, scale = torch.zeros(weight.shape[1]), torch.ones(weight.shape[1])
        if isinstance(self.norm, nn.BatchNorm1d):
            assert self.norm.running_mean is not None
            assert self.norm.running_var is not None
            mean, scale = self.norm.running_mean.cpu(), (self.norm.running_var.cpu() + self.norm.eps).rsqrt()
        return StandardizedProbe(mean, scale, Probe(weight, bias, torch.arange(len(bias))))

    def parameter_groups(self, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        """Groups with their `lr_scale`, by timm: each layer of the network learns slower than the one above it."""
        if self.frozen:
            return [{"params": list(self.head.parameters()), "lr_scale": 1.0, "weight_decay": 0.0}]
        network: Any = self.network
        not_decayed = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
        groups = param_groups_layer_decay(
            self.network, weight_decay, no_weight_decay_list=not_decayed, layer_decay=layer_decay
        )
        return [*groups, {"params": list(self.head.parameters()), "lr_scale": 1.0, "weight_decay": weight_decay}]


def train_classifier(
    model: LinearClassifier,
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    recipe: Recipe,
    steps: int,
    layer_decay: float,
    precision: Callable[[], AbstractContextManager[Any]],
    half: bool,
    seed: int,
    checkpoint: "Checkpoint",
    name: str,
) -> None:
    """Trains `model` in place, with AdamW, warm-up and a half cosine; equal calls give an equal result.

    Args:
        model: on its device.
        batches: gives the batches (inputs, labels) from a step on.
        recipe: the settings.
        steps: optimizer steps.
        layer_decay: factor of the learning rate from a layer to the one below it.
        precision: makes the autocast context of the forward pass.
        half: whether that context computes in float16, so that the loss has to be scaled.
        seed: of dropout and mixing; each step has its own, so that an interrupted training goes on as it would have.
        checkpoint: where the training goes on from, and what it saves.
        name: for messages.
    """
    device, lr = model.head.weight.device, recipe.linear_lr if model.frozen else recipe.lr
    optimizer = torch.optim.AdamW(model.parameter_groups(recipe.weight_decay, layer_decay), lr=lr)
    scaler = torch.amp.GradScaler(device.type, enabled=half)
    losses: Any = timm.loss  # timm's constructors have no types
    criterion = losses.LabelSmoothingCrossEntropy(recipe.label_smoothing)
    mix: Any = None
    if recipe.mixes:
        classes = model.head.out_features
        mixing: Any = timm.data.mixup.Mixup
        mix = mixing(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=classes)
        criterion = losses.SoftTargetCrossEntropy()
    start = checkpoint.load(model, optimizer)
    shown, began = 10 * start // steps, time.perf_counter()

    model.train()
    for step, (x, y) in enumerate(islice(batches(start), steps - start), start):
        np.random.seed([seed, step])  # timm's Mixup draws from NumPy
        torch.manual_seed((seed << 32) + step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"] * warmup_cosine((step + 1) / (steps + 1), recipe.warmup, 0.0)
        inputs, target = (x, y) if mix is None else mix(x, y)
        with precision():
            logits = model(inputs)
        loss = criterion(logits.float(), target)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if 10 * (step + 1) // steps > shown:
            shown = 10 * (step + 1) // steps
            speed = (step + 1 - start) * len(y) / (time.perf_counter() - began)
            log.info(f"{name} {10 * shown:3d} %  step {step + 1}  loss {loss.item():.4f}  {speed:,.0f} examples/s")
        checkpoint.save(model, optimizer, step + 1, is_last=step + 1 == steps)
    model.eval()


class Checkpoint:
    """The file from which a long training goes on; a short one never writes it.

    Args:
        path: of the file.
        origin: what the training depends on, in plain values; a file of another one is refused.
    """

    def __init__(self, path: Path, origin: dict[str, Any]):
        self.path = path
        self.origin = origin
        self.saved_at = time.perf_counter()

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Restores both and returns the number of steps that have been made, 0 without a file.

        Raises:
            ValueError: for a damaged file, or one of another training.
        """
        if not self.path.exists():
            return 0
        remedy = f"Give another hydra.run.dir, or delete {self.path.name} there to start again"
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise ValueError(f"{self.path}: damaged ({error}). {remedy}") from error
        if state["origin"] != self.origin:
            raise ValueError(f"{self.path}: of a training with other settings. {remedy}")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        log.info(f"{self.path.name}: goes on after step {state['step']}")
        return int(state["step"])

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, is_last: bool) -> None:
        """Writes the file if the last one is old, or the training has one and ends."""
        now = time.perf_counter()
        if now - self.saved_at < SAVE_SECONDS and not (is_last and self.path.exists()):
            return
        self.saved_at, content = now, io.BytesIO()
        state = {"origin": self.origin, "step": step}
        torch.save({**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, content)
        files.write_atomically(self.path, content.getvalue())

    def delete(self) -> None:
        """Removes the file, once the results are written."""
        self.path.unlink(missing_ok=True)


def origin_of(recipe: Recipe, **others: Any) -> dict[str, Any]:
    """What a fine-tuning depends on, for its checkpoints."""
    return {**asdict(recipe), **others}
