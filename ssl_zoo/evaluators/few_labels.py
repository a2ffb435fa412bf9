"""Accuracy when only a few examples have labels.

Compares the encoder (linear probe, nearest neighbours, and fine-tuning where it is asked for) with raw pixels, with the
same network at random weights, and with the same network trained from scratch on just those labels. With 1 or 10 labels
per class there are none to spare for choosing a penalty, so these probes share a fixed one; with all labels it is
chosen as in `Linear`.
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

from ssl_zoo.evaluators.base import EvalContext, Features, warn_once
from ssl_zoo.evaluators.knn import KNN
from ssl_zoo.evaluators.linear import Linear, fit_probe, standardize_features
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.evaluators.scratch import Scratch

Score = Callable[[Tensor | None], Proportion]
"""Maps rows of the training split, the ones whose labels are known (None: all), to accuracy on the test split."""


def sample_labels(y: Tensor, labels: int, number: int) -> Tensor:
    """Samples `labels` examples per class, the same ones for each `number` in every run.

    Args:
        y: (N,) int64, labels.
        labels: examples per class.
        number: of the sample, from 0.

    Returns:
        (labels * C,) int64, rows of y in ascending order.

    Raises:
        ValueError: when a class has fewer examples.
    """
    rng = np.random.default_rng((labels, number))
    rows = []
    for label in y.unique().tolist():
        members = (y == label).nonzero().squeeze(1).numpy()
        if len(members) < labels:
            raise ValueError(
                f"evaluators.few_labels.labels: {labels} per class, but class {label} has {len(members)} in training"
            )
        rows.append(rng.choice(members, labels, replace=False))
    return torch.from_numpy(np.concatenate(rows)).sort().values


def sample_share(y: Tensor, share: float, number: int) -> Tensor:
    """Samples a share of each class, at least one example, the same ones for each `number` in every run.

    Args:
        y: (N,) int64, labels.
        share: of each class.
        number: of the sample, from 0.

    Returns:
        (n,) int64, rows of y in ascending order.
    """
    rng = np.random.default_rng((round(1e6 * share), number))
    rows = []
    for label in y.unique().tolist():
        members = (y == label).nonzero().squeeze(1).numpy()
        rows.append(rng.choice(members, max(1, round(share * len(members))), replace=False))
    return torch.from_numpy(np.concatenate(rows)).sort().values


class FewLabels:
    """Reports `few/<n>/linear` and `few/<n>/knn` of the encoder, for n labels per class and for n = all.

    At the end of training of an image model it also reports `few/<n>/pixels_linear` and `few/<n>/pixels_knn`, the same
    on the pixels, and `few/<n>/scratch`, the network trained from scratch. Each is the mean over samples of the labels,
    and `..._std` their standard deviation; with all labels there is one sample. Before training the same metrics are
    those of random weights, or of the weights that the run started from; only random ones are kept for `scratch`.
    `few/<n>/finetuned` is the whole encoder, trained on like `scratch`. A share of the labels is called "1%".
    """

    needs_labels = True

    def __init__(
        self,
        labels: list[int],
        draws: int,
        l2: float,
        linear: Linear,
        knn: KNN,
        scratch: Scratch,
        shares: list[float] | None = None,
        finetune: Scratch | None = None,
    ):
        """Keeps the settings.

        Args:
            labels: numbers of labels per class.
            draws: samples of the labels, at least 2.
            l2: penalty of the probes with few labels.
            linear: the probe with all labels.
            knn: the nearest neighbours.
            scratch: supervised training.
            shares: of the labels of each class, in (0, 1).
            finetune: supervised training that begins with the encoder; None: none.

        Raises:
            ValueError: for numbers of labels or draws that are too small, or a share outside (0, 1).
        """
        if shares and not all(0 < share < 1 for share in shares):
            raise ValueError(
                f"evaluators.few_labels.shares={shares}: give shares between 0 and 1, [0.01, 0.1] for example"
            )
        if not labels or min(labels) < 1 or draws < 2:
            raise ValueError(
                f"evaluators.few_labels.labels={labels}, draws={draws}: give numbers from 1, and 2 draws or more"
            )
        self.labels = sorted(labels)
        self.shares = sorted(shares or [])
        self.finetune = finetune
        self.draws = draws
        self.l2 = l2
        self.linear = linear
        self.knn = knn
        self.scratch = scratch
        self.untrained: nn.Module | None = None

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """All metrics; none during training, since they take too long."""
        if context.phase == "periodic":
            return {}
        if context.phase == "init" and not context.loaded:
            self.untrained = copy.deepcopy(context.method.encoder)
        x, queries = standardize_features(context.train.x, context.test.x)
        train, test = context.train._replace(x=x), context.test._replace(x=queries)
        metrics = self._score_all("linear", train.y, self._probe(context, train, test))
        metrics |= self._score_all("knn", train.y, self._neighbours(context, context.train, context.test))
        if context.phase == "final" and context.data.facts["modality"] == "image":
            metrics |= self._baselines(context)
        return metrics

    def _baselines(self, context: EvalContext) -> dict[str, float]:
        """What needs no pretraining. Pixels share one scale already, and standardising each of them was worse."""
        train, test = context.inputs("train"), context.inputs("test")
        metrics: dict[str, float] = {}
        if self.finetune is not None:
            training = self._training(context, self.finetune, context.method.encoder, train, test)
            metrics |= self._score_all("finetuned", train.y, training, self.finetune.draws)
        metrics |= self._score_all("pixels_linear", train.y, self._probe(context, train, test))
        metrics |= self._score_all("pixels_knn", train.y, self._neighbours(context, train, test))
        if self.untrained is None:
            warn_once("few_labels: nothing is trained from scratch, since this run never had the untrained network")
            return metrics
        training = self._training(context, self.scratch, self.untrained, train, test)
        return metrics | self._score_all("scratch", train.y, training, self.scratch.draws)

    def _score_all(self, name: str, y: Tensor, score: Score, draws: int | None = None) -> dict[str, float]:
        metrics: dict[str, float] = {}
        numbers = range(draws or self.draws)
        samples = {f"{n}": [sample_labels(y, n, number) for number in numbers] for n in self.labels}
        samples |= {
            f"{100 * share:g}%": [sample_share(y, share, number) for number in numbers] for share in self.shares
        }
        for n, rows in samples.items():
            scores = [score(known) for known in rows]
            metrics[f"few/{n}/{name}"] = Proportion(statistics.fmean(scores), scores[0].n)
            metrics[f"few/{n}/{name}_std"] = statistics.stdev(scores)
        return metrics | {f"few/all/{name}": score(None)}

    def _probe(self, context: EvalContext, train: Features, test: Features) -> Score:
        x, y, queries, truth = (tensor.to(context.device) for tensor in (*train[:2], *test[:2]))

        def score(rows: Tensor | None) -> Proportion:
            probe = self.linear.choose(x, y)[1] if rows is None else fit_probe(x[rows], y[rows], self.l2)
            return probe.accuracy(queries, truth)

        return score

    def _neighbours(self, context: EvalContext, train: Features, test: Features) -> Score:
        bank, labels, queries, truth = (tensor.to(context.device) for tensor in (*train[:2], *test[:2]))

        def score(rows: Tensor | None) -> Proportion:
            known = slice(None) if rows is None else rows
            return self.knn.accuracies(bank[known], labels[known], queries, truth)[0]

        return score

    def _training(
        self, context: EvalContext, training: Scratch, network: nn.Module, train: Features, test: Features
    ) -> Score:
        def score(rows: Tensor | None) -> Proportion:
            known = train if rows is None else Features(*(tensor[rows] for tensor in train))
            return training.accuracy(context, network, known, test)

        return score


class FewLabelsRow(NamedTuple):
    """A row of the table.

    Attributes:
        name: what was evaluated.
        cells: (mean, standard deviation or None) per column, None where unknown.
    """

    name: str
    cells: list[tuple[float, float | None] | None]


def summarize(metrics: Mapping[str, float], method: str) -> tuple[list[str], list[FewLabelsRow]]:
    """The columns' names and the rows of the table; rows without any known cell are left out.

    Args:
        metrics: those of a run, with the ones before training under `init/`.
        method: what to call the trained network.
    """
    found = {key.split("/")[1] for key in metrics if key.startswith("few/")}
    shares = {n for n in found if n.endswith("%")}
    numbers = [*sorted(found - shares - {"all"}, key=int), *sorted(shares, key=lambda n: float(n[:-1]))]
    numbers += sorted(found & {"all"})
    sources = {
        "raw pixels, kNN": "few/{}/pixels_knn",
        "raw pixels, linear probe": "few/{}/pixels_linear",
        "before training, kNN": "init/few/{}/knn",
        "before training, linear probe": "init/few/{}/linear",
        "trained from scratch": "few/{}/scratch",
        f"{method}, kNN": "few/{}/knn",
        f"{method}, linear probe": "few/{}/linear",
        f"{method}, fine-tuned": "few/{}/finetuned",
    }
    rows = []
    for name, key in sources.items():
        keys = [key.format(n) for n in numbers]
        cells = [(metrics[key], metrics.get(f"{key}_std")) if key in metrics else None for key in keys]
        if any(cells):
            rows.append(FewLabelsRow(name, cells))
    return [_column(n) for n in numbers], rows


def _column(n: str) -> str:
    if n == "all":
        return "all labels"
    return f"{n[:-1]} % of the labels" if n.endswith("%") else f"{n} label{'s' * (n != '1')} per class"


def first_match(metrics: Mapping[str, float], method: str) -> str | None:
    """The first column of the table in which the encoder is as good as training from scratch with all labels, in words.

    Args:
        metrics: as for `summarize`.
        method: what to call the trained network.

    Returns:
        A sentence; None where nothing was trained from scratch.
    """
    columns, rows = summarize(metrics, method)
    goal = metrics.get("few/all/scratch")
    if goal is None:
        return None
    ours = [row for row in rows if row.name.startswith(f"{method}, ")]
    for place, column in enumerate(columns):
        known = {row.name: cell[0] for row in ours if (cell := row.cells[place]) is not None}
        if known and max(known.values()) >= goal:
            best = max(known, key=lambda name: known[name])
            return f"{best}, with {column}: {known[best]:.1%}; trained from scratch, with all labels: {goal:.1%}"
    return f"no row of {method} reaches what training from scratch with all labels does, {goal:.1%}"


def format_cell(cell: tuple[float, float | None] | None) -> str:
    """A cell in per cent, such as "77.3 ± 2.1"."""
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
    """The table to print, with the best cell of each column in bold and each accuracy's binomial interval below it."""
    columns, rows = summarize(metrics, method)
    counts = {value.n for value in metrics.values() if isinstance(value, Proportion)}
    below = f";\nbelow it the 95 % interval by n = {max(counts):,} test examples" if counts else ""
    title = f"test accuracy in %, mean ± standard deviation over samples of the labels{below}"
    shown = Table(title=title, caption=escape(first_match(metrics, method) or ""))
    shown.add_column("")
    for column in columns:
        shown.add_column(column, justify="right")
    best = [max(cell[0] for cell in cells if cell) for cells in zip(*(row.cells for row in rows), strict=True)]
    for row in rows:
        cells = [
            (f"[bold]{format_cell(c)}[/]" if c and c[0] == top else format_cell(c)) + _interval(c)
            for c, top in zip(row.cells, best, strict=True)
        ]
        shown.add_row(escape(row.name), *cells)
    return shown
