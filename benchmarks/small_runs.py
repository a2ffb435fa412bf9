"""Small runs of run.py, started from the command line, for benchmarks/failures.py."""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssl_zoo.training import checkpoints

ROOT = Path(__file__).parent.parent

STEPS = 40
SAVED_EVERY = 3
RUN = f"logger=csv trainer.accelerator=cpu evaluators=[] budget.steps={STEPS} trainer.checkpoint_every={SAVED_EVERY}"
IMAGES = "backbone=resnet10t +backbone.channels=[16,16,32,32] data.batch_size=32 method.hidden_dim=32"
TEXT = (
    "data=text_folder data.path=texts data.documents=line data.heldout=0.1 data.row_length=16 data.batch_size=8 "
    "data.tokenizer.vocab_size=300 backbone=text_tiny backbone.depth=1 backbone.embed_dim=32"
)
METHODS = {
    "byol": f"{RUN} {IMAGES} method=byol",
    "moco": f"{RUN} {IMAGES} method=moco method.queue_size=128",
    "swav": f"{RUN} {IMAGES} method=swav method.num_prototypes=32",
    "dino": f"{RUN} {IMAGES} method=dino method.num_prototypes=32",
    "mlm": f"{RUN} {TEXT} method=mlm",
}
"""Between them the methods have an EMA teacher, a queue, prototypes, a centre and random masks."""

TRAINING = " of training"
"""End of the line that a run prints before its first step."""


@dataclass
class Ended:
    """How a command ended.

    Attributes:
        status: exit status, -n if killed by signal n.
        printed: stdout and stderr.
        seconds: CPU time.
    """

    status: int
    printed: str
    seconds: float


class Process:
    """Starts `python <launcher> run.py <command>` in the folder `work`; `wait` returns how it ended."""

    def __init__(
        self,
        work: Path,
        command: str | list[str],
        folder: Path | None = None,
        launcher: Sequence[str] = (),
        **environment: str,
    ):
        number, name = tempfile.mkstemp(suffix=".log", dir=work)
        self.log = Path(name)
        words = command.split() if isinstance(command, str) else command
        call = [sys.executable, *launcher, str(ROOT / "run.py"), *words]
        if folder is not None:
            call.append(f"hydra.run.dir={folder}")
        env = {key: value for key, value in os.environ.items() if key != "SSL_ZOO_RUN_ID"}
        env |= {"OMP_NUM_THREADS": "1", "SSL_ZOO_CACHE": str(work / "cache"), **environment}
        self.process = subprocess.Popen(call, cwd=work, env=env, stdout=number, stderr=number)
        os.close(number)

    def printed(self) -> str:
        """Returns the output so far."""
        return self.log.read_text(errors="replace")

    def is_over(self) -> bool:
        """Whether the process has ended."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT  # not reaped, so that `wait` still gets the CPU time
        return os.waitid(os.P_PID, self.process.pid, flags) is not None

    def seconds(self) -> float:
        """Returns the CPU time so far of a running process."""
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def until(self, happened: Callable[[], bool]) -> bool:
        """Waits until `happened` returns true; returns False if the process ended first."""
        while not self.is_over():
            if happened():
                return True
            time.sleep(0.002)
        return False

    def until_training(self) -> bool:
        """Waits until training starts; returns False if the process ended first."""
        return self.until(lambda: TRAINING in self.printed())

    def send(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if not self.is_over():
            os.kill(self.process.pid, number)

    def wait(self) -> Ended:
        """Waits for the end of the process."""
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return Ended(self.process.returncode, self.printed(), usage.ru_utime + usage.ru_stime)


def weights(folder: Path) -> dict[str, Any]:
    """Returns the weights in the last checkpoint of a run folder."""
    return checkpoints.load_checkpoint(checkpoints.resolve_checkpoint(folder))["state_dict"]


def difference(folder: Path, reference: Path) -> str | None:
    """Describes how the weights in two run folders differ, None if they are bit-equal."""
    try:
        found, expected = weights(folder), weights(reference)
    except ValueError as error:
        return f"no weights: {error}"
    names = [name for name, value in expected.items() if not torch.equal(value, found[name])]
    return f"{len(names)} tensors differ from the undisturbed run's, the first is {names[0]}" if names else None


def prepare(work: Path) -> None:
    """Writes small texts for the runs of `mlm`."""
    words, rng = "the movie was great and a bad film that never moved me to tears again".split(), random.Random(0)  # noqa: SIM905
    (work / "texts").mkdir()
    lines = [" ".join(rng.choices(words, k=rng.randint(8, 20))) for _ in range(200)]
    (work / "texts" / "all.txt").write_text("\n".join(lines))


def undisturbed(work: Path, name: str) -> Path:
    """Runs a method of `METHODS` without a failure and returns its folder."""
    folder = work / f"undisturbed-{name}"
    ended = Process(work, METHODS[name], folder).wait()
    if ended.status:
        raise RuntimeError(f"{name} fails without an injected failure: {ended.printed[-2000:]}")
    return folder


def interrupt(run: Process, number: int, folder: Path, step: int, delay: float) -> Ended:
    """Sends a signal `delay` seconds after the run in `folder` has saved a step and started training, if still running.

    Returns:
        How the run ended.
    """
    run.until_training()
    run.until(lambda: last_step(folder) >= step)
    time.sleep(delay)
    run.send(number)
    return run.wait()


def last_step(folder: Path) -> int:
    """Returns the step of the newest checkpoint in a run folder, 0 if there is none."""
    return max((checkpoints.step_of(path) for path in checkpoints.list_checkpoints(folder)), default=0)
