"""`hydra/sweeper=optuna`: searches for the values with the best objective by Optuna, with any launcher that waits.

The published plug-in, hydra-optuna-sweeper 1.3.0, requires Optuna 2.10 of 2022, and one failed trial ends its study.
Here a failed trial is recorded as failed by Optuna, and the study is a file in the sweep folder that the same command
continues: completed trials count, and those that failed run again with their values.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ssl_zoo.report import results
from ssl_zoo.sweep.job import print_line
from ssl_zoo.sweep.slurm import SlurmLauncher
from ssl_zoo.sweep.sweepers import ReportingSweeper, conclude, words_of

STUDY_NAME = "study.json"


class OptunaSweeper(ReportingSweeper):
    """Runs `trials` jobs, each with values that Optuna's TPE sampler suggests from the results of those before it.

    On the command line, `key=a,b` and `choice(a,b)` are categories, `range(1,5)` numbers at equal steps,
    `interval(0.1,1)` a range, and `tag(log,interval(1e-4,1e-1))` one in logarithms.

    Args:
        params: overrides of every job, with or without ranges.
        trials: number of jobs in all.
        jobs: number of jobs whose values are suggested together; give the launcher the same number.
        direction: "maximize" or "minimize" the metric that `objective` names.
        seed: of the sampler.
    """

    def __init__(self, params: Mapping[str, str] | None, trials: int, jobs: int, direction: str, seed: int):
        super().__init__(params)
        self.trials = trials
        self.jobs = jobs
        self.direction = direction
        self.seed = seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Checks the settings; called by Hydra before `sweep`."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        for key, value in (("trials", self.trials), ("jobs", self.jobs)):
            if value < 1:
                raise CompactHydraException(f"hydra.sweeper.{key}={value}: give 1 or more")
        if self.direction not in ("maximize", "minimize"):
            raise CompactHydraException(f"hydra.sweeper.direction={self.direction}: give maximize or minimize")
        if isinstance(self.launcher, SlurmLauncher):
            raise CompactHydraException(
                "hydra/launcher=slurm does not wait for its jobs, and hydra/sweeper=optuna needs their results. Give "
                "hydra/launcher=process or hydra/launcher=submitit_slurm"
            )
        self.objective = OmegaConf.select(config, "objective")
        if self.objective is None:
            raise CompactHydraException("objective must be given, the metric to optimise, e.g. objective=linear/top1")

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the trials that are not completed and names the best; exits with status 1 if any failed."""
        try:
            import optuna
        except ModuleNotFoundError as error:
            raise CompactHydraException(
                "hydra/sweeper=optuna: not installed. Install it: pip install optuna"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        fixed, space = self._space(arguments)
        file = Path(self.config.hydra.sweep.dir) / STUDY_NAME
        recorded = self._recorded(file, space)
        direction = optuna.study.StudyDirection[self.direction.upper()]
        study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=self.seed))
        ends: list[JobReturn] = []
        for numbers in batches(range(self.trials), self.jobs, lambda number: is_measured(recorded.get(number))):
            first = recorded.get(numbers[0])
            if first is not None and is_measured(first):
                earlier = optuna.trial.create_trial(params=first["params"], distributions=space, value=first["value"])
                study.add_trial(earlier)
                print_line(f"[{numbers[0] + 1}/{self.trials}] completed before: {in_words(first, self.objective)}")
                continue
            asked = []
            for number in numbers:
                if number in recorded:  # again, with its values
                    study.enqueue_trial(recorded[number]["params"])
                asked.append(study.ask(space))
            jobs = [[*fixed, *(f"{key}={as_word(trial.params[key])}" for key in space)] for trial in asked]
            self.validate_batch_is_legal(jobs)
            done = list(self.launcher.launch(jobs, initial_job_idx=numbers[0]))
            for number, trial, end in zip(numbers, asked, done, strict=True):
                value = measured_value(end)
                if value is None:
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                else:
                    study.tell(trial, value)
                recorded[number] = {"params": trial.params, "value": value}
            ends += done
            self._write(file, space, recorded)
        self._name_best(recorded)
        conclude(self.hydra_context, self.config, ends)
        return [ends]

    def _space(self, arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
        """Splits the command line into fixed overrides and Optuna's distributions by key."""
        overrides = self.parse(arguments)
        fixed = [word for override in overrides if not override.is_sweep_override() for word in words_of(override)]
        space = {o.get_key_element(): distribution(o) for o in overrides if o.is_sweep_override()}
        if not space:
            raise CompactHydraException(
                "hydra/sweeper=optuna: there is nothing to search. Give at least one key a range, such as "
                "'optimizer.lr=tag(log,interval(1e-4,1e-1))'"
            )
        return fixed, space

    def _recorded(self, file: Path, space: dict[str, Any]) -> dict[int, dict[str, Any]]:
        """Returns the trials of earlier sessions by number."""
        if not file.exists():
            return {}
        study = json.loads(file.read_text(encoding="utf-8"))
        now = {"objective": self.objective, "space": {key: repr(value) for key, value in space.items()}}
        before = {key: study[key] for key in now}
        if before != now:
            raise CompactHydraException(
                f"{file} is of a study of {before}, where this command has {now}. "
                "Give the study a folder of its own: hydra.sweep.dir=<new folder>"
            )
        return {trial["number"]: trial for trial in study["trials"]}

    def _write(self, file: Path, space: dict[str, Any], recorded: dict[int, dict[str, Any]]) -> None:
        study = {
            "objective": self.objective,
            "space": {key: repr(value) for key, value in space.items()},
            "best": self._best(recorded),
            "trials": [{"number": number, **trial} for number, trial in sorted(recorded.items())],
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        results.write_json(file, study)

    def _best(self, recorded: dict[int, dict[str, Any]]) -> int | None:
        """Returns the number of the best trial, None if none completed."""
        values = {number: trial["value"] for number, trial in recorded.items() if is_measured(trial)}
        choose = max if self.direction == "maximize" else min
        return choose(values, key=lambda number: values[number]) if values else None

    def _name_best(self, recorded: dict[int, dict[str, Any]]) -> None:
        best, completed = self._best(recorded), sum(map(is_measured, recorded.values()))
        if best is None:
            print_line(f"none of {self.trials} trials completed, so there is no best one")
        else:
            found = in_words(recorded[best], self.objective)
            print_line(f"best of {self.trials} trials ({completed} completed): [{best + 1}/{self.trials}] {found}")


def distribution(override: Override) -> Any:
    """Returns Optuna's distribution for the values that an override sweeps over."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        is_whole = isinstance(value.start, int) and isinstance(value.end, int)
        kind: Any = IntDistribution if is_whole else FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    if isinstance(value, RangeSweep):
        values = list(value.range())
        if all(isinstance(each, int) for each in values):
            return IntDistribution(int(min(values)), int(max(values)), step=abs(int(value.step)))
    assert isinstance(value, ChoiceSweep | RangeSweep)
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def batches(numbers: Sequence[int], size: int, is_alone: Any) -> Iterator[list[int]]:
    """Groups consecutive numbers, at most `size` at a time; those that are alone come one by one."""
    for alone, group in groupby(numbers, key=is_alone):
        rest = list(group)
        step = 1 if alone else size
        yield from (rest[i : i + step] for i in range(0, len(rest), step))


def is_measured(trial: dict[str, Any] | None) -> bool:
    """Whether a recorded trial has a value."""
    return trial is not None and trial["value"] is not None


def measured_value(end: JobReturn) -> float | None:
    """Returns the objective of a job, None if it failed or is not a finite number."""
    value = end.return_value if end.status == JobStatus.COMPLETED else None
    return float(value) if isinstance(value, int | float) and abs(value) < float("inf") else None


def in_words(trial: dict[str, Any], objective: str) -> str:
    """Returns a trial in words: its values and its objective."""
    values = " ".join(f"{key}={as_word(value)}" for key, value in trial["params"].items())
    return f"{values}: {objective} {trial['value']:.6g}"


def as_word(value: Any) -> str:
    """Returns a value as it stands on a command line."""
    return value if isinstance(value, str) else repr(value)
