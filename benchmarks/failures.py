"""Failure scenarios for benchmarks/reliability.py: what can go wrong for a run, and how it must end.

Each scenario takes an empty working folder and the command-line options. It returns counts and one message per case
that did not end as docs/reliability.md specifies.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.small_runs import (
    METHODS,
    ROOT,
    SAVED_EVERY,
    STEPS,
    Ended,
    Process,
    difference,
    interrupt,
    last_step,
    undisturbed,
)
from ssl_zoo.report import results
from ssl_zoo.training import checkpoints

Found = tuple[dict[str, Any], list[str]]
"""Counts, and a message per case that did not end as specified."""

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL, signal.SIGUSR1,
           signal.SIGKILL, signal.SIGKILL, signal.SIGINT)  # fmt: skip


def sample(cases: Iterable[Any], options: argparse.Namespace) -> list[Any]:
    """Returns all cases, or a random sample of `options.cases` of them."""
    cases = list(cases)
    return random.Random(options.seed).sample(cases, min(options.cases or len(cases), len(cases)))


def kills(work: Path, options: argparse.Namespace) -> Found:
    """Stops runs twice by signals at random steps, then lets the same command finish them."""
    rng, names = random.Random(options.seed), list(METHODS)[-1:] if options.kills == 1 else list(METHODS)
    counts = {"signals": 0, "of them SIGKILL": 0, "survived": 0, "runs": 0, "bit-equal": 0}
    problems: list[str] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        whole = dict(zip(names, pool.map(lambda name: undisturbed(work, name), names), strict=True))
        order = itertools.cycle(SIGNALS)

        def victim(job: tuple[int, list[tuple[int, float]]]) -> tuple[list[int], str | None]:
            """Returns the signals that reached the run and an error message, None if it ended as specified."""
            number, moments = job
            name, folder, reached = names[number % len(names)], work / f"victim-{number}", []
            for sent, share in moments:
                # The moment is a step, not a time, because runs take between a second and half a minute.
                steps = range(last_step(folder), STEPS - 3, SAVED_EVERY)
                step = steps[int(share * len(steps))] if steps else STEPS
                run = Process(work, METHODS[name], folder)
                ended = interrupt(run, sent, folder, step, delay=share * len(steps) % 1 * 0.02)
                if results.is_complete(folder):
                    break  # the run completed before the signal arrived
                reached.append(sent)
                if ended.status != (-sent if sent == signal.SIGKILL else 128 + sent):
                    return reached, f"{name}: exit status {ended.status} after signal {sent}: {ended.printed[-500:]}"
            ended = Process(work, METHODS[name], folder).wait()
            wrong = f"exit status {ended.status}: {ended.printed[-500:]}" if ended.status else None
            wrong = wrong or difference(folder, whole[name])
            return reached, f"{name} after signals {reached}: {wrong}" if wrong else None

        # Signals may reach runs that are complete, so further runs are started until enough have arrived.
        for started in itertools.count():
            missing = options.kills - counts["signals"]
            if missing <= 0 or started == 5:
                break
            sizes = [min(2, missing - 2 * i) for i in range((missing + 1) // 2)]
            jobs = [
                (counts["runs"] + i, [(next(order), rng.random()) for _ in range(size)]) for i, size in enumerate(sizes)
            ]
            for reached, problem in pool.map(victim, jobs):
                counts["runs"] += 1
                counts["signals"] += len(reached)
                counts["of them SIGKILL"] += reached.count(signal.SIGKILL)
                counts["survived"] += 0 if problem else len(reached)
                counts["bit-equal"] += problem is None
                problems += [problem] if problem else []
    return counts, problems


DISK = 32 * 2**20
MOMENTS = ("before the start", "at the first step", "after the first save", "after the last save")
ROOM = (0, 6_000, 0.5, 1.5)
"""Free space on the disk: bytes (int) or a fraction of a checkpoint (float)."""


def can_mount() -> bool:
    """Whether a small tmpfs can be mounted in a user namespace."""
    call = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(ROOT)]
    return bool(shutil.which("unshare")) and not subprocess.run(call, capture_output=True, check=False).returncode


def fill(place: Path, room: int) -> None:
    """Fills the disk up to `room` bytes of free space."""
    with (place / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):  # another process was faster
        while (more := shutil.disk_usage(place).free - room) > 0:
            file.write(bytes(min(more, 2**20)))


def dishonest(ended: Ended, folder: Path, reference: Path) -> str | None:
    """Returns how the exit status of a run on a full disk contradicts its results, None if it does not."""
    try:
        completed = results.read_results(folder)["status"] == "completed"
    except (OSError, ValueError):
        completed = False
    if "Traceback" in ended.printed:
        return f"a traceback: {ended.printed[-1500:]}"
    if ended.status == 0:
        return difference(folder, reference) if completed else "exit status 0 of a run that is not completed"
    return f"exit status {ended.status} of a completed run" if completed else None


def disk(work: Path, options: argparse.Namespace) -> Found:
    """Fills the disk at different moments with different free space, then frees it and repeats the command."""
    is_mount, reference = "SSL_ZOO_OWN_MOUNTS" in os.environ, undisturbed(work, "byol")
    size = checkpoints.resolve_checkpoint(reference).stat().st_size

    def case(job: tuple[int, str, float]) -> tuple[str | None, str | None]:
        number, moment, left = job
        place, room = work / f"disk-{number}", round(left * size) if isinstance(left, float) else left
        place.mkdir()
        if is_mount:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)], check=True)
        folder, saved = place / "run", place / "run" / "checkpoints"
        early = moment == MOMENTS[0]
        if early and is_mount:
            fill(place, room)
        run = Process(work, METHODS["byol"], folder)
        if not early:
            step = {MOMENTS[1]: None, MOMENTS[2]: 3, MOMENTS[3]: 40}[moment]
            run.until_training() if step is None else run.until((saved / f"step-{step:08d}.ckpt").exists)
        if not is_mount and not run.is_over():  # without a tmpfs: limit the file size
            resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (room, room))
        elif not early:
            fill(place, room)
        wrong = dishonest(run.wait(), folder, reference)
        (place / "filler").unlink(missing_ok=True)
        again = Process(work, METHODS["byol"], folder).wait()
        after = f"exit status {again.status}: {again.printed[-800:]}" if again.status else difference(folder, reference)
        where = f"full {moment}, {room:,} bytes left"
        return wrong and f"{where}: {wrong}", after and f"{where}, then room again: {after}"

    jobs = [(i, *pair) for i, pair in enumerate(sample(itertools.product(MOMENTS, ROOM), options))]
    with ThreadPoolExecutor(options.jobs) as pool:
        ended = list(pool.map(case, jobs))
    problems = [problem for pair in ended for problem in pair if problem]
    counts = {"cases": len(jobs), "honest": sum(not wrong for wrong, _ in ended)}
    counts["finished once there was room"] = sum(not after for _, after in ended)
    return counts | {"by": "a small tmpfs" if is_mount else "RLIMIT_FSIZE"}, problems


def _replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in random.Random(len(data)).sample(range(len(data)), 3):
        data[place] ^= 0x80
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "flipped": _flip,
    "a directory": _replace_by_directory,
    "removed": Path.unlink,
}
FILES = ("newest", "older", "both", "config.json", "results.json", "metrics.jsonl", "tokenizer.json")
"""Files to damage; the first three are checkpoints."""


def try_damage(work: Path, state: Path, reference: Path, file: str, kind: str) -> tuple[bool, bool, str | None]:
    """Damages a file in a copy of the run folder `state` and repeats the command.

    Returns:
        Whether the run continued, whether the output names the file, and an error message, None if it ended as
        specified.
    """
    folder = work / f"damaged-{state.name}-{file}-{kind}".replace(" ", "-")
    shutil.copytree(state, folder)
    saved = checkpoints.list_checkpoints(folder)
    paths = {"newest": saved[-1:], "older": saved[:1], "both": saved}.get(file) or [folder / file]
    for path in paths:
        DAMAGE[kind](path)
    ended = Process(work, METHODS["mlm"], folder).wait()
    named = any(path.name in ended.printed for path in paths)
    wrong = f"a traceback: {ended.printed[-1500:]}" if "Traceback" in ended.printed else None
    if ended.status == 0:
        wrong = wrong or difference(folder, reference)
        if not wrong and "resumed from" not in ended.printed and "is complete" not in ended.printed:
            wrong = f"started again without a message: {ended.printed[:500]}"
    elif not named:
        wrong = wrong or f"refused without naming the file: {ended.printed[-500:]}"
    shutil.rmtree(folder)
    return ended.status == 0, named, wrong and f"{state.name}, {file} {kind}: {wrong}"


def report_of_damaged(work: Path, whole: dict[str, Any]) -> tuple[int, int, list[str]]:
    """Reports over one intact run and many with damaged results; returns the numbers of damaged and named ones."""
    sweep, damaged = work / "sweep", []
    results.write_results(_make(sweep / "sound"), whole)
    contents = [b"", b"{", b"\xff\xfe", b"{}", b"NaN", b"[" * 100_000, json.dumps(whole).encode()[:-9]]
    for key, value in itertools.product(whole, (None, -1, "x", [], {}, 10**400)):
        contents.append(json.dumps(whole | {key: value}).encode())
    for number, content in enumerate(contents):
        file = _make(sweep / f"run-{number:03d}") / results.RESULTS_NAME
        file.write_bytes(content)
        try:
            results.read_results(file)
        except ValueError:
            damaged.append(file)
    call = [sys.executable, "-m", "ssl_zoo.report", str(sweep)]
    ended = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    page = (sweep / "report.html").read_text() if (sweep / "report.html").exists() else ""
    unnamed = [file for file in damaged if file.parent.name not in page]
    problems = [f"report: {file.parent.name} is not named" for file in unnamed]
    if ended.returncode:
        problems.append(f"report: exit status {ended.returncode}: {ended.stderr[-500:]}")
    return len(damaged), len(damaged) - len(unnamed), problems


def _make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def damaged(work: Path, options: argparse.Namespace) -> Found:
    """Damages each file of a completed and of an interrupted run in each way and repeats the command."""
    reference = undisturbed(work, "mlm")
    completed, interrupted = work / "completed", work / "interrupted"
    shutil.copytree(reference, completed)
    run = Process(work, METHODS["mlm"], interrupted)
    run.until((interrupted / "checkpoints" / "step-00000018.ckpt").exists)
    run.send(signal.SIGTERM)
    run.wait()
    # Excluded, because deleting all checkpoints is the documented way to start a run again.
    every = itertools.product((completed, interrupted), FILES, DAMAGE)
    jobs = sample([job for job in every if job[1:] != ("both", "removed")], options)
    with ThreadPoolExecutor(options.jobs) as pool:
        ended = list(pool.map(lambda job: try_damage(work, job[0], reference, *job[1:]), jobs))
    number, named, problems = report_of_damaged(work, results.read_results(reference))
    counts = {
        "cases": len(jobs),
        "went on to the same weights": sum(went_on and not wrong for went_on, _, wrong in ended),
        "refused by the file's name": sum(not went_on and not wrong for went_on, _, wrong in ended),
        "named": sum(named for _, named, _ in ended),
        "results.json in a report": number,
        "named in the report": named,
    }
    return counts, [wrong for _, _, wrong in ended if wrong] + problems


def gadgets(work: Path, options: argparse.Namespace) -> Found:
    """Loads checkpoints whose configuration names code, by `task=fill_mask` and by a run that starts from them."""
    from tests.training import test_card as card

    folder = undisturbed(work, "mlm")
    honest = {**checkpoints.load_checkpoint(checkpoints.resolve_checkpoint(folder)), "folder": folder}

    def commands(trap: Path, checkpoint: str) -> Iterable[Ended]:
        environment = {"WANDB_API_KEY": card.SECRET, "PYTHONPATH": str(trap)}
        fill_mask = ["task=fill_mask", f"checkpoint={checkpoint}", "text=a [MASK]"]
        start = [*METHODS["mlm"].split(), "budget.steps=1", f"checkpoint={checkpoint}"]
        for name, words in (("fill", fill_mask), ("start", start)):
            yield Process(work, words, trap / name, **environment).wait()

    def one(name: str) -> tuple[bool, bool, list[str]]:
        """Returns whether a gadget ran, whether a secret was printed, and all error messages."""
        trap = _make(work / f"trap-{abs(hash(name))}")
        card.set_trap(trap)
        path, value = card.GADGETS[name]
        card.altered(honest, path, card.armed(value, trap), trap / "untrusted")
        ended = list(commands(trap, str(trap / "untrusted")))
        printed = "".join(end.printed for end in ended)
        wrong = [f"exit status {end.status}: {end.printed[-800:]}" for end in ended if end.status not in (0, 2)]
        wrong += [f"a traceback: {end.printed[-800:]}" for end in ended if "Traceback" in end.printed]
        ran, shown = (trap / "ran").exists(), card.SECRET in printed
        wrong += ["it ran"] * ran + ["a secret was printed"] * shown
        return ran, shown, [f"{name}: {line}" for line in wrong]

    # An unchanged checkpoint must be accepted.
    control = [end.printed[-500:] for end in commands(_make(work / "control"), str(folder)) if end.status]
    with ThreadPoolExecutor(options.jobs) as pool:
        ended = list(pool.map(one, sample(card.GADGETS, options)))
    problems = [f"a harmless checkpoint is refused: {printed}" for printed in control]
    problems += [line for _, _, wrong in ended for line in wrong]
    counts = {"gadgets": len(ended), "commands": 2 * len(ended), "run": sum(ran for ran, _, _ in ended)}
    return counts | {"secrets printed": sum(shown for _, shown, _ in ended)}, problems


def wrong_commands() -> list[tuple[str, str]]:
    """Returns the lines of wrong_commands.txt: a command and what its error message must contain."""
    lines = (ROOT / "benchmarks" / "wrong_commands.txt").read_text().splitlines()
    return [(line.split(" => ")[0].strip(), line.split(" => ")[1].strip()) for line in lines if " => " in line]


def try_command(work: Path, number: int, command: str, name: str) -> tuple[float, str | None]:
    """Returns the CPU time until a wrong command is refused, and an error message unless the refusal is clear."""
    words = [word.replace("\\x20", " ") for word in command.split()]
    quick = [word for word in ("logger=csv", "trainer.accelerator=cpu") if word.split("=")[0] not in command]
    folder = None if "hydra.run.dir" in command else work / f"command-{number}"
    ended = Process(work, [*quick, *words], folder).wait()
    last = (ended.printed.strip().splitlines() or ["nothing was printed"])[-1]
    clear = ended.status == 2 and name in ended.printed and "Traceback" not in ended.printed
    return ended.seconds, None if clear else f"{command}: exit status {ended.status}: {last}"


def commands(work: Path, options: argparse.Namespace) -> Found:
    """Runs wrong commands and compares their CPU time to that of a valid one up to its first step."""
    right = Process(work, METHODS["byol"], work / "right")
    right.until_training()
    start = right.seconds()
    right.wait()
    jobs = [(work, number, *pair) for number, pair in enumerate(sample(wrong_commands(), options))]
    with ThreadPoolExecutor(options.jobs) as pool:
        ended = list(pool.map(lambda job: try_command(*job), jobs))
    seconds, problems = sorted(took for took, _ in ended), [wrong for _, wrong in ended if wrong]
    counts = {"commands": len(ended), "clear": len(ended) - len(problems), "CPU s of a right start": round(start, 1)}
    counts |= {"median": round(seconds[len(seconds) // 2], 1), "slowest": round(seconds[-1], 1)}
    return counts, problems
