"""What self-supervision is for: accuracy when only a few examples have labels.

The frozen encoder (linear probe and nearest neighbours) beside raw pixels, the same network with random weights, and
the same network trained from scratch with just those labels. With 1 or 10 labels a class none can be spared to choose
a penalty, so all probes share one that was fixed beforehand; with all labels it is chosen as `linear` does.
"""

import copy
import statistics
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from ssl_zoo.evaluators.base import EvalContext, Features, print_note
from ssl_zoo.evaluators.knn import KNN
from ssl_zoo.evaluators.linear import Linear, fit, standardize_features
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.evaluators.scratch import Scratch

Score = Callable[[Tensor | None], Proportion]
"""Accuracy on the test part when the labels of these rows of the training part are known, or all of them."""


def sample_labels(y: Tensor, labels: int, number: int) -> Tensor:
    """Rows of `labels` examples of each class in y (N,): the same for each `number` in every run and every table row.

    Raises:
        ValueError: when a class has fewer examples.
    """
    rng = np.random.default_rng((labels, number))
    rows = []
    for label in y.unique().tolist():
        members = (y == label).nonzero().squeeze(1).numpy()
        if len(members) < labels:
            raise ValueError(
                f"evaluators.few_labels.labels: {labels} a class, but class {label} has {len(members)} in training"
            )
        rows.append(rng.choice(members, labels, replace=False))
    return torch.from_numpy(np.concatenate(rows)).sort().values


class FewLabels:
    """Reports, for n labels a class and for n = all, `few/<n>/linear` and `few/<n>/knn` of the encoder.

    At the end of training of an image model also `few/<n>/pixels_linear` and `few/<n>/pixels_knn`, the same on the
    pixels, and `few/<n>/scratch`, the network trained from scratch. Each is the mean over the draws of the labels, and
    `..._std` their standard deviation; with all labels there is one draw. Before training the same metrics are
    those of random weights, or of the weights that the run started from; the former are kept for `scratch`.
    """

    needs_labels = True

    def __init__(self, labels: list[int], draws: int, l2: float, linear: Linear, knn: KNN, scratch: Scratch):
        """labels: numbers a class; l2: the probes' penalty with that many; linear, knn: with all; draws: at least 2.

        Raises:
            ValueError: for numbers of labels or draws that are too small.
        """
        if not labels or min(labels) < 1 or draws < 2:
            raise ValueError(
                f"evaluators.few_labels.labels={labels}, draws={draws}: give numbers from 1, and 2 draws or more"
            )
        self.labels, self.draws, self.l2 = sorted(labels), draws, l2
        self.linear, self.knn, self.scratch = linear, knn, scratch
        self.untrained: nn.Module | None = None

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Nothing during training, which it would hold up."""
        if context.phase == "periodic":
            return {}
        if context.phase == "init" and not context.loaded:
            self.untrained = copy.deepcopy(context.method.encoder)
        x, queries = standardize_features(context.train.x, context.test.x)
        train, test = context.train._replace(x=x), context.test._replace(x=queries)
        metrics = self._row("linear", train.y, self._probe(context, train, test))
        metrics |= self._row("knn", train.y, self._neighbours(context, context.train, context.test))
        if context.phase == "final" and context.data.facts["modality"] == "image":
            metrics |= self._rivals(context)
        return metrics

    def _rivals(self, context: EvalContext) -> dict[str, float]:
        """What needs no pretraining. Pixels are probed on the one scale they have: standardising each is worse."""
        train, test = context.inputs("train"), context.inputs("test")
        metrics = self._row("pixels_linear", train.y, self._probe(context, train, test))
        metrics |= self._row("pixels_knn", train.y, self._neighbours(context, train, test))
        if self.untrained is None:
            print_note(
                "few_labels: nothing is trained from scratch, for the untrained network was not seen in this run"
            )
            return metrics
        return metrics | self._row(
            "scratch", train.y, self._training(context, self.untrained, train, test), self.scratch.draws
        )

    def _row(self, name: str, y: Tensor, score: Score, draws: int | None = None) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for n in self.labels:
            scores = [score(sample_labels(y, n, number)) for number in range(draws or self.draws)]
            metrics[f"few/{n}/{name}"] = Proportion(statistics.fmean(scores), scores[0].n)
            metrics[f"few/{n}/{name}_std"] = statistics.stdev(scores)
        return metrics | {f"few/all/{name}": score(None)}

    def _probe(self, context: EvalContext, train: Features, test: Features) -> Score:
        x, y, queries, truth = (part.to(context.device) for part in (*train[:2], *test[:2]))

        def score(rows: Tensor | None) -> Proportion:
            probe = self.linear.choose(x, y)[1] if rows is None else fit(x[rows], y[rows], self.l2)
            return probe.accuracy(queries, truth)

        return score

    def _neighbours(self, context: EvalContext, train: Features, test: Features) -> Score:
        bank, labels, queries, truth = (part.to(context.device) for part in (*train[:2], *test[:2]))

        def score(rows: Tensor | None) -> Proportion:
            known = slice(None) if rows is None else rows
            return self.knn.accuracies(bank[known], labels[known], queries, truth)[0]

        return score

    def _training(self, context: EvalContext, untrained: nn.Module, train: Features, test: Features) -> Score:
        def score(rows: Tensor | None) -> Proportion:
            known = train if rows is None else Features(*(part[rows] for part in train))
            return self.scratch.accuracy(context, untrained, known, test)

        return score


class FewLabelsRow(NamedTuple):
    """A row of the table. name: what was judged; cells: (mean, deviation or None) a column, None where unknown."""

    name: str
    cells: list[tuple[float, float | None] | None]


def summarize(metrics: Mapping[str, float], method: str) -> tuple[list[str], list[FewLabelsRow]]:
    """The columns' names and the rows of the table, from the metrics of a run (those before training under `init/`).

    method: what to call the trained network. Rows of which nothing is known are left out.
    """
    found = {key.split("/")[1] for key in metrics if key.startswith("few/")}
    numbers = [*sorted(found - {"all"}, key=int), *sorted(found & {"all"})]
    sources = {
        "raw pixels, kNN": "few/{}/pixels_knn",
        "raw pixels, linear probe": "few/{}/pixels_linear",
        "before training, kNN": "init/few/{}/knn",
        "before training, linear probe": "init/few/{}/linear",
        "trained from scratch": "few/{}/scratch",
        f"{method}, kNN": "few/{}/knn",
        f"{method}, linear probe": "few/{}/linear",
    }
    rows = []
    for name, key in sources.items():
        keys = [key.format(n) for n in numbers]
        cells = [(metrics[key], metrics.get(f"{key}_std")) if key in metrics else None for key in keys]
        if any(cells):
            rows.append(FewLabelsRow(name, cells))
    columns = [f"{n} label{'s' * (n != '1')} a class" if n != "all" else "all labels" for n in numbers]
    return columns, rows


def written(cell: tuple[float, float | None] | None) -> str:
    """A cell in per cent: "77.3 ± 2.1"."""
    if cell is None:
        return ""
    mean, deviation = cell
    return f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def _interval(cell: tuple[float, float | None] | None) -> str:
    if cell is None or not isinstance(cell[0], Proportion):
        return ""
    low, high = cell[0].interval
    return f"\n[dim]{100 * low:.1f} to {100 * high:.1f}[/]"


def few_labels_table(metrics: Mapping[str, float], method: str) -> Table:
    """The table to print, the best cell of each column in bold; below each accuracy its binomial interval."""
    columns, rows = summarize(metrics, method)
    counts = {value.n for value in metrics.values() if isinstance(value, Proportion)}
    below = f";\nbelow it the 95 % interval by n = {max(counts):,} test examples" if counts else ""
    shown = Table(title=f"test accuracy in %, mean ± standard deviation over draws of the labels{below}")
    shown.add_column("")
    for column in columns:
        shown.add_column(column, justify="right")
    best = [max(cell[0] for cell in cells if cell) for cells in zip(*(row.cells for row in rows), strict=True)]
    for row in rows:
        cells = [
            (f"[bold]{written(c)}[/]" if c and c[0] == top else written(c)) + _interval(c)
            for c, top in zip(row.cells, best, strict=True)
        ]
        shown.add_row(escape(row.name), *cells)
    return shown
