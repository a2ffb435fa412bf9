"""`hydra/sweeper=grid`: one job for each combination of values, with any launcher, and the report at the end."""

import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ssl_zoo.sweep.commands import JobEnd


class ReportingSweeper(Sweeper):
    """Base of the sweepers that write the report whatever their jobs do.

    Args:
        params: overrides of every job, as on the command line, by key.
    """

    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(self, params: Mapping[str, str] | None = None):
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Makes the launcher; called by Hydra before `sweep`."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def parse(self, arguments: Sequence[str]) -> list[Override]:
        """Returns the overrides of the sweep, one per key; that of the command line, if there are two."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        return list({override.get_key_element(): override for override in overrides}.values())


class GridSweeper(ReportingSweeper):
    """As Hydra's BasicSweeper, with two differences.

    A failed job does not end the sweep before the report. The launcher writes multirun.yaml: Hydra does so before it is
    known whether the folder belongs to this sweep.

    Args:
        max_batch_size: not used, see `commands.CommandLauncher.setup`.
        params: overrides of every job.
    """

    def __init__(self, max_batch_size: int | None = None, params: Mapping[str, str] | None = None):
        super().__init__(params)

    def sweep(self, arguments: list[str]) -> Any:
        """Launches one job for each point of the grid; exits with status 1 if any failed."""
        jobs = [list(words) for words in itertools.product(*map(words_of, self.parse(arguments)))]
        self.validate_batch_is_legal(jobs)
        ends = self.launcher.launch(jobs, initial_job_idx=0)
        conclude(self.hydra_context, self.config, ends)
        return [ends]


def words_of(override: Override) -> list[str]:
    """Returns `key=value` for each value of an override. Raises an exception for a range without steps."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise CompactHydraException(
            f"{override.input_line}: a grid needs single values, such as a,b or range(1,5). Of a range without steps, "
            "hydra/sweeper=optuna takes samples"
        )
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


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
    unwritten = [end.unwritten for end in failed if isinstance(end, JobEnd) and end.unwritten]
    context.callbacks.on_multirun_end(config=config, config_name=None, unwritten=unwritten)
    titles = ", ".join(getattr(end, "title", None) or " ".join(end.overrides or ()) for end in failed)
    print(f"error: {len(failed)} of {len(ends)} jobs did not complete: {titles}", file=sys.stderr)
    raise SystemExit(1)
