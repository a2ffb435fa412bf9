"""Periodic evaluation during training and the context that evaluators receive."""

import hashlib
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ssl_zoo.data.base import EvalData
from ssl_zoo.evaluators.base import EvalContext, Evaluator, Features, Phase, run_evaluators
from ssl_zoo.evaluators.proportion import Proportion, hash_examples
from ssl_zoo.learner import Learner
from ssl_zoo.method import Method
from ssl_zoo.report import kept_features, outcomes
from ssl_zoo.training.collapse import CollapseAlarm
from ssl_zoo.training.saving import PeriodicCheckpoint
from ssl_zoo.training.sharding import whole_method

log = logging.getLogger(__name__)


def eval_context(trainer: Trainer, method: Method, data: EvalData, phase: Phase, loaded: bool = False) -> EvalContext:
    """Returns the context for evaluators, on the trainer's device and precision; `loaded` as in `EvalContext`."""
    method.to(trainer.strategy.root_device)
    return EvalContext(method, data, phase, trainer.precision_plugin.forward_context, loaded=loaded)


def hash_content(content: str) -> str:
    """The sha256 of what identifies the content of the data, in results.json; `task=evaluate` compares it."""
    return hashlib.sha256(content.encode()).hexdigest()


def identify_examples(content: str, splits: Any, labelled: Iterable[Tensor]) -> str:
    """A hash of the test examples that a run is evaluated on, and their order.

    Args:
        content: that of the data module.
        splits: `data.splits` of the configuration.
        labelled: their labels and indices, as in `EvalContext.labelled`.
    """
    return hash_examples(content, splits.get("test") if splits else None, *labelled)


def labels_of_test(context: EvalContext) -> outcomes.ClassLabels | None:
    """The labels of the test examples, None if they were not evaluated or have none."""
    y, names = context.labelled.get("test", (None,))[0], list(map(str, context.data.facts.get("class_names", ())))
    if y is None or not len(y) or not 0 <= int(y.min()) <= int(y.max()) < len(names):
        return None
    return outcomes.ClassLabels(y.numpy(), names)


def keep_outcomes(
    folder: Path,
    metrics: Mapping[str, float],
    examples: str,
    labels: outcomes.ClassLabels | None = None,
    merge: bool = False,
) -> None:
    """Writes which test examples were right to correct.npz; to be called before the results are written.

    Args:
        folder: the run folder.
        metrics: by name.
        examples: see `identify_examples`.
        labels: of these examples, see `labels_of_test`.
        merge: keep what is there of other metrics; one that is replaced loses its outcomes if it has none now.
    """
    found = {}
    if merge:
        try:
            found = outcomes.read_outcomes(folder)
        except ValueError as error:
            log.warning("%s; it is written again, without the outcomes of before", error)
    kept = {key: value for key, value in found.items() if key not in metrics}
    outcomes.write_outcomes(folder, kept | outcomes.outcomes_of(metrics, examples, labels))


def keep_features(
    folder: Path, context: EvalContext, content: str, splits: Any, places: np.ndarray | None = None
) -> None:
    """Writes features of a sample to features.npz, if any were extracted; to be called before the results are written.

    Args:
        folder: the run folder.
        context: of the end of the run.
        content: that of the data module.
        splits: `data.splits` of the configuration.
        places: in the map of the test examples, (n, 2); None if there is no map.
    """
    split = next((name for name in ("test", "train") if name in vars(context)), None)
    if split is None:
        return
    features: Features = getattr(context, split)
    rows = kept_features.evenly_spaced(len(features.x))
    kept = kept_features.KeptFeatures(
        features.x[rows].numpy(),
        identify_examples(content, splits, context.labelled[split]),
        features.y[rows].numpy(),
        list(map(str, context.data.facts.get("class_names", ()))),
        places if split == "test" else None,
    )
    kept_features.write_features(folder, kept)


class PeriodicEvaluation(Callback):
    """Evaluates the encoder every `every` optimizer steps on rank 0 and logs the metrics under eval/.

    Attributes:
        seconds: total evaluation time since the process started.
    """

    def __init__(self, data: EvalData, evaluators: Mapping[str, Evaluator], every: int):
        self.data = data
        self.evaluators = evaluators
        self.every = every
        self.evaluated_at = 0
        self.seconds = 0.0

    def on_train_batch_end(self, trainer: Trainer, learner: LightningModule, *_: Any) -> None:
        """Evaluates after every `every`-th optimizer step."""
        assert isinstance(learner, Learner)
        step = learner.global_step
        if step == self.evaluated_at or step % self.every:
            return
        self.evaluated_at, started = step, time.perf_counter()
        method = whole_method(trainer, learner)
        if trainer.is_global_zero:
            metrics = run_evaluators(self.evaluators, eval_context(trainer, method, self.data, "periodic"))
            for logger in trainer.loggers:
                logger.log_metrics({f"eval/{name}": value for name, value in metrics.items()}, step)
            accuracies = [f"{name} {value.percent}" for name, value in metrics.items() if isinstance(value, Proportion)]
            log.info("step %d: %s", step, ", ".join(accuracies))
        trainer.strategy.barrier()
        self.seconds += time.perf_counter() - started


PAUSES = (CollapseAlarm, PeriodicCheckpoint, PeriodicEvaluation)
"""Callbacks whose `.seconds` do not count as training time."""
