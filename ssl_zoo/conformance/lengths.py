"""Rows of other lengths than usual: short ones, ragged ones, and rows that are all the same."""

from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import TextEncoder
from ssl_zoo.conformance.checks import SEED, Finding
from ssl_zoo.conformance.subjects import LENGTH, RAGGED, B, Subject
from ssl_zoo.method import Batch, Method

LARGEST_RATIO = {"ragged": 100.0, "short": 100.0, "equal": 1000.0}
"""Of the gradient's norm to that of full rows. BatchNorm divides by the spread of its rows, which is small where each
view is one row over and over: LeJEPA's projector on text comes to 134. What this is to find is of 1e5 and more."""


def lengths(subject: Subject) -> list[Finding]:
    """Texts of 3 to L tokens, texts of 3 tokens each, and examples that are all the same.

    The loss is finite, and the gradient's norm within LARGEST_RATIO of that of full rows that differ. Every short
    row counts: the tokens of it that the trained networks see get a gradient. They do not if all tokens are masked, or
    if none is where the loss is that of masked tokens.
    """
    full = subject.batch(0, lengths=torch.full((B,), LENGTH))
    batches = {"equal": full._replace(views=[view[:1].expand_as(view).clone() for view in full.views])}
    if "text" in subject.views:
        batches["ragged"] = subject.batch(0, lengths=RAGGED)
        batches["short"] = subject.batch(0, lengths=torch.full((B,), 3))
    usual = _gradient(subject, full)[0]
    findings = []
    for name, batch in batches.items():
        norm, without = _gradient(subject, batch)
        largest, failure = LARGEST_RATIO[name] * usual, ""
        if not norm <= largest:
            failure = "the loss or the gradient is out of proportion: see masks.counts, and functional.mean_over"
        elif without and name != "equal":
            failure = f"rows {without[:3]} have no gradient: mask at least one token of each, and leave one"
        findings.append(Finding(f"{name} rows", subject.name, failure, norm, largest))
    return findings


def _gradient(subject: Subject, batch: Batch) -> tuple[float, list[int]]:
    """The norm of the gradient of one step, NaN if the loss is; and the rows whose embedded tokens got none."""
    method = subject.build(SEED)
    embedded: list[Tensor] = []

    def note(_: nn.Module, __: Any, out: Tensor) -> None:
        if out.requires_grad:  # not a teacher's
            out.retain_grad()
            embedded.append(out)

    for table in _tables(method):
        table.register_forward_hook(note)
    torch.manual_seed(SEED)
    loss = method(batch, 0.5)["loss"]
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in method.parameters() if p.grad is not None])
    without = set()
    for x in embedded:
        counts = torch.zeros(len(x), dtype=torch.bool) if x.grad is None else x.grad.flatten(1).any(dim=1)
        without |= set((~counts).nonzero().flatten().tolist())
    return (norm + 0 * loss).item(), sorted(without)


def _tables(method: Method) -> set[nn.Module]:
    """The token embeddings of a method's text encoders, each once however many share it."""
    encoders = [part for part in method.modules() if isinstance(part, TextEncoder)]
    inputs: list[Any] = [encoder.embedding for encoder in encoders]
    return {part for each in inputs for part in each.modules() if isinstance(part, nn.Embedding)}
