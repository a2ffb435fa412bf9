"""Replaces what is "auto" in a configuration by what the data suggests, and says what was found and picked."""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, read_write

from ssl_zoo.build import build_method, build_views, data_module, literal
from ssl_zoo.config import AUTO_KEYS
from ssl_zoo.data.picks import SIDES, Findings, Pick, format_lines, format_picks, pick_budget

log = logging.getLogger(__name__)


def pick_data(
    cfg: DictConfig, given: Sequence[str], choices: Any, recorded: Mapping[str, Any] | None = None
) -> Findings | None:
    """Surveys the data and picks what is "auto" in `cfg.data`, and the views of tiny grey images.

    What the user gives is never changed. Every process of a run picks the same.

    Args:
        cfg: the composed configuration; modified in place.
        given: overrides from the command line, "key=value".
        choices: names of the chosen files by group.
        recorded: the configuration of the run that goes on; what was picked for it is taken again, without a survey.

    Returns:
        What was found, without lines if nothing had to be read; None where nothing was left to pick.

    Raises:
        ValueError: for data that is missing or cannot be used.
    """
    names = [key.removeprefix("data.") for key in AUTO_KEYS]
    is_open = [name for name in names if cfg.data.get(name) == "auto"]
    for name in is_open:
        if recorded is not None and name in recorded.get("data", {}):
            cfg.data[name] = literal(recorded["data"][name])
    found = None
    if any(cfg.data.get(name) == "auto" for name in is_open) or cfg.data.get("check"):
        found = _survey(cfg)
        _say("", *format_lines(found.lines))
        if found.problems and not cfg.data.get("check"):
            raise ValueError(found.problems[0])
        for pick in found.picks:
            cfg.data[pick.key.removeprefix("data.")] = literal(pick.value)
    elif is_open:
        found = Findings([], [], [], 0)
        _say("picked before by this run: " + ", ".join(f"data.{name}={cfg.data[name]}" for name in is_open))
    views = _pick_views(cfg, given, choices) if is_open else []
    if found is not None and found.lines:
        _say("", *format_picks([*found.picks, *views]))
    return found


def _survey(cfg: DictConfig) -> Findings:
    """What the data of `cfg` is."""
    import hydra

    from ssl_zoo.data.image.survey import survey_images
    from ssl_zoo.data.text.survey import survey_texts
    from ssl_zoo.training import environment

    settings: Any = OmegaConf.to_container(cfg.data, resolve=True)
    uses_labels = getattr(hydra.utils.get_object(cfg.method._target_), "uses_labels", False)
    if "image_size" in settings:
        return survey_images(settings, environment.device_type(cfg.trainer.accelerator) == "cuda", uses_labels)
    return survey_texts(settings, _cuts_windows(cfg), uses_labels)


def _cuts_windows(cfg: DictConfig) -> bool:
    """Whether the views cut documents, so that each of them is a training example."""
    views = OmegaConf.to_container(cfg)["views"]  # type: ignore[index, call-overload]
    if isinstance(views, str):  # views=auto
        views = OmegaConf.to_container(cfg.get("paper_views", {}).get("text", {}))
    return "ssl_zoo.views.text.Windows" in str(views)


def _pick_views(cfg: DictConfig, given: Sequence[str], choices: Any) -> list[Pick]:
    """Chooses the views of digits for grey images of their size, unless views or an experiment were chosen."""
    is_tiny = cfg.data.get("in_chans") == 1 and cfg.data.image_size <= SIDES[0]
    chosen = any(argument.startswith("views") for argument in given) or choices.get("experiment")
    if not is_tiny or chosen or choices["views"] != "auto" or "digits" not in cfg.get("paper_views", {}):
        return []
    cfg.views = "${paper_views.digits}"
    with read_write(choices):
        choices["views"] = "auto_digits"
    return [Pick("views", "auto_digits", "grey and tiny: no flips and no large rotations, as for digits")]


def pick_run_budget(
    cfg: DictConfig,
    given: Sequence[str],
    choices: Any,
    found: Findings | None,
    recorded: Mapping[str, Any] | None = None,
) -> None:
    """Picks `cfg.budget` where neither the command line nor an experiment gives one, by the FLOPs of an example.

    Args:
        cfg: the configuration after `pick_data` and a dry run; modified in place.
        given: see `pick_data`.
        choices: see `pick_data`.
        found: what `pick_data` returned.
        recorded: see `pick_data`.
    """
    if any(argument.lstrip("+").startswith("budget") for argument in given) or choices.get("experiment"):
        return
    if found is not None and not found.lines and recorded is not None:
        cfg.budget = recorded["budget"]
    if found is None or not found.picks:
        return
    from ssl_zoo.training import environment
    from ssl_zoo.training.budget import flops_per_example

    data, method = _stand_in(cfg, 8)
    flops = flops_per_example(method, data, data.batch())
    device = environment.device_type(cfg.trainer.accelerator)
    pick = pick_budget(found.num_train, cfg.data.batch_size, flops, device, found.is_exact)
    kind = pick.key.removeprefix("budget.")
    cfg.budget = {name: pick.value if name == kind else None for name in cfg.budget}
    _say(*format_picks([pick]))


def _stand_in(cfg: DictConfig, batch_size: int) -> tuple[Any, Any]:
    """Noise in place of the data, and the method, both as `cfg` describes them."""
    from ssl_zoo.data.stand_in import StandIn

    expected = cfg.copy()
    expected.facts = data_module(cfg).expected_facts
    is_text = expected.facts["modality"] == "text"
    length = (cfg.data.max_length if _cuts_windows(cfg) else cfg.data.row_length) if is_text else 1
    level = logging.root.manager.disable
    logging.disable(logging.INFO)  # each part logs what it is when it is built for the run
    try:
        method = build_method(expected)
        return StandIn(expected.facts, build_views(expected)[0], batch_size, length), method
    finally:
        logging.disable(level)


def report_only(cfg: DictConfig, given: Sequence[str], choices: Any, folder: Path) -> None:
    """`data.check=true`: the survey, the picks and the duration of a run, which is not started.

    Args:
        cfg: the composed configuration.
        given: see `pick_data`.
        choices: see `pick_data`.
        folder: that Hydra made for the run; removed if it is empty.
    """
    from ssl_zoo.dry_run import dry_run

    try:
        found = pick_data(cfg, given, choices)
        assert found is not None
        dry_run(cfg)
        pick_run_budget(cfg, given, choices, found)
        _say("", _describe_duration(cfg, found))
        for problem in found.problems:
            _say(f"a run would stop: {problem}")
        _say("data.check=true: nothing was trained or written. The same command without it starts the run")
    finally:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _describe_duration(cfg: DictConfig, found: Findings) -> str:
    """The training time of the budget, from a timed batch."""
    from fractions import Fraction

    import torch

    from ssl_zoo.training import environment, hardware
    from ssl_zoo.training.budget import flops_per_example, resolve_budget
    from ssl_zoo.training.estimate import format_duration, seconds_per_example

    device = environment.device_type(cfg.trainer.accelerator)
    precision, _ = hardware.choose_precision(cfg.trainer.precision, device)
    hardware.prepare_torch(device, precision)
    kinds = {"bf16": torch.bfloat16, "16-m": torch.float16}

    def autocast() -> AbstractContextManager[Any]:
        dtype = kinds.get(str(precision)[:4])
        return nullcontext() if dtype is None else torch.autocast(device, dtype)

    per_step = cfg.data.batch_size * cfg.trainer.accumulate_grad_batches
    data, method = _stand_in(cfg, cfg.data.batch_size)
    raw = data.batch()
    flops = flops_per_example(method, data, raw)
    steps_per_epoch = Fraction(found.num_train // cfg.data.batch_size, cfg.trainer.accumulate_grad_batches)
    budget = resolve_budget(dict(cfg.budget), steps_per_epoch, per_step, flops * per_step)
    if budget.steps is None:
        return f"training takes the {budget} of the budget"
    on = torch.device(device)
    seconds = seconds_per_example(method.to(on), data, raw, cfg.data.batch_size, on, autocast)
    duration = format_duration(seconds * per_step * budget.steps)
    return f"training takes about {duration} here: {budget}, {flops / 1e9:.3g} GFLOP per example"


def _say(*lines: str) -> None:
    """Logs on the first process only."""
    if int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0:
        for line in lines:
            log.info(line)
