"""Checks unusual batches: short texts, texts of different lengths, and equal examples."""

from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import TextEncoder
from ssl_zoo.conformance.checks import SEED, Finding
from ssl_zoo.conformance.subjects import LENGTH, RAGGED, B, Subject
from ssl_zoo.method import Batch, Method

MAX_GRADIENT_RATIO = {"ragged": 100.0, "short": 100.0, "equal": 1000.0}
"""Maximum ratio of the gradient's norm to that for ordinary rows. BatchNorm divides by the standard deviation of its
rows, which is small if all rows are equal: LeJEPA's projector on text reaches 134. The errors to detect exceed 1e5."""


def lengths(subject: Subject) -> list[Finding]:
    """Checks texts of 3 to L tokens, texts of 3 tokens each, and equal examples.

    The loss must be finite, and the gradient's norm within MAX_GRADIENT_RATIO of that for different examples of full
    length. The embedded tokens of every short row must get a gradient; they do not if all tokens of a row are masked,
    or if none is and the loss is that of masked tokens.
    """
    full = subject.batch(0, lengths=torch.full((B,), LENGTH))
    batches = {"equal": full._replace(views=[view[:1].expand_as(view).clone() for view in full.views])}
    if "text" in subject.views:
        batches["ragged"] = subject.batch(0, lengths=RAGGED)
        batches["short"] = subject.batch(0, lengths=torch.full((B,), 3))
    ordinary = _gradient(subject, full)[0]
    findings = []
    for name, batch in batches.items():
        norm, without = _gradient(subject, batch)
        tolerance, failure = MAX_GRADIENT_RATIO[name] * ordinary, ""
        if not norm <= tolerance:
            failure = "the loss or the gradient is out of proportion: see masks.mask_counts, and functional.mean_over"
        elif without and name != "equal":
            failure = f"rows {without[:3]} have no gradient: mask at least one token of each, and leave one"
        findings.append(Finding(f"{name} rows", subject.name, failure, norm, tolerance))
    return findings


def _gradient(subject: Subject, batch: Batch) -> tuple[float, list[int]]:
    """Norm of the gradient of one step, NaN if the loss is; and the rows whose embedded tokens have no gradient."""
    method = subject.build(SEED)
    embedded: list[Tensor] = []

    def record(_: nn.Module, __: Any, out: Tensor) -> None:
        if out.requires_grad:  # False for a teacher
            out.retain_grad()
            embedded.append(out)

    for table in _token_embeddings(method):
        table.register_forward_hook(record)
    torch.manual_seed(SEED)
    loss = method(batch, 0.5)["loss"]
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in method.parameters() if p.grad is not None])
    without = set()
    for x in embedded:
        has_gradient = torch.zeros(len(x), dtype=torch.bool) if x.grad is None else x.grad.flatten(1).any(dim=1)
        without |= set((~has_gradient).nonzero().flatten().tolist())
    return (norm + 0 * loss).item(), sorted(without)


def _token_embeddings(method: Method) -> set[nn.Module]:
    """The distinct token embeddings of a method's text encoders."""
    encoders = [module for module in method.modules() if isinstance(module, TextEncoder)]
    inputs: list[Any] = [encoder.embedding for encoder in encoders]
    return {module for embedding in inputs for module in embedding.modules() if isinstance(module, nn.Embedding)}
