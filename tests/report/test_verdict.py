from typing import Any

from benchmarks.label_free import correlations
from ssl_zoo.report.verdict import WITHOUT_LABELS, verdict


def run(method: str, value: float | None, data: str = "digits", n: int = 10_000, status: str = "completed") -> Any:
    metrics = {} if value is None else {"linear/top1": value, "knn/top1": 0.1}
    return {"status": status, "method": method, "data": data, "metrics": metrics, "counts": {"linear/top1": n}}


def test_the_best_is_named_with_what_limits_it() -> None:
    two = [run("simclr", 0.8), run("simclr", 0.82), run("byol", 0.7), run("byol", 0.72)]
    assert verdict(two) == "simclr has the highest linear/top1, 81.0%, 10.0 points above byol"
    assert "one seed" in str(verdict([run("simclr", 0.8), run("byol", 0.7)]))
    close = str(verdict([run("simclr", 0.8, n=100), run("byol", 0.79, n=100)]))
    assert close.endswith("with 100 test examples this difference may be chance")


def test_without_labels_nothing_is_chosen() -> None:
    assert verdict([run("simclr", None), run("byol", None)]) == WITHOUT_LABELS


def test_runs_that_are_no_comparison_of_methods() -> None:
    assert verdict([run("simclr", 0.8), run("simclr", 0.7)]) is None
    assert verdict([run("simclr", 0.8), run("byol", 0.7, data="cifar10")]) is None
    assert verdict([run("simclr", 0.8), run("byol", 0.7, status="failed")]) is None


def test_the_correlations_are_those_of_the_recorded_runs() -> None:
    for kind, (correlation, _) in correlations().items():
        assert f"{correlation:+.2f} for {kind}" in WITHOUT_LABELS
