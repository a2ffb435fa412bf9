"""The reviewer's appendix: what the records of runs answer of the checklists of NeurIPS and of ACL.

Numbers are those of the NeurIPS Paper Checklist, letters those of the ACL Responsible NLP Checklist. What the records
do not say is listed as unknown, so that nobody takes a missing answer for a favourable one.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_zoo.report.comparison import Comparison

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of names of tensors that are no parameters."""
MAX_HEADER = 100_000_000
"""Bytes of the header of a safetensors file, the limit of the format."""


class Answer(NamedTuple):
    """An item of the checklists.

    Attributes:
        item: what is asked.
        text: the answer; "" for unknown.
        neurips: its numbers in NeurIPS' checklist.
        acl: its letters in ACL's.
    """

    item: str
    text: str
    neurips: str
    acl: str


def answer(comparison: Comparison) -> list[Answer]:
    """Answers the items from the records of all runs, completed or not."""
    done = [run for row in comparison.rows for run in row.runs]
    runs = [*done, *comparison.incomplete]
    return [
        Answer("Commands that reproduce the results", _commands(done), "4, 5", "C2"),
        Answer("Software and versions", _software(done), "5", "C4"),
        Answer("Data and its splits", _splits(done), "6", "B6"),
        Answer("Hyperparameters", "config.json in each run folder holds every one." if done else "", "6", "C2"),
        Answer("Selection of epochs and of probes", _selection(done), "6", "C2"),
        Answer("Search budget", _search(comparison), "6", "C2"),
        Answer("Seeds", _seeds(comparison), "7", "C3"),
        Answer("Error bars and tests", _errors(comparison), "7", "C3"),
        Answer("Number of parameters", _parameters(comparison), "8", "C1"),
        Answer("Hardware", _hardware(runs), "8", "C1"),
        Answer("Compute per run", _compute_per_run(comparison), "8", "C1"),
        Answer("Compute in total", _compute_in_total(done, comparison.incomplete), "8", "C1"),
        Answer("Runs left out", _left_out(comparison), "8", "C1, C3"),
        Answer("Pretrained weights", _weights(done), "12", "B1, B2"),
        Answer("Licence of the code", "ssl_zoo: MIT.", "12", "B2"),
        Answer("Licences of data", "", "12", "B2"),
        Answer("Intended use and consent, people in the data", "", "9, 14, 15", "B3, B4"),
        Answer("Compute of experiments that are not in these folders", "", "8", "C1"),
        Answer("Limitations, risks, societal impact", "", "2, 10, 11", "A1, A2"),
        Answer("Use of AI assistants", "", "16", "E"),
    ]


def count_parameters(folder: Path | str) -> int | None:
    """Counts the parameters of a run's encoder by the header of its encoder.safetensors; None if there is none."""
    try:
        with open(Path(folder) / "encoder.safetensors", "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER:
                return None
            header = json.loads(file.read(length))
        tensors = {name: value["shape"] for name, value in header.items() if name != "__metadata__"}
        return sum(math.prod(shape) for name, shape in tensors.items() if not name.endswith(BUFFERS))
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None


def _commands(runs: Sequence[Mapping[str, Any]]) -> str:
    known = sum("overrides" in run for run in runs)
    if not known:
        return ""
    rest = f" of {known} of {len(runs)} runs" if known < len(runs) else ""
    return f"Listed under Runs{rest}; every run is determined by its configuration and seed."


def _software(runs: Sequence[Mapping[str, Any]]) -> str:
    names = {"git": "ssl_zoo at commit", "torch": "torch", "python": "Python"}
    found = {name: _values(run["environment"].get(key) for run in runs) for key, name in names.items()}
    return _sentence(f"{name} {', '.join(values)}" for name, values in found.items() if values)


def _splits(runs: Sequence[Mapping[str, Any]]) -> str:
    found = []
    for run in runs:
        facts, data = (_object(run["config"], key) for key in ("facts", "data"))
        if facts.get("num_train"):
            splits = _object(data, "splits")
            names = " and ".join(f"{key} = {_listed(value)}" for key, value in splits.items() if value)
            parts = [f"{run['data']}: {_count(facts['num_train'])} training"]
            parts += [f"{_count(facts['num_test'])} test examples"] if facts.get("num_test") else []
            parts += [f"splits {names}"] if names else []
            parts += [f"held out: {data['heldout']}"] if data.get("heldout") else []
            parts += [f"content {run['data_content'][:12]}"] if isinstance(run.get("data_content"), str) else []
            found.append(", ".join(parts))
    return _sentence(_values(found), "; ")


def _selection(runs: Sequence[Mapping[str, Any]]) -> str:
    if not runs:
        return ""
    shares = _values(
        _object(_object(run["config"], "evaluators"), "linear").get("validation")
        for run in runs
        if any(key.startswith("linear/") for key in run["metrics"])
    )
    probe = (
        f" The penalty of the linear probe is chosen on {', '.join(shares)} of the training split." if shares else ""
    )
    return f"All metrics are of the last epoch; no epoch is chosen by any metric.{probe}"


def _search(comparison: Comparison) -> str:
    settings = Counter((row.names["data"], row.names["method"]) for row in comparison.rows)
    tried = [f"{method} on {data}: {n} settings" for (data, method), n in settings.items() if n > 1]
    if not settings:
        return ""
    what = "; ".join(tried) if tried else "one setting per method"
    return f"In these folders: {what}. Searches elsewhere are not in the records."


def _seeds(comparison: Comparison) -> str:
    groups: dict[tuple[Any, ...], list[str]] = {}
    for row in comparison.rows:
        groups.setdefault(tuple(sorted(row.seeds, key=str)), []).append(row.names["method"])
    listed = {seeds: ", ".join("unknown" if seed is None else str(seed) for seed in seeds) for seeds in groups}
    if len(groups) == 1:
        ((seeds, text),) = listed.items()
        return f"{len(seeds)} per row: {text}."
    return _sentence((f"{', '.join(dict.fromkeys(groups[seeds]))}: {text}" for seeds, text in listed.items()), "; ")


def _errors(comparison: Comparison) -> str:
    if not comparison.rows:
        return ""
    if all(len(row.seeds) == 1 for row in comparison.rows):
        return "One run per row: intervals are over test examples and say nothing about other seeds."
    return "95 % intervals over the runs of a row, which vary in initialisation, order of the data and views."


def _parameters(comparison: Comparison) -> str:
    found: dict[str, list[str]] = {}
    for row in comparison.rows:
        for count in dict.fromkeys(count_parameters(run["folder"]) for run in row.runs):
            if count is not None:
                found.setdefault(f"{count / 1e6:.3g} M", []).append(row.names["backbone"] or row.names["method"])
    return _sentence((f"encoder {', '.join(dict.fromkeys(names))}: {count}" for count, names in found.items()), "; ")


def _hardware(runs: Sequence[Mapping[str, Any]]) -> str:
    found = []
    for run in runs:
        environment = run["environment"]
        if environment.get("device"):
            processes = environment.get("processes")
            several = f", {processes} processes" if isinstance(processes, int) and processes > 1 else ""
            found.append(f"{environment['device']}{several}, {environment.get('precision', 'unknown precision')}")
    return _sentence(_values(found), "; ")


def _compute_per_run(comparison: Comparison) -> str:
    parts = []
    for key, unit in (("seconds", "seconds"), ("flops", "FLOPs")):
        costs = [_number(run["budget"].get(key)) for row in comparison.rows for run in row.runs]
        if known := [cost for cost in costs if cost]:
            ends = dict.fromkeys(f"{cost:,.3g}" for cost in (min(known), max(known)))
            parts.append(f"{' to '.join(ends)} {unit}")
    return f"{' and '.join(parts)} of training; each row's mean is in the leaderboard." if parts else ""


def _compute_in_total(done: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> str:
    seconds, flops = (sum(_number(run["budget"].get(key)) for run in done) for key in ("seconds", "flops"))
    if not seconds and not flops:
        return ""
    text = f"{len(done)} completed runs: {seconds / 3600:.3g} hours of training, {flops:.3g} FLOPs"
    times = [_number(run.get("finished")) - _number(run.get("started")) for run in (*done, *others)]
    known = [time for time in times if 0 < time < 1e9]
    whole = f"{sum(known) / 3600:.3g} hours from start to end of {len(known)} of {len(times)} runs, evaluation included"
    return f"{text}. {whole}." if known else f"{text}."


def _left_out(comparison: Comparison) -> str:
    if not comparison.incomplete:
        return "None in these folders."
    statuses = Counter(run["status"] for run in comparison.incomplete)
    return f"{', '.join(f'{count} {status}' for status, count in statuses.items())}; see Not completed."


def _weights(runs: Sequence[Mapping[str, Any]]) -> str:
    known = {str(_object(run["config"], "backbone").get("pretrained")) for run in runs}
    if known == {"False"}:
        return "None: every backbone starts from random weights."
    return "Some backbones start from pretrained weights, with the licence of their source." if "True" in known else ""


def _values(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value not in (None, "")))


def _sentence(parts: Iterable[str], between: str = ", ") -> str:
    text = between.join(parts)
    return f"{text[0].upper() + text[1:] if text.startswith('encoder') else text}." if text else ""


def _object(parent: Any, key: str) -> dict[str, Any]:
    found = parent.get(key) if isinstance(parent, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def _listed(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
