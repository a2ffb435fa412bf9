"""Each metric that the documentation names has its meaning in the report."""

import re
from pathlib import Path

from ssl_zoo.report.metrics import AXES, LABEL_KEYS, meaning_of

EVALUATION = Path(__file__).parents[2] / "docs" / "evaluation.md"


def documented() -> list[str]:
    """The metrics in the first column of the table of docs/evaluation.md."""
    (section,) = re.findall(r"## What each metric means\n(.*?)\n## ", EVALUATION.read_text(), re.DOTALL)
    firsts = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    names = [
        name.replace("<n>", "10").replace("<k>", "5") for cell in firsts for name in re.findall(r"`([^`]+)`", cell)
    ]
    return [re.sub(r"<\w+>", "any", name) for name in names]


def test_every_documented_metric_is_explained() -> None:
    assert len(documented()) > 15
    assert [key for key in documented() if not meaning_of(key)] == []


def test_costs_and_values_before_training_are_explained() -> None:
    assert all(map(meaning_of, AXES))
    assert meaning_of("init/knn200/top1") == f"Before training: {meaning_of('knn/top1')}"
    assert meaning_of("knn/top1/other") == meaning_of("nothing") == meaning_of("init/nothing") == ""


def test_numbers_of_labels() -> None:
    keys = ("few/1/linear", "few/all/knn", "few/x/knn", "linear/top1", "init/few/1/knn")
    assert [key for key in keys if LABEL_KEYS.fullmatch(key)] == ["few/1/linear", "few/all/knn"]
