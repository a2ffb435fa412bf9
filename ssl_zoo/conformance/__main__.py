"""`python -m ssl_zoo.conformance simclr`, or `... my_package.MyMethod hidden_dim=32`: every check, as a table.

The first is a name of conf/method; the second a class that can be imported, with its constructor's arguments besides
the backbone. `--backbone conv` (or vit, text) examines it on one kind of backbone, not on all that it takes.
Exit status: 0; 1 if a check fails; 2 for a mistake on the command line.
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial

import torch
import yaml
from rich.console import Console

from ssl_zoo.conformance import checks, learning, subjects
from ssl_zoo.conformance.checks import Finding
from ssl_zoo.conformance.lengths import lengths
from ssl_zoo.conformance.precision import bf16_gradients
from ssl_zoo.conformance.products import precision
from ssl_zoo.conformance.subjects import Subject
from ssl_zoo.training import environment

CHECKS = (*checks.EACH, lengths, precision, bf16_gradients, checks.compiled)
"""Of one subject."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status; prints the table."""
    parser = argparse.ArgumentParser(prog="python -m ssl_zoo.conformance", description=__doc__)
    parser.add_argument("method", help="a name of conf/method, or package.module.Class")
    parser.add_argument("arguments", nargs="*", metavar="key=value", help="of the class's constructor")
    parser.add_argument("--backbone", choices=list(subjects.BACKBONES), help="examine this kind alone")
    parser.add_argument("--no-learning", action="store_true", help="leave out the training run of some seconds")
    given = parser.parse_intermixed_args(argv)
    torch.set_num_threads(1)  # on networks this small more threads only wait for each other
    environment.quiet_lightning()
    try:
        arguments = parsed(given.arguments)
        examined = chosen_subjects(given.method, arguments, given.backbone)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    findings = [f for subject in examined for check in CHECKS for f in run_check(check, subject)]
    findings += checks.two_processes(examined)
    if not given.no_learning:
        findings += run_check(partial(learns, given.method, arguments), examined[0])
    Console().print(checks.findings_table(findings))
    failed = checks.failures(findings)
    print(failed or f"{len(findings)} checks passed")
    return 1 if failed else 0


def parsed(arguments: Sequence[str]) -> dict[str, object]:
    """key=value with the value read as YAML: numbers, booleans, lists. Raises ValueError for anything else."""
    pairs = [argument.partition("=") for argument in arguments]
    for key, is_given, _ in pairs:
        if not (key.isidentifier() and is_given):
            raise ValueError(f"{key}: give the constructor's arguments as key=value, e.g. hidden_dim=32")
    return {key: yaml.safe_load(value) for key, _, value in pairs}


def chosen_subjects(method: str, arguments: dict[str, object], backbone: str | None) -> tuple[Subject, ...]:
    """The subjects. Raises ValueError for names, arguments or kinds of backbone that do not go together."""
    if "." in method:
        kinds = (backbone,) if backbone else tuple(subjects.BACKBONES)
        return subjects.of_class(method, arguments, kinds)
    if arguments:
        raise ValueError(
            f"{method} takes its arguments from conf/method/{method}.yaml: leave out {', '.join(arguments)}"
        )
    found = subjects.of(method)
    matching = tuple(s for s in found if backbone in (None, s.name.split("/")[1]))
    if not matching:
        raise ValueError(f"--backbone {backbone}: {method} takes {', '.join(s.name.split('/')[1] for s in found)}")
    return matching


def learns(method: str, arguments: dict[str, object], subject: Subject) -> list[Finding]:
    """One training run, of a class on the subject's kind of backbone, of a name on that of its configuration."""
    if "." in method:
        kind = subject.name.split("/")[1]
        budget = learning.LEARNING_BUDGETS[kind]
        trial = learning.trial_of_class(method, arguments, kind, 0, budget)
    else:
        budget = learning.LEARNING_BUDGETS[learning.kind(method)]
        trial = learning.trial(method, 0, budget)
    return [learning.finding(subject.name, [trial], budget)]


def run_check(check: Callable[[Subject], list[Finding]], subject: Subject) -> list[Finding]:
    """A stranger's method may raise anything, and the other checks are still worth seeing."""
    try:
        return check(subject)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        name = check.func.__name__ if isinstance(check, partial) else check.__name__
        return [Finding(name, subject.name, said)]


if __name__ == "__main__":
    sys.exit(main())
