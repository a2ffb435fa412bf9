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
        try:
            report.write_report(report.report_of(runs, across=self.across), sweep)
        except OSError as error:  # the comparison was printed
            print(f"error: the report could not be written to {sweep}: {error}", file=sys.stderr)
            raise SystemExit(1) from error
        _upload_report(config, sweep)
        print(f"To make it again, for example after jobs that are still queued: {command}", flush=True)


def _upload_report(config: DictConfig, sweep: Path) -> None:
    """Gives wandb the report as an artifact of a run of its own, in the group of the sweep, if `artifacts` is set."""
    about = OmegaConf.select(config, "logger.wandb")
    if about is None or not about.get("artifacts"):
        return
    from ssl_zoo.training.loggers import Wandb

    group = sweep_name(sweep)
    wandb = Wandb(sweep, about.project, f"report-{group}", group, "report", artifacts=True)
    wandb.log_artifact(f"report-{group}", "report", sorted(sweep.glob("report.*")))
    wandb.finish()
