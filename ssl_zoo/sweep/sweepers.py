"""`hydra/sweeper=grid`: one job for each combination of values, with any launcher, and the report at the end."""

import sys
from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig


class GridSweeper(BasicSweeper):
    """Hydra's BasicSweeper, except that the report is written after failed jobs too.

    The launcher writes multirun.yaml: Hydra does before it is known whether the folder belongs to this sweep.
    """

    def sweep(self, arguments: list[str]) -> Any:
        """Launches one job for each point of the grid; exits with status 1 if any failed."""
        assert self.hydra_context is not None  # set by `setup`
        assert self.launcher is not None
        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (jobs,) = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        self.validate_batch_is_legal(jobs)
        ends = self.launcher.launch(jobs, initial_job_idx=0)
        conclude(self.hydra_context, self.config, ends)
        return [ends]


def conclude(context: HydraContext, config: DictConfig, ends: Sequence[JobReturn]) -> None:
    """Calls the callbacks and exits with status 1 if a job has failed; Hydra would call them only if none has.

    Args:
        context: of the sweep.
        config: the configuration of the sweep.
        ends: how each job ended, by any launcher.
    """
    failed = [end for end in ends if end.status == JobStatus.FAILED]
    if not failed:
        return
    unwritten = [end.unwritten for end in failed if getattr(end, "unwritten", None)]
    context.callbacks.on_multirun_end(config=config, config_name=None, unwritten=unwritten)
    titles = ", ".join(getattr(end, "title", None) or " ".join(end.overrides or ()) for end in failed)
    print(f"error: {len(failed)} of {len(ends)} jobs did not complete: {titles}", file=sys.stderr)
    raise SystemExit(1)
