"""Registers the launchers and sweepers of `ssl_zoo/sweep` as Hydra plug-ins."""

from dataclasses import dataclass, field
from typing import Optional

from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.config_store import ConfigStore

from ssl_zoo.sweep import launcher, optuna_study, ray, slurm, sweepers


class ProcessLauncher(launcher.ProcessLauncher):
    """Subclass in this package, the only place where Hydra looks for plug-ins."""


class SlurmLauncher(slurm.SlurmLauncher):
    """Subclass in this package, the only place where Hydra looks for plug-ins."""


class RayLauncher(ray.RayLauncher):
    """Subclass in this package, the only place where Hydra looks for plug-ins."""


class GridSweeper(sweepers.GridSweeper):
    """Subclass in this package, the only place where Hydra looks for plug-ins."""


class OptunaSweeper(optuna_study.OptunaSweeper):
    """Subclass in this package, the only place where Hydra looks for plug-ins."""


@dataclass
class ProcessLauncherConf:
    """Settings of `hydra/launcher=process`."""

    _target_: str = "hydra_plugins.ssl_zoo_launcher.ProcessLauncher"
    module: str = "ssl_zoo.run"  # run as `python -m <module>`
    jobs: int = 1  # number of parallel jobs
    timeout: Optional[float] = None  # noqa: UP045 - maximum minutes per job; OmegaConf does not support `float | None`
    grace: float = 30.0  # seconds between asking a job to stop and killing it


@dataclass
class SlurmLauncherConf:
    """Settings of `hydra/launcher=slurm`."""

    _target_: str = "hydra_plugins.ssl_zoo_launcher.SlurmLauncher"
    module: str = "ssl_zoo.run"  # run as `python -m <module>`
    jobs: Optional[int] = None  # noqa: UP045 - number of parallel jobs, null for no limit
    partition: Optional[str] = None  # noqa: UP045
    account: Optional[str] = None  # noqa: UP045
    gres: Optional[str] = None  # noqa: UP045 - such as gpu:1
    time: Optional[str] = None  # noqa: UP045 - limit of a job, such as 60 (minutes) or 1-12:00:00
    mem: Optional[str] = None  # noqa: UP045 - per node, such as 32G
    cpus: Optional[int] = None  # noqa: UP045 - per task
    nodes: int = 1  # per job
    tasks: int = 1  # per node
    signal: Optional[str] = "USR1@120"  # noqa: UP045 - so many seconds before the limit the run saves and is requeued
    requeue: bool = True  # also after preemption
    extra: list[str] = field(default_factory=list)  # further lines of sbatch, such as --constraint=a100


@dataclass
class RayLauncherConf:
    """Settings of `hydra/launcher=ray`."""

    _target_: str = "hydra_plugins.ssl_zoo_launcher.RayLauncher"
    module: str = "ssl_zoo.run"  # run as `python -m <module>`
    address: Optional[str] = None  # noqa: UP045 - of a cluster, such as auto; null for RAY_ADDRESS or this machine
    cpus: float = 1  # per job
    gpus: float = 0  # per job
    retries: int = 3  # of a job whose worker is lost


@dataclass
class GridSweeperConf(BasicSweeperConf):
    """Settings of `hydra/sweeper=grid`."""

    _target_: str = "hydra_plugins.ssl_zoo_launcher.GridSweeper"


@dataclass
class OptunaSweeperConf:
    """Settings of `hydra/sweeper=optuna`."""

    _target_: str = "hydra_plugins.ssl_zoo_launcher.OptunaSweeper"
    params: Optional[dict[str, str]] = None  # noqa: UP045 - overrides of every job, ranges too
    trials: int = 20  # in all
    jobs: int = 1  # suggested together; give hydra.launcher.jobs the same number
    direction: str = "maximize"  # or minimize
    seed: int = 0  # of the sampler


ConfigStore.instance().store("process", ProcessLauncherConf, group="hydra/launcher", provider="ssl_zoo")
ConfigStore.instance().store("slurm", SlurmLauncherConf, group="hydra/launcher", provider="ssl_zoo")
ConfigStore.instance().store("ray", RayLauncherConf, group="hydra/launcher", provider="ssl_zoo")
ConfigStore.instance().store("grid", GridSweeperConf, group="hydra/sweeper", provider="ssl_zoo")
ConfigStore.instance().store("optuna", OptunaSweeperConf, group="hydra/sweeper", provider="ssl_zoo")
