"""A real Slurm of one node for tests: Debian's packages, unpacked into a cache and started from there.

Nothing is installed and no rights are needed. Slurm runs as the current user, without munge and accounting.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ssl_zoo.sweep.job import _stop_with_parent

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "libmunge2", "libhwloc15", "liblua5.1-0")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ssl_zoo_tests" / "slurm"
# Job numbers start from the port, so that those of two clusters on one machine differ.
CONFIG = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
FirstJobId={ports[0]}00
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
PluginDir={libraries}/slurm-wlm
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=15
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=60 State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes={host} MaxTime=60 State=UP PriorityTier=10
"""


class NoSlurm(RuntimeError):
    """Slurm cannot run here; the message says why."""


@dataclass
class Slurm:
    """A running cluster. `environment` is that of commands which use it; partition `high` preempts `low`."""

    place: Path
    environment: dict[str, str]

    def call(self, *command: str) -> str:
        """Runs a command of Slurm and returns what it prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job, by Slurm's names such as JobState and Restarts."""
        words = self.call("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number: str, *states: str, seconds: float = 120) -> str:
        """Waits until a job is in one of the states, and returns it."""
        found = []

        def is_there() -> bool:
            found.append(self.job(number)["JobState"])
            return found[-1] in states

        until(is_there, seconds, lambda: f"job {number} is {found[-1]}: {self.job(number)}")
        return found[-1]

    def log(self) -> str:
        """What the daemons wrote last."""
        return "".join(path.read_text(errors="replace")[-3000:] for path in sorted(self.place.glob("*.out")))

    def start_again(self, number: str, **changes: str) -> None:
        """Starts a requeued job now; Slurm lets it wait two minutes. `changes` are of its settings.

        The two minutes are there for the processes of its last start, whose end, if reported later than the new start,
        would be taken for that of the new one. So this waits until they are gone.
        """
        self.wait(number, "PENDING")
        until(lambda: not running_steps(number), explain=lambda: f"still running: {running_steps(number)}")
        settings = [f"{key}={value}" for key, value in {"StartTime": "now", **changes}.items()]
        self.call("scontrol", "update", f"JobId={number}", *settings)


def running_steps(number: str) -> list[str]:
    """Names of the steps of a job that slurmstepd runs, such as "slurmstepd-wlm: [11.batch]"."""
    titles = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            titles.append(path.read_text(errors="replace").strip("\0 "))
    return [title for title in titles if re.match(rf"slurmstepd\S*: \[{number}\.", title)]


def until(happened: Callable[[], bool], seconds: float = 120, explain: Callable[[], str] = str) -> None:
    """Waits until something has happened. Raises AssertionError when it does not."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.05)


@contextmanager
def start_slurm(place: Path) -> Iterator[Slurm]:
    """Context manager with a cluster whose files are in `place`; its jobs and daemons end with it.

    Raises:
        NoSlurm: if the packages cannot be had, or the daemons do not start.
    """
    root = unpacked_packages()
    libraries = root / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
    host = socket.gethostname()
    config = place / "slurm.conf"
    for folder in ("state", "spool"):
        (place / folder).mkdir(parents=True)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    config.write_text(CONFIG.format(host=host, ports=free_ports(2), user=user, libraries=libraries, place=place))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
    environment |= {
        "SLURM_CONF": str(config),
        "PATH": f"{root}/usr/bin{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{libraries}/slurm-wlm{os.pathsep}{libraries}",
    }
    slurm = Slurm(place, environment)
    programs = root / "usr" / "sbin"
    commands = {
        "slurmctld": [str(programs / "slurmctld-wlm"), "-D", "-c"],
        "slurmd": [str(programs / "slurmd-wlm"), "-D", "-N", host, "-d", str(programs / "slurmstepd-wlm")],
    }
    daemons = []
    try:
        for name, command in commands.items():
            with (place / f"{name}.out").open("wb") as out:
                daemons.append(
                    subprocess.Popen(command, env=environment, stdout=out, stderr=out, preexec_fn=_stop_with_parent)
                )
        wait_until_idle(slurm, daemons)
        yield slurm
    finally:
        if all(daemon.poll() is None for daemon in daemons):
            end_jobs(slurm)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def unpacked_packages() -> Path:
    """The folder with Slurm's files; downloaded at the first call. Raises NoSlurm."""
    root = CACHE / "root"
    if root.is_dir():
        return root
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise NoSlurm(f"there is no {program} to download Slurm's packages with")
    made = CACHE / f"new-{os.getpid()}"
    made.mkdir(parents=True)
    try:
        download = ["apt-get", "download", *PACKAGES]
        if subprocess.run(download, cwd=made, capture_output=True, check=False).returncode:
            subprocess.run(["apt-get", "update"], capture_output=True, check=False)
            done = subprocess.run(download, cwd=made, capture_output=True, text=True, check=False)
            if done.returncode:
                raise NoSlurm(f"Slurm's packages cannot be downloaded: {done.stderr.strip().splitlines()[-1:]}")
        for package in made.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package.name, "root"], cwd=made, check=True)
        if not root.is_dir():  # another process may have been faster
            os.replace(made / "root", root)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return root


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_until_idle(slurm: Slurm, daemons: list[subprocess.Popen[bytes]]) -> None:
    """Waits until the node takes jobs. Raises NoSlurm, with the ends of the logs, if it does not in 30 s."""
    deadline = time.monotonic() + 30
    ask = ["sinfo", "--noheader", "--partition=low", "--format=%T"]
    while True:
        done = subprocess.run(ask, env=slurm.environment, capture_output=True, text=True, check=False)
        if done.stdout.strip() == "idle":
            return
        if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in daemons):
            logs = [path.read_text(errors="replace")[-500:] for path in sorted(slurm.place.glob("*.out"))]
            raise NoSlurm(f"Slurm does not start here: {done.stdout}{done.stderr}{''.join(logs)}")
        time.sleep(0.1)


def end_jobs(slurm: Slurm) -> None:
    """Ends all jobs, so that none outlives the daemons."""
    if not (jobs := slurm.call("squeue", "--noheader", "--format=%A").split()):
        return
    subprocess.run(["scancel", "--signal=KILL", "--full", *jobs], env=slurm.environment, check=False)
    subprocess.run(["scancel", *jobs], env=slurm.environment, check=False)
    deadline = time.monotonic() + 20
    while slurm.call("squeue", "--noheader", "--format=%A") and time.monotonic() < deadline:
        time.sleep(0.1)
