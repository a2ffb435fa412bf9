"""How well RankMe, a score without labels, orders runs as the linear probe does, for each kind of backbone.

    python benchmarks/label_free.py

Reads the runs of benchmarks/results/accuracy.jsonl; of each row and seed the last one counts.
"""

import json
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

RECORD = Path(__file__).parent / "results" / "accuracy.jsonl"


def kind_of(command: str) -> str:
    """The kind of backbone that a command of the table trains."""
    if "table_text" in command or "table_windows" in command:
        return "text"
    return "ViT" if "table_vit" in command else "ResNet"


def correlations() -> dict[str, tuple[float, int]]:
    """Spearman's rank correlation of RankMe and the accuracy of the linear probe, and the number of runs, by kind."""
    last: dict[tuple[str, int], dict[str, Any]] = {}
    for line in RECORD.read_text().splitlines():
        run = json.loads(line)
        last[run["row"], run["seed"]] = run
    pairs: dict[str, list[tuple[float, float]]] = {}
    for run in last.values():
        score, accuracy = run["metrics"].get("rankme"), run["metrics"].get("linear/top1")
        if score is not None and accuracy is not None:
            pairs.setdefault(kind_of(run["command"]), []).append((score, accuracy))
    return {kind: (float(spearmanr(*zip(*found, strict=True))[0]), len(found)) for kind, found in pairs.items()}


if __name__ == "__main__":
    for kind, (correlation, count) in correlations().items():
        print(f"{kind}: {correlation:+.2f} ({count} runs)")
