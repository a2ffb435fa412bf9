"""Checks that every method must pass, as functions from a subject to findings.

The tolerance is `TOLERANCE`, or zero where two results must be equal bit for bit. Letters: B examples, global batch.
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
"""Tolerance between several processes and one, relative to the largest gradient or the largest entry of a buffer."""
ROUNDING_TOLERANCE = 1e-3
"""Maximum tolerance where rounding dominates; statistics of one process instead of all cause larger differences."""
NUM_PERTURBATIONS = 32
"""Number of random rounding errors that are tried where results differ by more than `TOLERANCE`."""
COMPILED_TOLERANCE = 1e-4
"""Relative tolerance for the loss and the gradients of a compiled method, whose kernels sum in another order."""
SEED = 1
"""Seed of the weights."""
TOTAL_STEPS = 8
"""Nominal length of a run, from which `progress` is computed."""
LEARNING_RATE = 0.05
"""Learning rate of plain SGD."""


class Finding(NamedTuple):
    """Result of one check.

    Attributes:
        check: name of the check.
        subject: name of the subject.
        failure: "" if the check passed, else what is wrong and how to fix it.
        seen: the measured number, which must not exceed `tolerance`, if there is one.
        tolerance: its upper bound.
    """

    check: str
    subject: str
    failure: str = ""
    seen: float | None = None
    tolerance: float | None = None


def within(check: str, subject: Subject, seen: float, tolerance: float, advice: str) -> Finding:
    """A finding that fails, with `advice`, if `seen` exceeds `tolerance` or is NaN."""
    return Finding(check, subject.name, "" if seen <= tolerance else advice, seen, tolerance)


def findings_table(findings: Sequence[Finding]) -> Table:
    """A table of the findings to print."""
    table = Table("subject", "check", "seen", "tolerance", "result")
    for finding in findings:
        numbers = ["" if x is None else f"{x:.3g}" for x in (finding.seen, finding.tolerance)]
        table.add_row(finding.subject, finding.check, *numbers, finding.failure or "pass")
    return table


def failures(findings: Sequence[Finding]) -> str:
    """One line per finding that failed; "" if all passed."""
    return "\n".join(f"{f.subject}: {f.check}: {f.failure} (seen {f.seen})" for f in findings if f.failure)


def train_step(method: Method, optimizer: torch.optim.Optimizer, batch: Batch, number: int) -> Tensor:
    """Takes step `number` as the Learner with DistributedDataParallel does; returns the loss, mean over processes."""
    torch.manual_seed(int(np.random.SeedSequence((0, number, rank())).generate_state(1)[0]))
    progress = number / TOTAL_STEPS
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


def trainable_parameters(method: Method) -> list[torch.nn.Parameter]:
    """The parameters that require a gradient."""
    return [p for p in method.parameters() if p.requires_grad]


def plain_sgd(method: Method) -> torch.optim.Optimizer:
    """Plain SGD, because Adam turns tiny differences of gradients into large differences of weights."""
    return torch.optim.SGD(trainable_parameters(method), lr=LEARNING_RATE)


# ---------------------------------------------------------------------------------------------------------- one step


def step(subject: Subject) -> list[Finding]:
    """Steps in float32, in bf16, with an additional view, and with multi-crop.

    The loss must be finite, exactly the trainable parameters must get a gradient, and the encoder must change.
    Multi-crop (two global views and two of half their side) is checked for methods that compare two views of images.
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
    optimizer = plain_sgd(method)
    for number in (0, TOTAL_STEPS // 2):  # some parameters are frozen at first
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = train_step(method, optimizer, subject.batch(number, more), number)
        parameters = list(method.named_parameters())
        missing = [name for name, p in parameters if p.requires_grad and p.grad is None]
        unexpected = [name for name, p in parameters if not p.requires_grad and p.grad is not None]
        not_finite = [name for name, p in parameters if p.grad is not None and not p.grad.isfinite().all()]
        for wrong in (
            f"the loss is {loss.item()}" * (not loss.isfinite()),
            f"no gradient for {_first_names(missing)}, which DistributedDataParallel refuses: leave out what the loss "
            "does not use, or give it a gradient of zero" * bool(missing),
            f"a gradient for {_first_names(unexpected)}, which does not train" * bool(unexpected),
            f"a gradient of {_first_names(not_finite)} is not finite" * bool(not_finite),
        ):
            if wrong:
                return [Finding(check, subject.name, f"step {number}: {wrong}")]
    after = method.encoder.state_dict()
    moved = any(not torch.equal(before[name], after[name]) for name, _ in method.encoder.named_parameters())
    return [Finding(check, subject.name, "" if moved else "the encoder does not move")]


def _first_names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# ------------------------------------------------------------------------------------------------ two processes, one

Record = dict[str, np.ndarray]
"""The results of a step: "loss", "gradient <name>" and "state <name>"."""


def record_steps(subject: Subject, perturbation: int | None = None) -> list[Record]:
    """Takes two steps, with this process's share of each batch.

    Queues and centres matter in the second step; its texts have different lengths, so that the processes hold different
    numbers of tokens.

    Args:
        subject: the method to train.
        perturbation: seed of random rounding errors of the weights; None for none.
    """
    method = subject.build(SEED)
    if perturbation is not None:
        generator = torch.Generator().manual_seed(perturbation)
        with torch.no_grad():
            for parameter in method.parameters():
                signs = torch.randint(-1, 2, parameter.shape, generator=generator)
                parameter.mul_(1 + torch.finfo(torch.float32).eps * signs)
    if world_size() > 1:
        gather_batch_norm(method)
    optimizer, found = plain_sgd(method), []
    for number, lengths in ((TOTAL_STEPS // 4, None), (TOTAL_STEPS // 2, RAGGED)):
        views, labels, indices = subject.batch(number, lengths=lengths)
        batch = Batch([_share(view) for view in views], _share(labels), _share(indices))
        record = {"loss": train_step(method, optimizer, batch, number)}
        record |= {f"gradient {name}": p.grad for name, p in method.named_parameters() if p.grad is not None}
        record |= {f"state {name}": value for name, value in method.state_dict().items()}
        found.append({name: value.detach().numpy().copy() for name, value in record.items()})
    return found


@lru_cache(maxsize=1)  # used for each process of a subject
def perturbed_records(subject: Subject) -> list[list[Record]]:
    """`record_steps` for each of NUM_PERTURBATIONS random rounding errors of the weights."""
    return [record_steps(subject, perturbation) for perturbation in range(NUM_PERTURBATIONS)]


def _share(x: Tensor) -> Tensor:
    return x.chunk(world_size())[rank()]


def record_all(subjects: Sequence[Subject]) -> list[list[Record] | str]:
    """`record_steps` of each subject; the error message for a method that fails, so that the others are checked."""
    found: list[list[Record] | str] = []
    for subject in subjects:
        try:
            found.append(record_steps(subject))
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def two_processes(subjects: Sequence[Subject]) -> list[Finding]:
    """Two processes with B / 2 examples each must equal one with B, in loss, gradient and state.

    Dropout is off; random numbers are seeded differently in each process, as in training. All subjects share two
    processes, because starting a process is slow.
    """
    shared = processes.run_processes(2, record_all, list(subjects))
    findings = []
    for subject, alone, *both in zip(subjects, record_all(subjects), *shared, strict=True):
        for number, found in enumerate(both):
            if isinstance(alone, str) or isinstance(found, str):
                findings.append(Finding("two processes", subject.name, str(alone if isinstance(alone, str) else found)))
            else:
                findings += _compare_records(subject, alone, found, f"rank {number}")
    return findings


def _compare_records(subject: Subject, alone: list[Record], found: list[Record], process: str) -> list[Finding]:
    """Compares losses, gradients and states of several processes with those of one.

    Where rounding errors are amplified, as in the inverse of a covariance, the tolerance is a hundred times the maximum
    effect of NUM_PERTURBATIONS random rounding errors of one unit in the last place, and at most `ROUNDING_TOLERANCE`.
    Where rounding decides between cases, such as the sign of the input of a ReLU, the results must equal those of one
    of the perturbations.
    """
    errors = largest_differences(alone, found)
    tolerances = dict.fromkeys(errors, TOLERANCE)
    if any(error > TOLERANCE for error, _ in errors.values()):
        perturbed = perturbed_records(subject)
        roundings = [largest_differences(alone, one) for one in perturbed]
        for kind in errors:
            rounding = max(differences[kind][0] for differences in roundings)
            tolerances[kind] = min(max(TOLERANCE, 100 * rounding), ROUNDING_TOLERANCE)
        if any(error > tolerances[kind] for kind, (error, _) in errors.items()):
            candidates = [errors, *(largest_differences(one, found) for one in perturbed)]
            errors = min(candidates, key=lambda differences: max(error for error, _ in differences.values()))
    advice = (
        "differs from one process. Negatives, statistics and queues must be those of the global batch "
        "(distributed.all_gather, all_reduce_mean), a mean must be over equally many terms in each process, and random "
        "numbers must be shared (distributed.rand_rows, broadcast)"
    )
    return [
        within(f"two processes, {kind}, {process}", subject, error, tolerances[kind], f"{name} {advice}")
        for kind, (error, name) in errors.items()
    ]


def largest_differences(alone: list[Record], found: list[Record]) -> dict[str, tuple[float, str]]:
    """The largest relative difference over both steps, and its name, for each of loss, gradient and state."""
    worst = {kind: (0.0, "") for kind in ("loss", "gradient", "state")}
    for one, two in zip(alone, found, strict=True):
        if different := one.keys() ^ two.keys():
            return dict.fromkeys(worst, (math.inf, _first_names(sorted(different))))
        largest = max(float(abs(value).max()) for name, value in one.items() if name.startswith("gradient"))
        floors = {"loss": 0.1, "gradient": largest, "state": max(0.01, LEARNING_RATE * largest)}
        for name, value in one.items():
            kind, exact = name.split(" ")[0], value.astype(np.float64)
            difference = float(abs(two[name] - exact).max(initial=0))
            error = difference / max(floors[kind], float(abs(exact).max(initial=0)))
            if not error <= worst[kind][0]:  # NaN counts as worst
                worst[kind] = (error, name)
    return worst


# -------------------------------------------------------------------------------------------------- labels and resume


def labels(subject: Subject) -> list[Finding]:
    """Wrong labels must not change the losses of two steps, unless the method declares that it uses labels."""
    if subject.build(SEED).uses_labels:
        return []
    wrong_labels = torch.arange(len(subject.batch(0).labels)).flip(0) % 7 - 1
    losses = []
    for wrong in (False, True):
        method = subject.build(SEED)
        optimizer = plain_sgd(method)
        batches = [subject.batch(number) for number in range(2)]
        batches = [batch._replace(labels=wrong_labels) for batch in batches] if wrong else batches
        losses.append([train_step(method, optimizer, batch, number) for number, batch in enumerate(batches)])
    difference = max(abs(float(a - b)) for a, b in zip(*losses, strict=True))
    advice = "other labels give another loss: declare uses_labels = True, or do not read them"
    return [within("labels unused", subject, difference, 0, advice)]


def resume(subject: Subject) -> list[Finding]:
    """Two steps, a checkpoint, and two more steps of a newly built method must equal four steps bit for bit."""
    straight, losses = _started(subject, SEED), []
    for number in range(4):
        losses.append(train_step(*straight, subject.batch(number), number))
        if number == 1:
            file = io.BytesIO()
            torch.save([part.state_dict() for part in straight], file)
    file.seek(0)
    resumed = _started(subject, SEED + 1)
    weights, moments = torch.load(file, weights_only=True)
    resumed[0].load_state_dict(weights)
    resumed[1].load_state_dict(moments)
    again = [train_step(*resumed, subject.batch(number), number) for number in (2, 3)]
    one, two = straight[0].state_dict(), resumed[0].state_dict()
    wrong = [name for name in one if not torch.equal(one[name], two[name])]
    if not all(map(torch.equal, losses[2:], again)):
        wrong.insert(0, "the loss")
    advice = (
        f"{_first_names(wrong)} of a resumed run differs: what lasts longer than a step must be a buffer or parameter"
    )
    return [Finding("resume", subject.name, advice if wrong else "")]


def _started(subject: Subject, seed: int) -> tuple[Method, torch.optim.Optimizer]:
    method = subject.build(seed)
    return method, torch.optim.AdamW(trainable_parameters(method), lr=1e-3)


# ----------------------------------------------------------------------------------------------------------- compiled


def compiled(subject: Subject, backend: str = "aot_eager") -> list[Finding]:
    """torch.compile must not change the loss and the gradients of one step."""
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    for prepare in (None, lambda method: method.compile(backend=backend)):
        method: Any = subject.build(SEED)
        if prepare is not None:
            prepare(method)
        loss = train_step(method, plain_sgd(method), subject.batch(0), TOTAL_STEPS // 2)
        found.append((loss, {name: p.grad for name, p in method.named_parameters() if p.grad is not None}))
    torch.compiler.reset()
    (loss, gradients), (again, others) = found
    largest = max(float(g.abs().max()) for g in gradients.values())
    error = max(float((gradients[name] - others[name]).abs().max()) / largest for name in gradients)
    error = max(error, abs(float(again - loss)) / max(0.1, abs(float(loss))))
    advice = "the compiled method computes something else"
    return [within(f"compiled ({backend})", subject, error, COMPILED_TOLERANCE, advice)]


EACH: tuple[Callable[[Subject], list[Finding]], ...] = (step, labels, resume)
"""The fast checks of one subject."""
