"""From the command line to a configuration: what a run is, and a user's mistakes explained with the nearest right name.

No torch is imported here, so that a mistake is named in less than a second.
"""

import difflib
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from ssl_zoo import settings
from ssl_zoo.training import cluster
from ssl_zoo.training.credentials import masked

STARTED = time.time()
"""When this process began, in seconds since 1970."""
PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"  # installed, or a checkout
TASKS = sorted(file.stem for file in (PACKAGE / "tasks").glob("[a-z]*.py"))
AUTO_KEYS = ("data.batch_size", "data.image_size", "data.in_chans", "data.label_column", "data.mean", "data.std",
             "data.text_column")  # fmt: skip
"""Keys that may be "auto", which `auto.pick_data` replaces by what the data suggests."""
SEVERAL_KINDS = ("backbone.pretrained", "budget.", "data.splits.train", "trainer.devices", "trainer.precision")
"""Beginnings of keys of which the default shows one kind of several; the part that they belong to checks them."""
NAMES_CODE = ("trainer.callbacks", "trainer.plugins", "trainer.strategy")
"""Beginnings of keys whose values may name code, by `_target_`; a run reads them from its command line alone."""
FREE_TEXT: dict[str, tuple[str, ...]] = {
    "text": (),
    "query": ("null",),
    **dict.fromkeys(("name", "checkpoint", "encoder", "probe", "push"), ("null",)),
    **dict.fromkeys(("data.path", "data.root", "data.name", "data.tokenizer.name"), ("null",)),
    **dict.fromkeys(("hydra.run.dir", "hydra.sweep.dir"), ("",)),
    "backbone.pretrained": ("null", "true", "false"),
}
"""Keys whose values are texts or paths, taken as they stand, each with the values that are none."""
TEXTS = ("text", "checkpoint", "encoder", "probe", "query", "format", "push", "name", "objective", "story")
"""Keys whose values are texts or null."""
PLUGINS = {
    "submitit_slurm": "hydra-submitit-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "joblib": "hydra-joblib-launcher",
    "rq": "hydra-rq-launcher",
    "ax": "hydra-ax-sweeper",
    "nevergrad": "hydra-nevergrad-sweeper",
}
"""Launchers and sweepers of others, and the packages that bring them."""
_SWEEP = re.compile(r"(choice|range|interval|glob|sort|shuffle)\(")


@dataclass(frozen=True)
class Run:
    """What a run is: the names of its parts, its seed and its configuration, with credentials masked.

    Attributes:
        experiment: the name of the row it belongs to in a report, None if the parts' names say it all.
        method, backbone, data: the names in tables.
        seed: None if the configured one is no whole number.
        run_id: what tells runs of the same second apart; the same in all processes of a run.
        overrides: the words on the command line.
        config: the composed configuration, not resolved, without the facts of the data.
        choices: the file that was chosen in each group of `conf/`.
    """

    experiment: str | None
    method: str
    backbone: str
    data: str
    seed: int | None
    run_id: str
    overrides: list[str]
    config: dict[str, Any]
    choices: dict[str, str]

    @classmethod
    def of(cls, cfg: DictConfig) -> "Run":
        """Describes the run that `cfg` configures, inside of Hydra's main function."""
        choices = HydraConfig.get().runtime.choices
        config: Any = OmegaConf.to_container(cfg)
        config.pop("facts")
        return cls(
            experiment=masked(cfg.name or choices.get("experiment")),
            method=choices["method"],
            backbone=masked(cfg.backbone.get("name", choices["backbone"])),
            data=choices["data"],
            seed=cfg.seed if isinstance(cfg.seed, int) else None,
            run_id=os.environ["SSL_ZOO_RUN_ID"],
            overrides=masked([str(o) for o in HydraConfig.get().overrides.task]),
            config=masked(config),
            choices=dict(choices),
        )

    def record(self) -> dict[str, Any]:
        """Its keys in results.json."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "choices"}


@contextmanager
def shipped_conf() -> Iterator[None]:
    """`hydra.compose` reads `conf/` inside, whatever other Hydra application is running."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().hydra = None  # its search path may have the user's own folders
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = running


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ', did you mean a or b?' with the known names closest to `name`, or '.' when none is close."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f", did you mean {' or '.join(close)}?" if close else "."


def quoted(argument: str, is_sweep: bool = False) -> str:
    """`key=value` with the value quoted for Hydra where it is free text or a path (`FREE_TEXT`); others as is.

    Hydra's grammar would stumble over `[MASK]`, `=`, parentheses, `#` or a letter beyond ASCII, and read 2024 as a
    number. A `~` at the beginning of a path is the home folder, as in a shell. What is quoted already, null, and
    several values of a sweep stay as they are.
    """
    key, is_given, value = argument.partition("=")
    words = FREE_TEXT.get(key.lstrip("+"))
    if words is None or not is_given or value[:1] in ("'", '"') or value.lower() in words:
        return argument
    if is_sweep and key not in ("text", "query") and ("," in value or _SWEEP.match(value)):
        return argument
    return f"{key}={quote(value if key in ('text', 'query') else os.path.expanduser(value))}"


def quote(value: str) -> str:
    """`value` as a quoted string of Hydra's grammar, whatever it holds; interpolations in it stay such."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value) + "'"


def dotted_keys(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every key of a nested mapping in dotted form, inner ones included, with its value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat[prefix + str(key)] = value
        if isinstance(value, Mapping):
            flat |= dotted_keys(value, f"{prefix}{key}.")
    return flat


def check_key(key: str, value: Any, default: Mapping[str, Any]) -> None:
    """Raises ValueError for a key that no value on the command line can serve.

    default: the configuration without those values, in dotted keys. A key that is new below a part is checked by that
    part; at the top nothing would read it.
    """
    top = key.partition(".")[0]
    if top not in default:
        raise ValueError(f"{key}: no such key{nearest(top, {name.partition('.')[0] for name in default})}")
    if top == "facts":
        raise ValueError(f"{key}: facts is what the data turned out to be, filled in by the run. Leave it out")
    inner = dotted_keys(value) if isinstance(value, Mapping) else {}
    names_code = any(part.startswith("_") for name in (key, *inner) for part in name.split("."))
    if names_code and not key.startswith(NAMES_CODE):
        raise ValueError(
            f"{key}: which code runs is not set key by key. Choose a part by its name, such as method=byol or "
            "data=folder; code of your own is named in a file of your own below conf/"
        )


def check_type(key: str, value: Any, default: Any) -> None:
    """Raises ValueError if `value` is of another kind than the default it replaces.

    A default of null or "auto" accepts anything; an integer does for a float. Not checked here: an interpolation
    ("${...}"), "auto" for one of `AUTO_KEYS`, and what takes values of several kinds.
    """
    unchecked = (
        default in (None, "auto")
        or value is None
        or (key in AUTO_KEYS and value == "auto")
        or any(isinstance(v, str) and "${" in v for v in (value, default))
    )
    if unchecked or key.startswith(SEVERAL_KINDS):
        return
    for kind, accepted in ((bool, bool), (int, int), (float, int | float), (str, str), (list, list), (dict, dict)):
        if isinstance(default, kind):
            if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"{key}={value} must be of type {kind.__name__}, like its default {default}")
            return


def explain(error: Exception, conf: Path) -> str:
    """A complaint of Hydra or OmegaConf about the command line in one line, with the nearest right names.

    conf: the configuration folder, whose files are what a name may stand for.
    """
    message = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: not of the form key=value, or its brackets or quotes do not match ({message}). A value "
            "with spaces, brackets, quotes or letters beyond ASCII is quoted twice, for the shell and for Hydra: "
            """'key="value"'"""
        )
    if isinstance(error, MissingConfigException) and (
        missing := re.search(r"hydra/(launcher|sweeper)[/=]'?(\w+)", f"{error.missing_cfg_file} {message}")
    ):
        group, wrong = f"hydra/{missing[1]}", missing[2]
        if wrong in PLUGINS:
            return f"{group}={wrong}: not installed. Install it: pip install {PLUGINS[wrong]}"
        shipped = {"launcher": ("process", "slurm", "ray", "basic"), "sweeper": ("grid", "optuna", "basic")}[missing[1]]
        return f"{group}={wrong}: no such choice{nearest(wrong, [*shipped, *PLUGINS])} There are: {', '.join(shipped)}"
    if isinstance(error, MissingConfigException):
        group, _, wrong = str(error.missing_cfg_file).rpartition("/")
        if there := sorted(file.stem for file in (conf / group).glob("*.yaml")):
            return f"{group}={wrong}: no such choice{nearest(wrong, there)} There are: {', '.join(there)}"
    if match := re.search(r"Could not override '([^']+)'", message):
        wrong = match.group(1)
        known = {group.name for group in conf.iterdir() if group.is_dir()} | set(
            dotted_keys(_load(conf / "config.yaml"))
        )
        choices = {
            file: {f"{file.parent.name}.{key}" for key in dotted_keys(_load(file))} for file in conf.glob("*/*.yaml")
        }
        if having := sorted(file.stem for file, keys in choices.items() if wrong in keys):
            group = wrong.partition(".")[0]
            return f"{wrong}: the chosen {group} has no such key. It belongs to {group}={', '.join(having)}"
        known = known.union(*choices.values())
        return f"{wrong}: no such key{nearest(wrong, known)} A new key is added by +{wrong}=..."
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} must be given, e.g. {error.full_key}=..."
    if "Config group override must be" in message:
        return "a group cannot be null: give the name of a file below conf/, such as logger=csv, or evaluators=[]"
    return message


def _load(file: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text())
    return content if isinstance(content, dict) else {}


def check_config(cfg: DictConfig) -> None:
    """Refuses what composes but cannot run: unknown tasks, wrong types, several processes without a common folder."""
    if cfg.task not in TASKS:
        raise ValueError(f"task={cfg.task}: no such task{nearest(str(cfg.task), TASKS)} There are: {', '.join(TASKS)}")
    is_folder_given = any(str(o).startswith("hydra.run.dir=") for o in HydraConfig.get().overrides.hydra)
    if not cluster.is_folder_shared() and not is_folder_given and HydraConfig.get().mode == RunMode.RUN:
        raise ValueError("hydra.run.dir is not set: the processes of a run must share its folder")
    given = [str(o) for o in HydraConfig.get().overrides.task]
    groups = [o for o in given if (CONF / o.split("=")[0].lstrip("+~").split("@")[0]).is_dir()]
    values = [o.split("=")[0].lstrip("+~") for o in given if o not in groups]
    # The default's type is a key's schema: compose once more without the values, and compare.
    composed, default = (dotted_keys(OmegaConf.to_container(c)) for c in (cfg, hydra.compose("config", groups)))  # type: ignore[arg-type]
    for key in values:
        check_key(key, composed.get(key), default)
        check_type(key, composed.get(key), default.get(key))
    for key, value in composed.items():
        if value == "???":
            raise ValueError(f"{key} must be given, e.g. {key}=...")
    for key, hint in {"seed": int, **dict.fromkeys(TEXTS, str | None)}.items():
        settings.check_setting(key, cfg[key], hint)
    if cfg.objective is not None and cfg.objective.partition("/")[0] not in (cfg.evaluators or {}):
        measured = ", ".join(f"{name}/..." for name in cfg.evaluators or {}) or "nothing"
        raise ValueError(f"objective={cfg.objective}: these evaluators measure {measured}. Name one of their metrics")
    budgets = [key for key in values if key.startswith("budget.")]
    if budgets:  # a budget on the command line replaces the default one
        cfg.budget = {kind: value if f"budget.{kind}" in budgets else None for kind, value in cfg.budget.items()}
    for key, value, least, most in (
        ("seed", cfg.seed, 0, 2**32 - 1),
        ("data.batch_size", cfg.data.batch_size, 1, 2**31),
    ):
        if key in AUTO_KEYS and value == "auto":
            continue
        if not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{key}={value}: give a whole number from {least} to {most}")
