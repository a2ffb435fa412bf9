"""correct.npz: what is written is read, small, and a damaged file is named."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.report.outcomes import ClassLabels, Outcomes, outcomes_of, outcomes_of_run, read_outcomes, write_outcomes
from ssl_zoo.report.results import OUTCOMES_NAME


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    told = {f"m/{n}/top1": Outcomes(rng.random(n) < 0.7, f"{n:032x}") for n in (1, 7, 8, 9, 400)}
    write_outcomes(tmp_path, told)
    found = read_outcomes(tmp_path)
    assert list(found) == list(told)
    for key, (right, examples, _) in told.items():
        assert found[key].right.dtype == bool
        assert (found[key].right == right).all()
        assert found[key].examples == examples


def test_it_is_small_even_where_nothing_can_be_compressed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_outcomes(tmp_path, {f"metric{i}/top1": Outcomes(rng.random(10_000) < 0.5, "a" * 32) for i in range(6)})
    assert (tmp_path / OUTCOMES_NAME).stat().st_size < 10_000


def test_only_proportions_of_known_examples_are_kept() -> None:
    right = [True, False, True]
    metrics = {"knn/top1": Proportion.of(right), "few/1/knn": Proportion(0.5, 3), "rankme": 3.0}
    metrics["transfer/mr/top1"] = Proportion.of(right, "of mr")
    found = outcomes_of(metrics, "of the test split")
    assert {key: value.examples for key, value in found.items()} == {
        "knn/top1": "of the test split",
        "transfer/mr/top1": "of mr",
    }


def test_labels_are_kept_once_and_of_the_test_split_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y, names = rng.integers(0, 300, 10_000), [f"class {number}" for number in range(300)]
    own = Proportion.of([True], "of mr")
    metrics = {f"m{i}/top1": Proportion.of(rng.random(10_000) < 0.5) for i in range(3)} | {"transfer/mr/top1": own}
    write_outcomes(tmp_path, outcomes_of(metrics, "a" * 32, ClassLabels(y, names)))
    assert (tmp_path / OUTCOMES_NAME).stat().st_size < 24_000  # 2 bytes a label at most, 1 bit an outcome
    found = read_outcomes(tmp_path)
    assert found["transfer/mr/top1"].labels is None
    for key in ("m0/top1", "m2/top1"):
        labels = found[key].labels
        assert labels is not None
        assert (labels.y == y).all()
        assert labels.names == names


@pytest.mark.parametrize("labels", [ClassLabels(np.array([0, 1]), ["a", "b"]), ClassLabels(np.arange(3), ["a"])])
def test_labels_that_do_not_fit_are_a_damage(labels: ClassLabels, tmp_path: Path) -> None:
    write_outcomes(tmp_path, {"knn/top1": Outcomes(np.ones(3, dtype=bool), "a", labels)})
    with pytest.raises(ValueError, match=r"correct\.npz: damaged \(\d labels of \d classes for 3 examples"):
        read_outcomes(tmp_path)


def test_outcomes_are_those_of_the_results(tmp_path: Path) -> None:
    run = {"folder": tmp_path, "metrics": {"knn/top1": 0.75, "linear/top1": 0.75}}
    assert outcomes_of_run(run, "knn/top1") is None
    right = np.array([True, True, True, False])
    write_outcomes(tmp_path, {"knn/top1": Outcomes(right, "a"), "linear/top1": Outcomes(~right, "a")})
    found = outcomes_of_run(run, "knn/top1")
    assert found is not None
    assert (found.right == right).all()
    assert outcomes_of_run(run, "linear/top1") is None  # the results are of another evaluation


def test_nothing_to_keep_leaves_no_file(tmp_path: Path) -> None:
    assert read_outcomes(tmp_path) == {}
    write_outcomes(tmp_path, {"knn/top1": Outcomes(np.ones(3, dtype=bool), "a")})
    write_outcomes(tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / OUTCOMES_NAME
    write_outcomes(tmp_path, {"knn/top1": Outcomes(np.ones(100, dtype=bool), "a")})
    whole = path.read_bytes()
    arrays = {"metrics": np.array(["a"]), "counts": np.array([9]), "examples": np.array(["b"])}
    changes = []
    for content in (b"", b"x" * 50, whole[:-30], whole.replace(b"counts", b"count_")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"correct\.npz: damaged"):
            read_outcomes(tmp_path)
    for place in range(0, len(whole), 7):
        changes.append(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    for content in changes:
        path.write_bytes(content)
        with contextlib.suppress(ValueError):  # a byte that means nothing, such as a time, does no harm
            assert all(right.sum() == 100 for right, *_ in read_outcomes(tmp_path).values())
    for bits in (np.zeros(1, dtype=np.uint8), np.zeros(9), np.array([{}])):
        np.savez(path, allow_pickle=True, **arrays, **{"bits/a": bits})
        with pytest.raises(ValueError, match=r"correct\.npz: damaged"):
            read_outcomes(tmp_path)
