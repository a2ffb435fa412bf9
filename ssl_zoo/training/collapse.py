"""The collapse alarm: looks at the encoder's features eleven times in a run, and warns or stops when they collapse."""

import logging
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ssl_zoo.data.base import DataModule
from ssl_zoo.evaluators.base import frozen, same_rng
from ssl_zoo.evaluators.collapse import Collapse, CollapseWatch
from ssl_zoo.learner import Learner
from ssl_zoo.method import Method
from ssl_zoo.training.sharding import whole_method

log = logging.getLogger(__name__)

LOOKS = 10
"""In a run, besides the one before training."""
WATCHED_EXAMPLES = 256


class Collapsed(RuntimeError):
    """The encoder's features have collapsed, and the run was to stop then."""


class CollapseAlarm(Callback):
    """Follows the features of the first view of one training batch, which are always the same inputs.

    Each look is one forward pass of a batch, which is not counted as training time. Its state is kept in checkpoints.

    Args:
        data: the data module.
        raw: a batch as its loader returns it.
        stops: whether to end the run, by `Collapsed`, instead of warning.

    Attributes:
        found: the collapse at the last look, None while the features are healthy.
        seconds: of all looks since the process started.
    """

    def __init__(self, data: DataModule, raw: Any, stops: bool):
        self.data = data
        self.raw = tree_map_only(Tensor, lambda rows: rows[:WATCHED_EXAMPLES], raw)
        self.stops = stops
        self.watch = CollapseWatch()
        self.found: Collapse | None = None
        self.said: set[str] = set()
        self.next_look = 0.0
        self.seconds = 0.0
        self._view: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """What the watch has seen."""
        return {"watch": dict(self.watch.state), "next_look": self.next_look}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from there."""
        self.watch.state = dict(state_dict["watch"])
        self.next_look = state_dict["next_look"]

    def on_train_start(self, trainer: Trainer, learner: LightningModule) -> None:
        """Looks at the features before training."""
        if not self.watch.state["looks"]:
            self._look(trainer, learner, is_last=False)
            self.next_look = 1 / LOOKS

    def on_train_batch_end(self, trainer: Trainer, learner: LightningModule, *_: Any) -> None:
        """Looks whenever another tenth of the budget has passed."""
        assert isinstance(learner, Learner)
        if learner.now >= self.next_look:
            self.next_look = (int(learner.now * LOOKS) + 1) / LOOKS
            self._look(trainer, learner, is_last=False)

    def on_train_end(self, trainer: Trainer, learner: LightningModule) -> None:
        """Looks a last time."""
        self._look(trainer, learner, is_last=True)

    def _look(self, trainer: Trainer, learner: LightningModule, is_last: bool) -> None:
        """Looks on the first process, for all.

        Raises:
            Collapsed: on every process, when the run is to stop.
        """
        assert isinstance(learner, Learner)
        started = time.perf_counter()
        method = whole_method(trainer, learner)
        if trainer.is_global_zero:
            self.found = self.watch.look(learner.global_step, self._features(trainer, method, learner.device), is_last)
        message: str | None = trainer.strategy.broadcast(None if self.found is None else str(self.found))
        self.seconds += time.perf_counter() - started
        if message is None:
            return
        if self.stops:
            raise Collapsed(f"step {learner.global_step}: {message}. trainer.on_collapse=warn goes on instead")
        if self.found is not None and self.found.what not in self.said:
            self.said.add(self.found.what)
            log.warning("warning: %s. trainer.on_collapse=stop ends such a run", message)

    def _features(self, trainer: Trainer, method: Method, device: torch.device) -> Tensor:
        encoder = method.encoder.to(device)
        with same_rng(), torch.no_grad():
            if self._view is None:
                raw = self.data.transfer_batch_to_device(self.raw, device, 0)
                self._view = self.data.on_after_batch_transfer(raw, 0).views[0]
                self.raw = None
            with frozen(encoder), trainer.precision_plugin.forward_context():
                features: Tensor = encoder(self._view)
        return features
