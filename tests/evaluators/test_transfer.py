"""Folds, official splits and the features of pairs; accuracy against a loop; one real set."""

from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ssl_zoo.evaluators.base import run_evaluators
from ssl_zoo.evaluators.linear import Linear
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.evaluators.transfer import Transfer, fold_numbers, read_examples
from tests.evaluators.sentence_fakes import REAL, letters_context, write_split

PROBE = Linear([1e-2], 0.2)


def sentences(count: int, seed: int = 0) -> dict[str, list]:
    """Label 1 has more of the letter b, with noise."""
    rng = torch.Generator().manual_seed(seed)
    labels = (torch.arange(count) % 2).tolist()
    noise = torch.randint(0, 6, (count, 2), generator=rng).tolist()
    return {
        "text": ["a" * (1 + n[0]) + "b" * (n[1] + 2 * y) for n, y in zip(noise, labels, strict=True)],
        "label": labels,
    }


def test_folds_are_positions_within_the_class() -> None:
    labels = torch.tensor([0, 1, 1, 0] * 10)
    folds = fold_numbers(labels)
    for label in (0, 1):
        assert folds[labels == label].tolist() == list(range(10)) * 2


def test_cross_validation_equals_a_loop(tmp_path: Path) -> None:
    columns = sentences(120)
    folds = fold_numbers(torch.tensor(columns["label"])).tolist()
    for split, wanted in (("train", True), ("test", False)):
        rows = [i for i, fold in enumerate(folds) if (fold > 0) == wanted]
        picked = {key: [values[i] for i in rows] for key, values in columns.items()}
        write_split(tmp_path / "cr", split, **picked, fold=[folds[i] for i in rows])
    found = run_evaluators({"transfer": Transfer(["cr"], str(tmp_path), PROBE)}, letters_context(phase="init"))
    x = torch.tensor([[text.count("a"), text.count("b")] for text in columns["text"]], dtype=torch.float64)
    y, where = torch.tensor(columns["label"]), torch.tensor(folds)
    hits = 0
    for fold in range(10):
        train, test = x[where != fold], x[where == fold]
        mean, std = train.mean(0), train.std(0, correction=0)
        model = LogisticRegression(C=1 / (1e-2 * len(train))).fit((train - mean) / std, y[where != fold])
        hits += int((torch.from_numpy(model.predict((test - mean) / std)) == y[where == fold]).sum())
    (accuracy,) = found.values()
    assert isinstance(accuracy, Proportion)
    assert (found.keys(), accuracy.n) == ({"transfer/cr/top1"}, 120)
    assert accuracy == pytest.approx(hits / 120, abs=1.5 / 120)
    assert 0.6 < accuracy < 1
    assert accuracy.right is not None
    assert len(accuracy.right) == 120
    assert accuracy.examples


def test_official_split_and_tfidf_beside(tmp_path: Path) -> None:
    write_split(tmp_path / "sst2", "train", **sentences(100))
    write_split(tmp_path / "sst2", "test", **sentences(30, seed=1))
    write_split(tmp_path / "sst2", "validation", text=["never read"], label=[9])
    evaluator = Transfer(["sst2"], str(tmp_path), PROBE)
    found = evaluator(letters_context(phase="final"))
    assert [(key, value.n) for key, value in found.items() if isinstance(value, Proportion)] == [
        ("transfer/sst2/top1", 30),
        ("tfidf/sst2/top1", 30),
    ]
    ours, words = (found[f"{name}/sst2/top1"] for name in ("transfer", "tfidf"))
    assert ours.examples == words.examples  # type: ignore[attr-defined]  # so they can be paired
    assert evaluator(letters_context(phase="periodic")) == {}


def test_pairs_have_difference_and_product(tmp_path: Path) -> None:
    left = ["ab" * (1 + i % 3) + "c" * (i % 5) for i in range(60)]
    right = [text[::-1] if i % 2 else text + "xyz" for i, text in enumerate(left)]
    columns = {"sentence1": left, "sentence2": right, "label": [i % 2 for i in range(60)]}
    write_split(tmp_path / "mrpc", "train", **{key: values[:40] for key, values in columns.items()})
    write_split(tmp_path / "mrpc", "test", **{key: values[40:] for key, values in columns.items()})
    evaluator = Transfer(["mrpc"], str(tmp_path), PROBE)
    context = letters_context(phase="init")
    assert evaluator(context) == {"transfer/mrpc/top1": 1.0}  # equal letters: no difference
    x = evaluator._features(context, evaluator.sets["mrpc"])

    def counts(text: str) -> Tensor:
        return torch.tensor([text.count(chr(i)) for i in range(128)])

    u, v = counts(left[40]), counts(right[40])  # test examples come first
    assert torch.equal(x[0], torch.cat([(u - v).abs(), u * v]).float())


def test_mistakes_are_named_at_start_up(tmp_path: Path) -> None:
    write_split(tmp_path / "trec", "train", text=["a", None], label=[0, 1])
    with pytest.raises(ValueError, match=r"trec: no files test-"):
        Transfer(["trec"], str(tmp_path), PROBE)
    write_split(tmp_path / "trec", "test", text=["a"], label=[0])
    with pytest.raises(ValueError, match="trec has empty cells in text"):
        Transfer(["trec"], str(tmp_path), PROBE)
    with pytest.raises(ValueError, match=r"evaluators\.transfer\.sets: mr is not there"):
        Transfer(["mr"], str(tmp_path), PROBE)


def test_the_config_builds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_split(tmp_path / "mpqa", "train", **sentences(60))
    monkeypatch.setenv("SSL_ZOO_DATA", str(tmp_path))
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "evaluators" / "transfer.yaml")
    (evaluator,) = hydra.utils.instantiate(config, _convert_="all").values()
    assert evaluator(letters_context(phase="init")).keys() == {"transfer/mpqa/top1"}


@pytest.mark.skipif(not (REAL / "cr").is_dir(), reason="no cr below SSL_ZOO_DATA")
def test_a_real_set() -> None:
    examples = read_examples("cr", REAL / "cr")
    assert len(examples.labels) == 3771
    assert [int((examples.parts == fold).sum()) for fold in (0, 9)] == pytest.approx([377, 377], abs=2)
    assert examples.parts.unique().tolist() == list(range(10))
