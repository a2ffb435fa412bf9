"""Transfer tasks of SentEval: logistic regression on frozen sentence vectors, for seven sets with their own labels.

Conneau, Kiela, "SentEval: An Evaluation Toolkit for Universal Sentence Representations", LREC 2018,
https://arxiv.org/abs/1803.05449. MR, CR, SUBJ and MPQA by cross-validation over ten folds; SST-2 (whole sentences),
TREC and MRPC on their test split. The classifier is `linear.Linear`, solved to its optimum; SentEval trains by Adam.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.evaluators.base import EvalContext
from ssl_zoo.evaluators.linear import Linear, standardize_features
from ssl_zoo.evaluators.proportion import Proportion, hash_examples
from ssl_zoo.evaluators.sentences import SetSplit, embed_texts, find_sets, read_columns
from ssl_zoo.evaluators.tfidf import tfidf_predictions, word_counts

FOLDED = ("mr", "cr", "subj", "mpqa")
"""Sets without a test split."""
TRANSFER_SETS = {name: (name, "train") for name in (*FOLDED, "sst2", "trec", "mrpc")}
"""Folder of each set, and the split that shows that it is there."""
NUM_FOLDS = 10


class SentenceSet(NamedTuple):
    """The examples of a set.

    Attributes:
        columns: n sentences; or n first and n second ones, where an example is a pair.
        labels: (n,) int64.
        parts: (n,) int64; the examples of each part from 0 on are tested with a classifier of all the others, those
            of part -1 are only trained on.
    """

    columns: list[list[str]]
    labels: Tensor
    parts: Tensor


def fold_numbers(labels: Tensor) -> Tensor:
    """The fold of each example, (n,) int64: its position within its class modulo `NUM_FOLDS`."""
    folds = torch.zeros_like(labels)
    for label in labels.unique():
        members = labels == label
        folds[members] = torch.arange(int(members.sum())) % NUM_FOLDS
    return folds


def read_examples(name: str, folder: Path) -> SentenceSet:
    """Reads a set from the columns text and label, for mrpc sentence1, sentence2 and label.

    Folds are those of the column `fold`, if there is one.

    Raises:
        ValueError: for a missing split or column, or a cell without text or label.
    """
    texts = ["sentence1", "sentence2"] if name == "mrpc" else ["text"]
    needed = [*texts, "label"]
    if name in FOLDED:
        columns = read_columns(SetSplit(folder, "*"), needed, optional=["fold"])
    else:
        test, train = (read_columns(SetSplit(folder, split), needed) for split in ("test", "train"))
        columns = {key: test[key] + train[key] for key in needed}
        columns["fold"] = [0] * len(test["label"]) + [-1] * len(train["label"])
    if empty := [key for key, cells in columns.items() if None in cells]:
        raise ValueError(f"evaluators.transfer.sets: {folder} has empty cells in {empty[0]}. Fill them or remove them")
    labels = torch.tensor(columns["label"], dtype=torch.int64)
    parts = torch.tensor(columns["fold"], dtype=torch.int64) if "fold" in columns else fold_numbers(labels)
    return SentenceSet([columns[key] for key in texts], labels, parts)


class Transfer:
    """Reports `transfer/<set>/top1`, and at the end of a run `tfidf/<set>/top1` of the same examples beside it.

    The features of a pair (u, v) are |u - v| and u * v. Periodic evaluations leave it out: it takes a minute or more.
    """

    needs_labels = False  # of the run's own data

    def __init__(self, sets: list[str] | None, root: str | None, linear: Linear):
        """Reads the sets.

        Args:
            sets: some of `TRANSFER_SETS`; None: all that are found.
            root: the folder that they lie in; None: `$SSL_ZOO_DATA`.
            linear: the classifier, which chooses its penalty within the training examples of each fold.

        Raises:
            ValueError: for a set that is named and not found, or cannot be read.
        """
        places = find_sets("evaluators.transfer", TRANSFER_SETS, sets, root)
        self.sets = {name: read_examples(name, place.folder) for name, place in places.items()}
        self.linear = linear

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Accuracy on each set.

        Raises:
            ValueError: when the encoder takes no text.
        """
        if context.phase == "periodic":
            return {}
        metrics: dict[str, float] = {}
        for name, examples in self.sets.items():
            x = self._features(context, examples)
            metrics[f"transfer/{name}/top1"] = self._accuracy(x.to(context.device), examples)
            if context.phase == "final":
                metrics[f"tfidf/{name}/top1"] = tfidf_accuracy(examples)
        return metrics

    def _features(self, context: EvalContext, examples: SentenceSet) -> Tensor:
        u, *others = [embed_texts("transfer", context, column) for column in examples.columns]
        return torch.cat([(u - others[0]).abs(), u * others[0]], dim=1) if others else u

    def _accuracy(self, x: Tensor, examples: SentenceSet) -> Proportion:
        """Share of the examples with features x (n, D) that are classified right when their part is tested."""
        labels = examples.labels.to(x.device)
        right = np.zeros(len(labels), dtype=bool)
        for tested in _tested(examples):
            rows = tested.to(x.device)
            train, test = standardize_features(x[~rows], x[rows])
            right[tested.numpy()] = self.linear.choose(train, labels[~rows])[1].accuracy(test, labels[rows]).right
        return _share(right, examples)


def tfidf_accuracy(examples: SentenceSet) -> Proportion:
    """What logistic regression on TF-IDF reaches with the same parts."""
    counts, labels = word_counts(examples.columns), examples.labels.numpy()
    right = np.zeros(len(labels), dtype=bool)
    for tested in map(Tensor.numpy, _tested(examples)):
        right[tested] = tfidf_predictions(counts, labels, tested) == labels[tested]
    return _share(right, examples)


def _share(right: np.ndarray, examples: SentenceSet) -> Proportion:
    """The share of the tested examples that are right, of all (n,) bool."""
    return Proportion.of(right[examples.parts.numpy() >= 0], hash_examples(*examples.columns, examples.labels))


def _tested(examples: SentenceSet) -> list[Tensor]:
    """For each part that is tested, which examples belong to it: (n,) bool."""
    return [examples.parts == part for part in examples.parts[examples.parts >= 0].unique()]
