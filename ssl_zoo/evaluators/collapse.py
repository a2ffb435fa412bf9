"""Recognises features that collapse during training: what was lost, since when, and what to try.

Two numbers of `spread` are followed on the same examples, since neither suffices alone: features that shrink to a point
keep some rank in what is left, and features that lose directions keep their deviation where a BatchNorm restores it. On
a small SimSiam, with a rank of 11 before training, rank and deviation were 9 and 0.99 for a healthy run, 5 and 0.98
without stop-gradient, and 3.5 and 0.12 with attraction only. Networks with random weights often have small numbers too,
so only changes count. Letters: n examples, D width.
"""

from typing import NamedTuple

from torch import Tensor

from ssl_zoo.evaluators.spread import feature_std, rankme

COLLAPSED_STD = 0.2
"""Below it, and below `MIN_RATIO` of the highest so far, features have shrunk to a point."""
MIN_RATIO = 0.5
"""Of the highest deviation, the highest rank or the most live features so far: below it, they were lost."""
CONSTANT = 1e-4
"""Distance from the mean, relative to the length of the features, up to which an output counts as constant."""
DEAD = 1e-6
"""Deviation of a feature, relative to the largest, up to which it counts as constant."""

ADVICE = {
    "output": "a lower optimizer.lr or a longer warm-up, and what keeps this method from the constant solution: the "
    "stop-gradient and the predictor, the negatives, the variance term, or the teacher's centre and temperature",
    "dimensions": "a lower optimizer.lr or optimizer.weight_decay, and trainer.gradient_clip_val=1: units that are "
    "never active get no gradient",
    "rank": "a larger weight of the term that spreads or decorrelates the features, a larger data.batch_size for "
    "methods with negatives, a lower optimizer.lr, and views that change less",
    "numbers": "a lower optimizer.lr, trainer.gradient_clip_val=1 or trainer.precision=32-true",
}
"""What to try, by what has collapsed."""


class Collapse(NamedTuple):
    """A collapse that has been seen.

    Attributes:
        what: a key of `ADVICE`: the output (all examples get the same vector, or nearly), dimensions (features that
            are constant), rank (directions), numbers (NaN or Inf).
        since: optimizer step of the first sign.
        healthy: last step before it without a sign, -1 if there was none.
        description: what was measured.
    """

    what: str
    since: int
    healthy: int
    description: str

    def __str__(self) -> str:
        """One sentence, and what to try."""
        before = f", not yet at step {self.healthy}" if self.healthy >= 0 else ""
        return f"{self.description}; first seen at step {self.since}{before}. Try {ADVICE[self.what]}"


class CollapseWatch:
    """Looks at the features of the same examples at several steps of a run, the first time before training.

    Attributes:
        state: plain numbers to keep in a checkpoint.
    """

    def __init__(self) -> None:
        self.state: dict[str, float] = {"looks": 0, "std": 0.0, "rank": 0.0, "live": 0}
        self.state |= {"since": -1, "healthy": -1}

    def look(self, step: int, x: Tensor, is_last: bool = False) -> Collapse | None:
        """A collapse, if its signs were there at this look and at the one before.

        Args:
            step: optimizer steps made.
            x: (n, D), features of the same examples as before.
            is_last: whether no look follows, so that one sign is enough.
        """
        state, is_first = self.state, not self.state["looks"]
        state["looks"] += 1
        found = self._sign(x.float().cpu(), is_first)
        if found is None:
            state["since"], state["healthy"] = -1, step
            return None
        is_new = state["since"] < 0
        state["since"] = step if is_new else state["since"]
        if is_new and not is_last:
            return None
        what, description = found
        return Collapse(what, int(state["since"]), int(state["healthy"]), description)

    def _sign(self, x: Tensor, is_first: bool) -> tuple[str, str] | None:
        """What looks collapsed, and the measurement; the first look only sets the marks."""
        state = self.state
        if not x.isfinite().all():
            return "numbers", "the features hold NaN or Inf"
        deviations = x.std(dim=0, correction=0)
        live = int((deviations > DEAD * deviations.max()).sum())
        rank, std = rankme(x), feature_std(x)
        most_live, top_rank, top_std = state["live"], state["rank"], state["std"]
        state["live"], state["rank"], state["std"] = max(live, most_live), max(rank, top_rank), max(std, top_std)
        if is_first:
            return None
        spread = (x - x.mean(dim=0)).norm(dim=1).max().item()
        if spread <= CONSTANT * x.norm(dim=1).mean().item():
            return "output", "the output has collapsed: every example gets the same vector"
        if std < min(COLLAPSED_STD, MIN_RATIO * top_std):
            return "output", (
                f"the output has collapsed to a point: feature_std is {std:.2g}, {top_std:.2g} earlier, healthy up to 1"
            )
        if live < MIN_RATIO * most_live:
            return "dimensions", (
                f"dimensions have collapsed: {live} of {len(deviations)} features vary, {most_live:.0f} earlier"
            )
        if rank < MIN_RATIO * top_rank:
            return "rank", (
                f"the rank has collapsed: the features use {rank:.1f} of {x.shape[1]} directions (rankme), "
                f"{top_rank:.1f} earlier"
            )
        return None
