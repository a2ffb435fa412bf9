"""Token probes: what the features of single tokens tell of the words around them, without any label.

A linear classifier reads, from the feature of a token, which of the most frequent tokens it is itself, which stands
before it and which after it. Such probes of surrounding words are those of Klafka and Ettinger, "Spying on Your
Neighbors: Fine-grained Probing of Contextual Embeddings for Information about Surrounding Words", ACL 2020,
https://arxiv.org/abs/2005.01810. In the paper they predict properties of the words, which need labels; here, the words.
Letters: N rows, L tokens per row, D width, M tokens.
"""

import torch
from torch import Tensor

from ssl_zoo.backbones.token_features import token_features
from ssl_zoo.evaluators.base import EvalContext, frozen, random_rows
from ssl_zoo.evaluators.linear import Linear, standardize_features
from ssl_zoo.evaluators.mask import HoldsOutRows
from ssl_zoo.evaluators.proportion import Proportion

OFFSETS = {"token": 0, "previous": -1, "next": 1}
"""Name of each probe, and where the token that it asks for stands."""
TRAINING_SHARE = 0.8
"""Of the held-out rows: the classifier is fitted on the first ones and tested on the others."""


class TokenProbe:
    """Reports `token_probe/<probe>/top1`, and `token_probe/<probe>/from_token/top1`, what the token alone says of it.

    Both are accuracies on held-out text that neither encoder nor classifier was trained on. The tokens of a text depend
    on each other, so intervals by their number are too narrow. Periodic evaluations leave it out.
    """

    needs_labels = False

    def __init__(self, linear: Linear, num_tokens: int, max_train: int, max_test: int, max_rows: int, batch_size: int):
        """Keeps the settings.

        Args:
            linear: the classifier, which chooses its penalty within the tokens it is fitted on.
            num_tokens: the most frequent tokens, the classes.
            max_train: tokens that it is fitted on, at most; a random sample, the same in every run.
            max_test: tokens that it is tested on.
            max_rows: held-out rows, the first ones.
            batch_size: rows per forward pass.

        Raises:
            ValueError: for numbers that are too small.
        """
        self.linear, self.num_tokens = linear, num_tokens
        self.max_train, self.max_test, self.max_rows, self.batch_size = max_train, max_test, max_rows, batch_size
        least = {"num_tokens": 2, "max_train": 10, "max_test": 1, "max_rows": 2, "batch_size": 1}
        for name, limit in least.items():
            if (value := getattr(self, name)) < limit:
                raise ValueError(f"evaluators.token_probe.{name}={value}: give at least {limit}")

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """All accuracies.

        Raises:
            ValueError: when the data is not text, too little of it was held out, or the encoder has no tokens.
        """
        if context.phase == "periodic":
            return {}
        data = context.data
        if not isinstance(data, HoldsOutRows):
            raise ValueError("evaluators=[token_probe] needs text, and this data is not text: leave token_probe out")
        rows = data.heldout_rows()[: self.max_rows]
        ordinary = rows >= data.facts["num_special"]
        for_training = torch.arange(len(rows))[:, None].expand_as(rows) < int(TRAINING_SHARE * len(rows))
        frequencies = rows[ordinary & for_training].bincount(minlength=int(rows.max()) + 1)
        classes = frequencies.topk(min(self.num_tokens, len(frequencies))).indices.sort().values
        targets = {name: shifted(rows, ordinary, offset) for name, offset in OFFSETS.items()}
        chosen = {
            name: _sample(torch.isin(target, classes) & ordinary & for_training, self.max_train)
            | _sample(torch.isin(target, classes) & ordinary & ~for_training, self.max_test)
            for name, target in targets.items()
        }
        if not all((its & part).any() for its in chosen.values() for part in (for_training, ~for_training)):
            raise ValueError("evaluators=[token_probe]: too little text was held out; give more or leave it out")
        features = self._features(context, rows, chosen)
        metrics: dict[str, float] = {}
        for name, target in targets.items():
            its = chosen[name]
            y, is_train, tokens = target[its], for_training[its], rows[its]
            x = features[name].to(context.device)
            train, test = standardize_features(x[is_train.to(x.device)], x[~is_train.to(x.device)])
            _, probe = self.linear.choose(train, y[is_train].to(x.device))
            accuracy = probe.accuracy(test, y[~is_train].to(x.device))
            metrics[f"token_probe/{name}/top1"] = Proportion(float(accuracy), accuracy.n)
            if name != "token":
                guesses = likeliest(tokens[is_train], y[is_train], tokens[~is_train])
                share = (guesses == y[~is_train]).double().mean().item()
                metrics[f"token_probe/{name}/from_token/top1"] = Proportion(share, accuracy.n)
        return metrics

    def _features(self, context: EvalContext, rows: Tensor, chosen: dict[str, Tensor]) -> dict[str, Tensor]:
        """Features (M, D) float32 of the chosen tokens of each probe, in the order of the rows."""
        found: dict[str, list[Tensor]] = {name: [] for name in chosen}
        with frozen(context.method), context.precision():
            for start in range(0, len(rows), self.batch_size):
                ids = rows[start : start + self.batch_size].to(context.device)
                try:
                    features = token_features(context.method.encoder, ids).features.float().cpu()
                except ValueError as error:
                    raise ValueError(f"evaluators=[token_probe] needs the tokens of an encoder: {error}") from error
                for name, its in chosen.items():
                    found[name].append(features[its[start : start + self.batch_size]])
        return {name: torch.cat(parts) for name, parts in found.items()}


def shifted(rows: Tensor, ordinary: Tensor, offset: int) -> Tensor:
    """The token at `offset` from each token of rows (N, L), -1 where there is none or it is not `ordinary` (N, L)."""
    known = rows.masked_fill(~ordinary, -1).roll(-offset, dims=1)
    if offset:
        edge = slice(-offset, None) if offset > 0 else slice(None, -offset)
        known[:, edge] = -1
    return known


def likeliest(tokens: Tensor, targets: Tensor, asked: Tensor) -> Tensor:
    """The most frequent of the targets (M,) of the same token, or of all targets for a token that is not in `tokens`.

    Args:
        tokens: (M,) int64.
        targets: (M,) int64.
        asked: (K,) int64, tokens that a target is wanted of.

    Returns:
        (K,) int64.
    """
    size = int(max(tokens.max(), asked.max())) + 1
    values, places = targets.unique(return_inverse=True)
    counts = torch.zeros(size, len(values)).index_put_((tokens, places), torch.ones(len(tokens)), accumulate=True)
    overall = counts.sum(dim=0)
    counts[counts.sum(dim=1) == 0] = overall
    best: Tensor = values[counts[asked].argmax(dim=1)]
    return best


def _sample(where: Tensor, count: int) -> Tensor:
    """At most `count` of the places where `where` (N, L) is True, as (N, L) bool, the same each time."""
    places = where.flatten().nonzero().squeeze(1)
    found = torch.zeros(where.numel(), dtype=torch.bool)
    found[places[random_rows(len(places), count)]] = True
    return found.view_as(where)
