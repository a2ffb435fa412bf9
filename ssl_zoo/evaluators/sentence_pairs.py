"""Semantic similarity: Spearman's correlation of the cosine of two sentences' vectors with what people said.

The protocol of SimCSE (Gao, Yao, Chen, EMNLP 2021, https://arxiv.org/abs/2104.08821, Appendix B): no regressor, all
pairs of a set together ("all"). Sets: STS 2012 to 2016, the STS benchmark's test split and SICK-R's.
"""

import warnings

import numpy as np
import torch.nn.functional as F

from ssl_zoo.evaluators.base import EvalContext
from ssl_zoo.evaluators.correlation import Correlation
from ssl_zoo.evaluators.sentences import embed_texts, find_sets, read_columns
from ssl_zoo.evaluators.tfidf import tfidf_cosines

PAIR_SETS = {f"sts{year}": ("sts12to16", f"sts{year}") for year in range(12, 17)}
PAIR_SETS |= {"stsb": ("stsb", "test"), "sick": ("sick", "test")}
"""Folder and split of each set."""


def spearman(cosines: np.ndarray, scores: np.ndarray) -> Correlation:
    """Spearman's correlation, equal values having their mean rank; NaN where all cosines are equal."""
    from scipy.stats import spearmanr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant input: NaN says it
        return Correlation(float(spearmanr(cosines, scores).statistic), len(scores))


class SentencePairs:
    """Reports `sentence_pairs/<set>/spearman`, and at the end of a run `tfidf/<set>/spearman` beside it.

    Any text encoder is evaluated as it is; nothing is trained. Pairs without a score are left out.
    """

    needs_labels = False  # of the run's own data

    def __init__(self, sets: list[str] | None, root: str | None):
        """Reads the sets, which have the columns sentence1, sentence2 and score.

        Args:
            sets: some of `PAIR_SETS`; None: all that are found.
            root: the folder that they lie in; None: `$SSL_ZOO_DATA`.

        Raises:
            ValueError: for a set that is named and not found, or cannot be read.
        """
        self.pairs: dict[str, tuple[list[str], list[str], np.ndarray]] = {}
        for name, place in find_sets("evaluators.sentence_pairs", PAIR_SETS, sets, root).items():
            columns = read_columns(place, ("sentence1", "sentence2", "score"))
            scored = [row for row in zip(*columns.values(), strict=True) if None not in row]
            if len(scored) < 2:
                raise ValueError(f"evaluators.sentence_pairs.sets: no pair of {name} in {place.folder} has a score")
            left, right, scores = (list(column) for column in zip(*scored, strict=True))
            self.pairs[name] = left, right, np.array(scores, dtype=np.float64)

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """The correlation on each set.

        Raises:
            ValueError: when the encoder takes no text.
        """
        metrics: dict[str, float] = {}
        for name, (left, right, scores) in self.pairs.items():
            x = F.normalize(embed_texts("sentence_pairs", context, [*left, *right]).double(), dim=1)
            cosines = (x[: len(left)] * x[len(left) :]).sum(dim=1)
            metrics[f"sentence_pairs/{name}/spearman"] = spearman(cosines.numpy(), scores)
            if context.phase == "final":
                metrics[f"tfidf/{name}/spearman"] = spearman(tfidf_cosines(left, right), scores)
        return metrics
