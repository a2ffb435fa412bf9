"""Whether two rows of a comparison differ in nothing that makes their difference meaningless.

Method, backbone, optimizer and batch size are what is compared. Data, evaluation, views and budget are not: a row that
saw other views, or twice the examples, is better or worse for a reason that is not its method.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DATA_MAY_DIFFER = ("batch_size", "check", "num_workers", "path", "root", "store", "tokenizer", "train_rows")
"""Settings of data that do not affect which examples an encoder is evaluated on, or how."""
_NOT_LEARNED = ("seed", "shuffle_seed")


def differing_conditions(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """What makes two rows incomparable, such as ["data (cifar10 and digits)", "views"]; [] if nothing does.

    Args:
        a: the runs of one row.
        b: those of the other.
        metric: what is compared; of evaluators that only one row has, the settings do not count.
    """
    one, other = a[0], b[0]
    found = []
    if data := _data(one, other):
        found.append(data)
    elif len(_contents([*a, *b])) > 1:
        found.append("the content of the data")
    if evaluation := _evaluation(one, other, metric):
        found.append(evaluation)
    if one["config"].get("views") != other["config"].get("views"):
        found.append("views")
    if (budget := _budget(one)) != _budget(other):
        found.append(f"budget ({budget} and {_budget(other)})")
    return found


def _data(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    if one["data"] != other["data"]:
        return f"data ({one['data']} and {other['data']})"
    if one["config"].get("data") == other["config"].get("data"):
        return None
    settings = [flat(run["config"].get("data")) for run in (one, other)]
    ignored = (*DATA_MAY_DIFFER, *_NOT_LEARNED)
    keys = [key for key in _differing(*settings) if key.split(".")[0] not in ignored]
    return _named("data", keys, settings)


def _contents(runs: Iterable[Mapping[str, Any]]) -> set[str]:
    return {str(run["data_content"]) for run in runs if run.get("data_content")}


def _evaluation(one: Mapping[str, Any], other: Mapping[str, Any], metric: str) -> str | None:
    evaluators = [_object(run["config"].get("evaluators")) for run in (one, other)]
    if evaluators[0] != evaluators[1]:
        shared = evaluators[0].keys() & evaluators[1].keys()
        settings = [flat({name: each[name] for name in shared}) for each in evaluators]
        if found := _named("evaluators", _differing(*settings), settings):
            return found
    views = [run["config"].get("evaluation_views", "plain") for run in (one, other)]
    if views[0] != views[1]:
        return f"evaluation_views ({' and '.join(views)})"
    later = [_evaluated_later(run, metric) for run in (one, other)]
    if later[0] != later[1]:
        return f"evaluation ({' and '.join(' '.join(words) or 'at the end of the run' for words in later)})"
    return None


def _evaluated_later(run: Mapping[str, Any], metric: str) -> list[str]:
    """The evaluators' settings on the command line of the last `task=evaluate` that measured a metric again."""
    notes = [_object(note) for note in _list(run.get("evaluations"))]
    last: Mapping[str, Any] = next((note for note in reversed(notes) if metric in _list(note.get("metrics"))), {})
    words = str(last.get("command", "")).split()
    return sorted(word for word in words if word.lstrip("+").startswith("evaluators."))


def _budget(run: Mapping[str, Any]) -> str:
    """The budget as rows show it; of steps, whose batches differ in size, the examples."""
    kind, value = run["budget"]["kind"], run["budget"]["value"]
    examples = run["budget"].get("examples")
    return f"{value:g} {kind}" + (f" of {examples:,} examples" if kind == "steps" and examples else "")


def _named(group: str, keys: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> str | None:
    """The first of the keys with its two values, None for no key."""
    if not keys:
        return None
    values = " and ".join(str(each.get(keys[0])) for each in settings)
    return f"{group}.{keys[0]} ({values})" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted(a.keys() | b.keys()) if repr(a.get(key)) != repr(b.get(key))]


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in _object(config).items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
