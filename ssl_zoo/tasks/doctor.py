"""`task=doctor`: one table of what runs depend on here (packages, devices, disk, data), and what to fix.

Each check is a function that returns rows. None of them loads data or builds a part, and what is missing or broken
becomes a row. The exit status is 0 whatever the table says: the doctor itself has worked.
"""

import importlib.metadata
import logging
import netrc
import os
import platform
import re
import shutil
import sys
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import yaml
from omegaconf import DictConfig

from ssl_zoo.config import CONF
from ssl_zoo.report import display
from ssl_zoo.training import hardware, transcript
from ssl_zoo.training.credentials import masked_text

log = logging.getLogger(__name__)

OK = "ok"
HUB_SECONDS = 2.0
"""How long the Hub may take to answer."""
SIZE_SECONDS = 2.0
"""How long counting the files of the cache may take."""
LOW_DISK_BYTES = 2 * 10**9
"""Free disk below which a run may not finish: checkpoints take 0.1 to 0.6 GB, prepared data as much."""
LOW_MEMORY_BYTES = 2 * 10**9
LOW_SHARED_BYTES = 10**9
"""Shared memory below which batches of large images may not fit, see `data.image.loaders.check_shared_memory`."""


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        name: what was looked at.
        found: what was found.
        advice: "ok", or what to fix.
    """

    name: str
    found: str
    advice: str = OK


def doctor(cfg: DictConfig, folder: Path) -> None:
    """Prints the table.

    Args:
        cfg: the composed configuration; used for the precision, the logger and data.root.
        folder: the run folder, which receives run.log.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    transcript.write_transcript(folder)
    rows = list(examine(cfg, folder))
    table = Table("", "found", "ok, or what to fix", title="ssl_zoo doctor")
    for row in rows:
        cells = [Text(display.to_plain_text(masked_text(cell)), overflow="fold") for cell in row]
        cells[-1].stylize("green" if row.advice == OK else "yellow")
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    to_fix = [row.name for row in rows if row.advice != OK]
    log.info("to fix: %s", ", ".join(to_fix) or "nothing")


def examine(cfg: DictConfig, folder: Path) -> Iterator[Row]:
    """Runs every check; one that raises becomes a row that says so."""
    checks: dict[str, Callable[[], list[Row]]] = {
        "Python": python_rows,
        "packages": package_rows,
        "devices": lambda: device_rows(str(cfg.trainer.accelerator), cfg.trainer.precision),
        "memory": memory_rows,
        "disk": lambda: disk_rows("disk of the run folder", folder, "hydra.run.dir"),
        "cache": cache_rows,
        "workers": worker_rows,
        "allocator": allocator_rows,
        "wandb": lambda: wandb_rows("wandb" in (cfg.get("logger") or {})),
        "Hub": hub_rows,
        "data": lambda: data_rows(cfg.data.get("root")),
    }
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # of any package or system call: the other checks must still run
            yield Row(name, f"could not be examined ({type(error).__name__}: {error})", "see the message")


def python_rows() -> list[Row]:
    """The interpreter and the operating system."""
    return [Row("Python", f"{platform.python_version()}, {sys.executable}, {platform.platform()}")]


def package_rows() -> list[Row]:
    """The declared dependencies with their versions; one row for each that is missing or outside of its range."""
    from packaging.requirements import Requirement

    fine, wrong = [], []
    for text in _declared():
        requirement = Requirement(text)
        is_optional = requirement.marker is not None
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if is_optional:
                fine.append(f"{requirement.name} not installed (optional)")
            else:
                wrong.append(Row(requirement.name, "not installed", f"pip install '{_range(requirement)}'"))
            continue
        if requirement.specifier.contains(version, prereleases=True):
            fine.append(f"{requirement.name} {version}")
        else:
            wrong.append(Row(requirement.name, f"version {version}", f"pip install '{_range(requirement)}'"))
    return [Row("packages", ", ".join(fine)), *wrong]


def _declared() -> list[str]:
    """The requirements of pyproject.toml in a checkout, else those of the installed package."""
    project = CONF.parent / "pyproject.toml"
    if not project.is_file():
        return importlib.metadata.requires("ssl_zoo") or []
    declared: dict[str, Any] = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    extras = declared.get("optional-dependencies", {}).items()
    return [*declared["dependencies"], *(f"{text}; extra == '{name}'" for name, texts in extras for text in texts)]


def _range(requirement: Any) -> str:
    return f"{requirement.name}{requirement.specifier}"


def device_rows(accelerator: str, precision: str | int) -> list[Row]:
    """The processor, the GPUs, and the precision that a run would choose."""
    import torch

    cores = f"{os.cpu_count()} cores, {len(os.sched_getaffinity(0))} usable" if hasattr(os, "sched_getaffinity") else ""
    rows = [Row("processor", f"{hardware.processor_name()}, {cores or f'{os.cpu_count()} cores'}")]
    has_gpu = torch.cuda.is_available()
    for number in range(torch.cuda.device_count() if has_gpu else 0):
        free, total = torch.cuda.mem_get_info(number)
        rows.append(Row(f"GPU {number}", f"{torch.cuda.get_device_name(number)}, {_gb(free)} of {_gb(total)} free"))
    if not has_gpu:
        built = f"torch {torch.__version__} is built for " + (
            f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs"
        )
        wanted = accelerator in ("gpu", "cuda")
        advice = f"trainer.accelerator={accelerator} needs one: see nvidia-smi, or give trainer=cpu" if wanted else OK
        rows.append(Row("GPU", f"none is visible; {built}", advice))
    device = "cuda" if has_gpu and accelerator in ("auto", "gpu", "cuda") else "cpu"
    chosen, why = hardware.choose_precision(precision, device)
    emulated = "emulated" in why
    return [*rows, Row("precision", f"{chosen} on {device} ({why})", "give trainer.precision=auto" if emulated else OK)]


def memory_rows() -> list[Row]:
    """Available memory, bounded by that of the container."""
    listing = Path("/proc/meminfo")
    if not listing.exists():
        return [Row("memory", _gb(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))]
    kilobytes = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", listing.read_text(), re.M)}
    available, total = 1024 * kilobytes["MemAvailable"], 1024 * kilobytes["MemTotal"]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    found = f"{_gb(available)} of {_gb(total)} available"
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        available = min(available, int(text) - int(used.read_text()))
        found += f"; this container may use {_gb(int(text))}"
    advice = "close other programs, or give a smaller data.batch_size and data.store=mmap"
    return [Row("memory", found, OK if available >= LOW_MEMORY_BYTES else advice)]


def disk_rows(name: str, folder: Path, key: str) -> list[Row]:
    """Free space of the disk on which `folder` is or will be; `key` says how to choose another."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    found = f"{folder}: {_gb(free)} free"
    if not os.access(there, os.W_OK):
        return [Row(name, found, f"{there} cannot be written: give another folder by {key}")]
    return [Row(name, found, OK if free >= LOW_DISK_BYTES else f"free some room, or give a folder elsewhere by {key}")]


def cache_rows() -> list[Row]:
    """Place, size and disk of the cache of prepared data."""
    from ssl_zoo.data.cache import cache_root

    try:
        root = cache_root()
    except ValueError as error:
        return [Row("cache", "no folder", str(error))]
    size, is_complete = _size(root)
    found = f"{root}: {'' if is_complete else 'more than '}{_gb(size)}" if root.exists() else f"{root}: empty"
    return [Row("cache", found), *disk_rows("disk of the cache", root, "the environment variable SSL_ZOO_CACHE")]


def _size(root: Path) -> tuple[int, bool]:
    """Bytes of all files below a folder, and whether there was time to count all of them."""
    end, total = time.monotonic() + SIZE_SECONDS, 0
    for parent, _, names in os.walk(root):
        total += sum(os.lstat(path).st_size for name in names if os.path.lexists(path := os.path.join(parent, name)))
        if time.monotonic() > end:
            return total, False
    return total, True


def worker_rows() -> list[Row]:
    """What processes that load data need: shared memory and open files."""
    rows = []
    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free
        advice = "docker run --shm-size=8g, or data.num_workers=0"
        rows.append(Row("shared memory", f"/dev/shm: {_gb(free)} free", OK if free >= LOW_SHARED_BYTES else advice))
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        found = f"{soft} at most" if soft != resource.RLIM_INFINITY else "without limit"
        rows.append(Row("open files", found, OK if soft >= 1024 or soft < 0 else f"ulimit -n {min(hard, 4096)}"))
    return rows


def allocator_rows() -> list[Row]:
    """Whether `hardware.tune_allocator` has an effect here."""
    library = " ".join(platform.libc_ver()).strip() or "another C library"
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    pages = re.search(r"\[(\w+)\]", huge.read_text()) if huge.exists() else None
    preloaded = os.environ.get("LD_PRELOAD")
    found = f"{library}{', freed memory is kept' if library.startswith('glibc') and not preloaded else ', as it is'}"
    found += f"; huge pages: {pages[1] if pages else 'unknown'}" + (f"; LD_PRELOAD={preloaded}" if preloaded else "")
    return [Row("allocator", found)]


def wandb_rows(is_chosen: bool) -> list[Row]:
    """Whether runs would be uploaded to wandb; without contacting it, and without reading a key."""
    try:
        importlib.metadata.version("wandb")
    except importlib.metadata.PackageNotFoundError:
        return [Row("wandb", "not installed", "pip install wandb, or give logger=csv" if is_chosen else OK)]
    mode = os.environ.get("WANDB_MODE")
    if mode in ("offline", "disabled", "dryrun"):
        return [Row("wandb", f"WANDB_MODE={mode}: nothing is uploaded")]
    host = urllib.parse.urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    if os.environ.get("WANDB_API_KEY"):
        return [Row("wandb", f"logged in to {host} by WANDB_API_KEY")]
    if _has_login(host):
        return [Row("wandb", f"logged in to {host}")]
    found = f"not logged in to {host}: runs are kept offline, in their folders"
    return [
        Row("wandb", found, "wandb login, or WANDB_MODE=offline or logger=csv if that is intended" if is_chosen else OK)
    ]


def _has_login(host: str) -> bool:
    """Whether the user's netrc file has an entry for a host, which is where `wandb login` writes."""
    try:
        path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
        return host in netrc.netrc(str(path)).hosts
    except (OSError, RuntimeError, netrc.NetrcParseError):
        return False


def hub_rows() -> list[Row]:
    """Whether the Hugging Face Hub answers within `HUB_SECONDS`, and whether there is a token for it."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return [Row("Hub", "HF_HUB_OFFLINE is set: only local files are used")]
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    answers = ["no answer"]
    asking = Thread(target=lambda: answers.append(_answer(address)), daemon=True)
    asking.start()
    asking.join(HUB_SECONDS)  # looking up a name has no time limit of its own
    if answers[-1] != OK:
        advice = "check the network and the proxy; without it, put data sets below $SSL_ZOO_DATA"
        return [Row("Hub", f"{address} cannot be reached ({answers[-1]})", advice)]
    from huggingface_hub import get_token

    login = "with a login" if get_token() else "without a login, which some data sets need (hf auth login)"
    return [Row("Hub", f"{address} answers, {login}")]


def _answer(address: str) -> str:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_SECONDS).close()
    except urllib.error.HTTPError:
        return OK  # an answer too
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    return OK


def data_rows(root: str | None) -> list[Row]:
    """The folders that are searched for data, and which choices of conf/data are in them."""
    from ssl_zoo.data.locate import locate

    rows = []
    for name, value in (("data.root", root), ("SSL_ZOO_DATA", os.environ.get("SSL_ZOO_DATA"))):
        if value and not Path(value).expanduser().is_dir():
            rows.append(Row(name, f"{value}: no such folder", f"set {name} to the folder that has your data sets"))
        else:
            rows.append(Row(name, value or "not set"))
    places: dict[str, list[str]] = {"here": [], "built in": [], "to be downloaded": [], "missing": []}
    for file in sorted((CONF / "data").glob("*.yaml")):
        path = str(yaml.safe_load(file.read_text(encoding="utf-8")).get("path", "???"))
        if path == "???":
            continue  # the user's own data
        if path.startswith(("sklearn:", "python:")):
            places["built in"].append(file.stem)
            continue
        try:
            place = "here" if isinstance(locate(path, root), Path) else "to be downloaded"
        except ValueError:  # neither a folder here nor the id of a data set on the Hub
            place = "missing"
        places[place].append(file.stem)
    return [*rows, *(Row(f"data {place}", ", ".join(names) or "none") for place, names in places.items())]


def _gb(count: float) -> str:
    return f"{count / 1e9:,.1f} GB"
