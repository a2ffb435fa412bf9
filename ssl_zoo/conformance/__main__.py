"""Runs all conformance checks of a method and prints a table.

`python -m ssl_zoo.conformance simclr` checks a method of conf/method; `... my_package.MyMethod hidden_dim=32` checks a
class, with the arguments of its constructor except the backbone. `--backbone conv` (or vit, text) restricts the checks
to one kind of backbone; by default they run on each kind that the method accepts.

Exit status: 0 if all checks pass, 1 if one fails, 2 for a mistake on the command line.
"""

import argparse
import logging
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
from ssl_zoo.conformance.products import product_precision
from ssl_zoo.conformance.subjects import Subject
from ssl_zoo.training import environment

CHECKS = (*checks.EACH, lengths, product_precision, bf16_gradients, checks.compiled)
"""The checks of one subject."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv`, prints the table and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ssl_zoo.conformance", description=__doc__)
    parser.add_argument("method", help="a name of conf/method, or package.module.Class")
    parser.add_argument("arguments", nargs="*", metavar="key=value", help="arguments of the class's constructor")
    parser.add_argument("--backbone", choices=list(subjects.BACKBONES), help="check on this kind of backbone only")
    parser.add_argument("--no-learning", action="store_true", help="skip the training run, which takes some seconds")
    given = parser.parse_intermixed_args(argv)
    torch.set_num_threads(1)  # more threads are slower on networks this small
    environment.quiet_lightning()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        arguments = parse_arguments(given.arguments)
        selected = select_subjects(given.method, arguments, given.backbone)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    findings = [f for subject in selected for check in CHECKS for f in run_check(check, subject)]
    findings += checks.two_processes(selected)
    if not given.no_learning:
        findings += run_check(partial(check_learning, given.method, arguments), selected[0])
    Console().print(checks.findings_table(findings))
    failed = checks.failures(findings)
    print(failed or f"{len(findings)} checks passed")
    return 1 if failed else 0


def parse_arguments(arguments: Sequence[str]) -> dict[str, object]:
    """Parses key=value arguments, with values as YAML (numbers, booleans, lists). Raises ValueError for others."""
    pairs = [argument.partition("=") for argument in arguments]
    for key, is_given, _ in pairs:
        if not (key.isidentifier() and is_given):
            raise ValueError(f"{key}: give the constructor's arguments as key=value, e.g. hidden_dim=32")
    return {key: yaml.safe_load(value) for key, _, value in pairs}


def select_subjects(method: str, arguments: dict[str, object], backbone: str | None) -> tuple[Subject, ...]:
    """The subjects to check. Raises ValueError for a combination of method, arguments and backbone that is invalid."""
    if "." in method:
        kinds = (backbone,) if backbone else tuple(subjects.BACKBONES)
        return subjects.subjects_of_class(method, arguments, kinds)
    if arguments:
        raise ValueError(
            f"{method} takes its arguments from conf/method/{method}.yaml: leave out {', '.join(arguments)}"
        )
    found = subjects.subjects_of(method)
    matching = tuple(s for s in found if backbone in (None, s.name.split("/")[1]))
    if not matching:
        raise ValueError(f"--backbone {backbone}: {method} takes {', '.join(s.name.split('/')[1] for s in found)}")
    return matching


def check_learning(method: str, arguments: dict[str, object], subject: Subject) -> list[Finding]:
    """Checks that the method learns, in one training run.

    A class is trained on the subject's kind of backbone, a method of conf/method on the backbone of its configuration.
    """
    if "." in method:
        kind = subject.name.split("/")[1]
        budget = learning.LEARNING_BUDGETS[kind]
        trial = learning.run_class_trial(method, arguments, kind, 0, budget)
    else:
        budget = learning.LEARNING_BUDGETS[learning.backbone_kind_of(method)]
        trial = learning.run_trial(method, 0, budget)
    return [learning.learning_finding(subject.name, [trial], budget)]


def run_check(check: Callable[[Subject], list[Finding]], subject: Subject) -> list[Finding]:
    """Runs one check; an exception becomes a finding that fails, so that the other checks still run."""
    try:
        return check(subject)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        name = check.func.__name__ if isinstance(check, partial) else check.__name__
        return [Finding(name, subject.name, message)]


if __name__ == "__main__":
    sys.exit(main())
