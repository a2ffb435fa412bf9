"""Spearman's correlation against scipy's of a loop, at known values; TF-IDF on the real sets."""

from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy.stats import pearsonr, rankdata

from ssl_zoo.evaluators.base import run_evaluators
from ssl_zoo.evaluators.correlation import Correlation
from ssl_zoo.evaluators.sentence_pairs import PAIR_SETS, SentencePairs, spearman
from ssl_zoo.evaluators.tfidf import tfidf_cosines
from tests.evaluators.sentence_fakes import REAL, Bag, letters_context, write_split

PAIRS = [("abc", "abc", 5.0), ("abc", "abd", 3.0), ("abcd", "ab", 2.5), ("aab", "abb", 3.0), ("abc", "xyz", 0.0)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    left, right, scores = map(list, zip(*PAIRS, strict=True))
    write_split(tmp_path / "stsb", "test", sentence1=left, sentence2=right, score=scores)
    write_split(tmp_path / "stsb", "train", sentence1=["a"], sentence2=["b"], score=[0.0])
    unscored = [None, *scores[1:]]
    write_split(tmp_path / "sts12to16" / "data", "sts13", sentence1=right, sentence2=left, score=unscored)
    return tmp_path


def test_equals_a_loop(root: Path) -> None:
    cosines = []
    for left, right, _ in PAIRS:
        u, v = ([text.count(letter) for letter in "abcdxyz"] for text in (left, right))
        cosines.append(np.dot(u, v) / np.linalg.norm(u) / np.linalg.norm(v))
    scores = [score for *_, score in PAIRS]
    expected = pearsonr(rankdata(np.round(cosines, 9)), rankdata(scores)).statistic  # equal values: the mean rank
    evaluator = SentencePairs(["stsb", "sts13"], str(root))
    for batch_size in (256, 2):
        found = run_evaluators({"pairs": evaluator}, letters_context(phase="init", batch_size=batch_size))
        assert found.keys() == {"sentence_pairs/stsb/spearman", "sentence_pairs/sts13/spearman"}
        assert found["sentence_pairs/stsb/spearman"] == pytest.approx(expected)
        assert [value.n for value in found.values() if isinstance(value, Correlation)] == [5, 4]


def test_tfidf_stands_beside_at_the_end(root: Path) -> None:
    found = SentencePairs(["stsb"], str(root))(letters_context(phase="final"))
    left, right, scores = zip(*PAIRS, strict=True)
    assert found["tfidf/stsb/spearman"] == spearman(tfidf_cosines(left, right), np.array(scores))


def test_known_values() -> None:
    scores = np.array([0.0, 1.0, 2.0, 3.0])
    assert spearman(np.array([0.1, 0.2, 0.9, 0.91]), scores) == pytest.approx(1)
    assert spearman(-scores, scores) == pytest.approx(-1)
    assert spearman(np.array([1.0, 2.0, 4.0, 3.0]), scores) == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert np.isnan(spearman(np.ones(4), scores))  # a collapsed encoder


def test_collapse_is_no_number(root: Path) -> None:
    class Collapsed(Bag):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(ids), 3)

    found = SentencePairs(["stsb"], str(root))(letters_context(Collapsed(), phase="init"))
    assert np.isnan(found["sentence_pairs/stsb/spearman"])


def test_without_scores_it_is_refused_at_start_up(tmp_path: Path) -> None:
    write_split(tmp_path / "sick", "test", sentence1=["a"], sentence2=["b"], score=[None])
    with pytest.raises(ValueError, match=r"no pair of sick in .*sick has a score"):
        SentencePairs(None, str(tmp_path))


def test_the_config_builds_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_ZOO_DATA", str(root))
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "evaluators" / "sentence_pairs.yaml")
    (evaluator,) = hydra.utils.instantiate(config, _convert_="all").values()
    found = evaluator(letters_context(phase="init"))
    assert found.keys() == {f"sentence_pairs/{name}/spearman" for name in ("stsb", "sts13")}  # the others are not there


@pytest.mark.skipif(not (REAL / "stsb").is_dir() or not (REAL / "sick").is_dir(), reason="no sets below SSL_ZOO_DATA")
@pytest.mark.parametrize(
    ("name", "n", "expected"),
    [("stsb", 1379, 70.0), ("sick", 4927, 58.3), ("sts13", 1500, 72.4), ("sts16", 1186, 71.9)],
)
def test_tfidf_on_real_pairs(name: str, n: int, expected: float) -> None:
    if not (REAL / PAIR_SETS[name][0]).is_dir():
        pytest.skip(f"no {PAIR_SETS[name][0]} below SSL_ZOO_DATA")
    left, right, scores = SentencePairs([name], str(REAL)).pairs[name]
    found = spearman(tfidf_cosines(left, right), scores)
    assert (round(100 * found, 1), found.n) == (expected, n)
