"""Writes the report at the end of a sweep, whatever the launcher was."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from ssl_zoo.sweep.commands import sweep_name


class WriteReport(Callback):
    """Hydra callback that compares the runs in the sweep folder and writes the report there.

    Args:
        across: compare rows, too, that differ in data, evaluation, views or budget.
    """

    def __init__(self, across: bool = False):
        self.across = across

    def on_multirun_end(self, config: DictConfig, unwritten: Sequence[dict[str, Any]] = (), **_: Any) -> None:
        """Prints and writes the report, and says how to make it again once queued jobs have ended.

        Args:
            config: the configuration of the sweep.
            unwritten: results, each with its "folder", that replace those in the folder or could not be written to it.
            **_: what else Hydra passes on.
        """
        from ssl_zoo.report import display, report, tables  # late, because Hydra imports this module at every start

        sweep = Path(config.hydra.sweep.dir)
        command = f"python -m ssl_zoo.report {shlex.quote(str(sweep))}{' --across' * self.across}"
        try:
            written = tables.load_runs([sweep])
        except ValueError:  # no folder, or no run in it
            written = []
        replaced = {record["folder"] for record in unwritten}
        runs = [run for run in written if run["folder"] not in replaced]
        runs += [{**display.to_plain_text(record), "folder": record["folder"]} for record in unwritten]
        if not runs:
            print(f"{sweep}: no job has any results yet, so there is no report. Once there are: {command}", flush=True)
            return
        made = report.report_of(runs, across=self.across)
        try:
            report.write_report(made, sweep)
        except OSError as error:  # the comparison was printed
            print(f"error: the report could not be written to {sweep}: {error}", file=sys.stderr)
            raise SystemExit(1) from error
        if project := wandb_project(config):
            from ssl_zoo.report.wandb_report import send_to_wandb

            send_to_wandb(made, sweep, project, group=sweep_name(sweep))
        print(f"To make it again, for example after jobs that are still queued: {command}", flush=True)


def wandb_project(config: DictConfig) -> str | None:
    """The project of wandb that the jobs log to; None if wandb is not among their loggers."""
    loggers = OmegaConf.select(config, "logger") or {}
    if not OmegaConf.is_dict(loggers):
        return None
    return next(
        (str(one.project) for one in loggers.values() if one and str(one.get("_target_", "")).endswith(".Wandb")), None
    )
