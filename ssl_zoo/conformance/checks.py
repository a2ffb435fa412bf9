"""What every method must satisfy, as functions from a subject to findings. Tolerances: `TOLERANCE`, and none where two
results must be equal bit for bit. Letters: B examples in the global batch.
"""

import copy
import io
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from ssl_zoo.conformance import processes
from ssl_zoo.conformance.subjects import RAGGED, SIZE, Subject
from ssl_zoo.distributed import all_reduce_mean, gather_batch_norm, rank, world_size
from ssl_zoo.method import Batch, Method

TOLERANCE = 2e-5
"""Of what several processes find, relative to the largest gradient, or to the largest entry of a buffer."""
ROUNDING_TOLERANCE = 1e-3
"""The most that is granted where results hang on rounding; what is not shared makes more of a difference."""
NUDGES = 32
"""Draws of rounding errors that are tried where the results differ by more than `TOLERANCE`."""
COMPILED_TOLERANCE = 1e-4
"""Of the loss and the gradients of a compiled method, relative in the same way: kernels sum in another order."""
SEED, TOTAL, LR = 1, 8, 0.05  # of the weights; steps that a run here pretends to have; the rate of plain SGD


class Finding(NamedTuple):
    """One thing looked at. seen: the number that must not exceed `tolerance`, where there is one; failure: "" if fine,
    else what is wrong and what to do."""

    check: str
    subject: str
    failure: str = ""
    seen: float | None = None
    tolerance: float | None = None


def within(check: str, subject: Subject, seen: float, tolerance: float, advice: str) -> Finding:
    """A finding that fails, with `advice`, if `seen` exceeds `tolerance` or is NaN."""
    return Finding(check, subject.name, "" if seen <= tolerance else advice, seen, tolerance)


def findings_table(findings: Sequence[Finding]) -> Table:
    """The findings to print."""
    shown = Table("subject", "check", "seen", "tolerance", "result")
    for finding in findings:
        numbers = ["" if x is None else f"{x:.3g}" for x in (finding.seen, finding.tolerance)]
        shown.add_row(finding.subject, finding.check, *numbers, finding.failure or "pass")
    return shown


def failures(findings: Sequence[Finding]) -> str:
    """One line for each finding that failed; "" if none did."""
    return "\n".join(f"{f.subject}: {f.check}: {f.failure} (seen {f.seen})" for f in findings if f.failure)


def advance(method: Method, optimizer: torch.optim.Optimizer, batch: Batch, number: int) -> Tensor:
    """Step `number` as the Learner and DistributedDataParallel take it; the loss, mean over the processes."""
    torch.manual_seed(int(np.random.SeedSequence((0, number, rank())).generate_state(1)[0]))
    progress = number / TOTAL
    optimizer.zero_grad()
    loss = method(batch, progress)["loss"]
    loss.backward()
    if world_size() > 1:
        for parameter in method.parameters():
            if parameter.grad is not None:
                parameter.grad = all_reduce_mean(parameter.grad)
    optimizer.step()
    with torch.no_grad():
        method.after_step(progress)
    return all_reduce_mean(loss.detach())


def trainable(method: Method) -> list[torch.nn.Parameter]:
    return [p for p in method.parameters() if p.requires_grad]


def sgd(method: Method) -> torch.optim.Optimizer:
    """Plain, since a step of Adam makes a large difference of a tiny one."""
    return torch.optim.SGD(trainable(method), lr=LR)


# ---------------------------------------------------------------------------------------------------------- one step


def step(subject: Subject) -> list[Finding]:
    """One step in float32 and in bf16, with a view more than needed, and with multi-crop: the loss is finite, every
    parameter that trains gets a gradient, no other does, and the encoder moves.

    Multi-crop, two global views and two of half their side, is for methods that compare views of images.
    """
    findings = _one_step(subject, "step in float32", (), False) + _one_step(subject, "step in bf16", (), True)
    if all(kind == "image" for kind in subject.views):
        findings += _one_step(subject, "step with one view more", (SIZE,), False)
        if len(subject.views) == 2:
            findings += _one_step(subject, "step with multi-crop", (SIZE // 2,) * 2, False)
    return findings


def _one_step(subject: Subject, check: str, more: tuple[int, ...], bf16: bool) -> list[Finding]:
    method = subject.build(SEED)
    before = copy.deepcopy(method.encoder.state_dict())
    optimizer = sgd(method)
    for number in (0, TOTAL // 2):  # some parameters rest at first
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = advance(method, optimizer, subject.batch(number, more), number)
        parameters = list(method.named_parameters())
        without = [name for name, p in parameters if p.requires_grad and p.grad is None]
        with_one = [name for name, p in parameters if not p.requires_grad and p.grad is not None]
        bad = [name for name, p in parameters if p.grad is not None and not p.grad.isfinite().all()]
        for wrong in (
            f"the loss is {loss.item()}" * (not loss.isfinite()),
            f"no gradient for {_some(without)}, which DistributedDataParallel refuses: leave out what the loss does "
            "not use, or give it a gradient of zero" * bool(without),
            f"a gradient for {_some(with_one)}, which does not train" * bool(with_one),
            f"a gradient of {_some(bad)} is not finite" * bool(bad),
        ):
            if wrong:
                return [Finding(check, subject.name, f"step {number}: {wrong}")]
    after = method.encoder.state_dict()
    moved = any(not torch.equal(before[name], after[name]) for name, _ in method.encoder.named_parameters())
    return [Finding(check, subject.name, "" if moved else "the encoder does not move")]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# ------------------------------------------------------------------------------------------------ two processes, one

Record = dict[str, np.ndarray]
"""What a step did: "loss", "gradient <name>" and "state <name>"."""


def records(subject: Subject, nudge: int | None = None) -> list[Record]:
    """Two steps, this process with its share of each batch; queues and centres matter in the second, whose texts are of
    all lengths, so that the processes hold different numbers of tokens.

    nudge: number of a draw of weights that differ by rounding; None: the weights as they are.
    """
    method = subject.build(SEED)
    if nudge is not None:
        generator = torch.Generator().manual_seed(nudge)
        with torch.no_grad():
            for parameter in method.parameters():
                signs = torch.randint(-1, 2, parameter.shape, generator=generator)
                parameter.mul_(1 + torch.finfo(torch.float32).eps * signs)
    if world_size() > 1:
        gather_batch_norm(method)
    optimizer, found = sgd(method), []
    for number, lengths in ((TOTAL // 4, None), (TOTAL // 2, RAGGED)):
        views, labels, indices = subject.batch(number, lengths=lengths)
        batch = Batch([_share(view) for view in views], _share(labels), _share(indices))
        record = {"loss": advance(method, optimizer, batch, number)}
        record |= {f"gradient {name}": p.grad for name, p in method.named_parameters() if p.grad is not None}
        record |= {f"state {name}": value for name, value in method.state_dict().items()}
        found.append({name: value.detach().numpy().copy() for name, value in record.items()})
    return found


@lru_cache(maxsize=1)  # each of a subject's processes is compared with them
def nudged_records(subject: Subject) -> list[list[Record]]:
    """`records` of NUDGES draws of rounding errors."""
    return [records(subject, nudge) for nudge in range(NUDGES)]


def _share(x: Tensor) -> Tensor:
    return x.chunk(world_size())[rank()]


def records_of(subjects: Sequence[Subject]) -> list[list[Record] | str]:
    """`records` of each; what went wrong, where something did, since one broken method must not hide the others."""
    found: list[list[Record] | str] = []
    for subject in subjects:
        try:
            found.append(records(subject))
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def two_processes(subjects: Sequence[Subject]) -> list[Finding]:
    """Two processes with B/2 examples each do what one does with B: loss, gradient, and all that is remembered.

    Dropout is off; random draws are seeded differently in each process, as in training. All subjects share two
    processes, for starting them is what takes time.
    """
    shared = processes.run(2, records_of, list(subjects))
    findings = []
    for subject, alone, *both in zip(subjects, records_of(subjects), *shared, strict=True):
        for number, found in enumerate(both):
            if isinstance(alone, str) or isinstance(found, str):
                findings.append(Finding("two processes", subject.name, str(alone if isinstance(alone, str) else found)))
            else:
                findings += _compare(subject, alone, found, f"rank {number}")
    return findings


def _compare(subject: Subject, alone: list[Record], found: list[Record], process: str) -> list[Finding]:
    """Losses, gradients and states. Where rounding alone makes a large difference, as in the inverse of a covariance,
    the tolerance is a hundred times that of one unit in the last place, the largest of NUDGES draws, and at most
    `ROUNDING_TOLERANCE`. Where rounding decides, as whether a ReLU is on, it must decide as in one of the draws.
    """
    errors = largest_differences(alone, found)
    tolerances = dict.fromkeys(errors, TOLERANCE)
    if any(error > TOLERANCE for error, _ in errors.values()):
        nudged = nudged_records(subject)
        roundings = [largest_differences(alone, one) for one in nudged]
        for sort in errors:
            rounding = max(differences[sort][0] for differences in roundings)
            tolerances[sort] = min(max(TOLERANCE, 100 * rounding), ROUNDING_TOLERANCE)
        if any(error > tolerances[sort] for sort, (error, _) in errors.items()):
            candidates = [errors, *(largest_differences(one, found) for one in nudged)]
            errors = min(candidates, key=lambda differences: max(error for error, _ in differences.values()))
    advice = (
        "differs from one process. Negatives, statistics and queues must be those of the global batch "
        "(functional.all_gather, all_reduce_mean), a mean must be over equally many terms in each process, and draws "
        "must be shared (functional.rand_rows, broadcast)"
    )
    return [
        within(f"two processes, {sort}, {process}", subject, error, tolerances[sort], f"{name} {advice}")
        for sort, (error, name) in errors.items()
    ]


def largest_differences(alone: list[Record], found: list[Record]) -> dict[str, tuple[float, str]]:
    """For loss, gradient and state the largest difference over both steps, relative, and where it is."""
    worst = {sort: (0.0, "") for sort in ("loss", "gradient", "state")}
    for one, two in zip(alone, found, strict=True):
        if different := one.keys() ^ two.keys():
            return dict.fromkeys(worst, (math.inf, _some(sorted(different))))
        largest = max(float(abs(value).max()) for name, value in one.items() if name.startswith("gradient"))
        floors = {"loss": 0.1, "gradient": largest, "state": max(0.01, LR * largest)}
        for name, value in one.items():
            sort, exact = name.split(" ")[0], value.astype(np.float64)
            difference = float(abs(two[name] - exact).max(initial=0))
            error = difference / max(floors[sort], float(abs(exact).max(initial=0)))
            if not error <= worst[sort][0]:  # NaN counts as worst
                worst[sort] = (error, name)
    return worst


# -------------------------------------------------------------------------------------------------- labels and resume


def labels(subject: Subject) -> list[Finding]:
    """Wrong labels leave the losses of two steps as they are, unless the method says that it uses them."""
    if subject.build(SEED).uses_labels:
        return []
    garbage = torch.arange(len(subject.batch(0).labels)).flip(0) % 7 - 1
    losses = []
    for wrong in (False, True):
        method = subject.build(SEED)
        optimizer = sgd(method)
        batches = [subject.batch(number) for number in range(2)]
        batches = [batch._replace(labels=garbage) for batch in batches] if wrong else batches
        losses.append([advance(method, optimizer, batch, number) for number, batch in enumerate(batches)])
    difference = max(abs(float(a - b)) for a, b in zip(*losses, strict=True))
    advice = "other labels give another loss: declare uses_labels = True, or do not read them"
    return [within("labels unused", subject, difference, 0, advice)]


def resume(subject: Subject) -> list[Finding]:
    """Two steps, a checkpoint, and two more in a new process's method equal four steps, bit for bit."""
    straight, losses = _started(subject, SEED), []
    for number in range(4):
        losses.append(advance(*straight, subject.batch(number), number))
        if number == 1:
            file = io.BytesIO()
            torch.save([part.state_dict() for part in straight], file)
    file.seek(0)
    resumed = _started(subject, SEED + 1)
    weights, moments = torch.load(file, weights_only=True)
    resumed[0].load_state_dict(weights)
    resumed[1].load_state_dict(moments)
    again = [advance(*resumed, subject.batch(number), number) for number in (2, 3)]
    one, two = straight[0].state_dict(), resumed[0].state_dict()
    wrong = [name for name in one if not torch.equal(one[name], two[name])]
    if not all(map(torch.equal, losses[2:], again)):
        wrong.insert(0, "the loss")
    advice = f"{_some(wrong)} of a resumed run differs: what lasts longer than a step must be a buffer or parameter"
    return [Finding("resume", subject.name, advice if wrong else "")]


def _started(subject: Subject, seed: int) -> tuple[Method, torch.optim.Optimizer]:
    method = subject.build(seed)
    return method, torch.optim.AdamW(trainable(method), lr=1e-3)


# ----------------------------------------------------------------------------------------------------------- compiled


def compiled(subject: Subject, backend: str = "aot_eager") -> list[Finding]:
    """torch.compile changes neither the loss nor the gradients of one step."""
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    for prepare in (None, lambda method: method.compile(backend=backend)):
        method: Any = subject.build(SEED)
        if prepare is not None:
            prepare(method)
        loss = advance(method, sgd(method), subject.batch(0), TOTAL // 2)
        found.append((loss, {name: p.grad for name, p in method.named_parameters() if p.grad is not None}))
    torch.compiler.reset()
    (loss, gradients), (again, others) = found
    largest = max(float(g.abs().max()) for g in gradients.values())
    error = max(float((gradients[name] - others[name]).abs().max()) / largest for name in gradients)
    error = max(error, abs(float(again - loss)) / max(0.1, abs(float(loss))))
    advice = "the compiled method computes something else"
    return [within(f"compiled ({backend})", subject, error, COMPILED_TOLERANCE, advice)]


EACH: tuple[Callable[[Subject], list[Finding]], ...] = (step, labels, resume)
"""The checks that take milliseconds and look at one subject."""
