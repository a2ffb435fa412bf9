"""Registers the launcher and the sweeper of `ssl_zoo/sweep/launcher.py` as Hydra plug-ins."""

from dataclasses import dataclass
from typing import Optional

from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.config_store import ConfigStore

from ssl_zoo.sweep import launcher


class ProcessLauncher(launcher.ProcessLauncher):
    """Subclass in this package, the only place where Hydra looks for plug-ins."""


class GridSweeper(launcher.GridSweeper):
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
class GridSweeperConf(BasicSweeperConf):
    """Settings of `hydra/sweeper=grid`."""

    _target_: str = "hydra_plugins.ssl_zoo_launcher.GridSweeper"


ConfigStore.instance().store("process", ProcessLauncherConf, group="hydra/launcher", provider="ssl_zoo")
ConfigStore.instance().store("grid", GridSweeperConf, group="hydra/sweeper", provider="ssl_zoo")
