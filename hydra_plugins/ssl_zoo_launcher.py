"""Where Hydra looks for plug-ins: the launcher and the sweeper of `ssl_zoo/sweep/launcher.py`, by name."""

from dataclasses import dataclass
from typing import Optional

from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.config_store import ConfigStore

from ssl_zoo.sweep import launcher


class ProcessLauncher(launcher.ProcessLauncher):
    """Hydra takes plug-ins from this package only."""


class GridSweeper(launcher.GridSweeper):
    """Hydra takes plug-ins from this package only."""


@dataclass
class ProcessLauncherConf:
    """Settings of `hydra/launcher=process`."""

    _target_: str = "hydra_plugins.ssl_zoo_launcher.ProcessLauncher"
    module: str = "ssl_zoo.run"  # run as `python -m <module>`
    jobs: int = 1  # how many at once
    timeout: Optional[float] = None  # noqa: UP045 - minutes a job may take; OmegaConf does not read `float | None`
    grace: float = 30.0  # seconds between asking a job to stop and killing it


@dataclass
class GridSweeperConf(BasicSweeperConf):
    """Settings of `hydra/sweeper=grid`."""

    _target_: str = "hydra_plugins.ssl_zoo_launcher.GridSweeper"


ConfigStore.instance().store("process", ProcessLauncherConf, group="hydra/launcher", provider="ssl_zoo")
ConfigStore.instance().store("grid", GridSweeperConf, group="hydra/sweeper", provider="ssl_zoo")
