"""Checks, layer by layer, that bfloat16 gradients on the CPU agree with those of float32."""

import copy
import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssl_zoo.conformance.checks import SEED, Finding, within
from ssl_zoo.conformance.subjects import SIZE, Subject

BF16_TOLERANCE = 2e-2
"""Maximum relative error of a layer's gradient in bfloat16; rounding causes up to 1e-2."""


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fills every block that the C library allocates with NaN, to detect values that a kernel does not write.

    Every byte is 0xFF, which is NaN in float32, float16 and bfloat16. Without glibc there is no effect.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc, m_perturb = ctypes.CDLL(None), -6  # from malloc.h
    libc.mallopt(m_perturb, 0x100)  # memory is set to the complement of the lowest byte
    try:
        yield
    finally:
        libc.mallopt(m_perturb, 0)


def bf16_gradients(subject: Subject) -> list[Finding]:
    """`bf16_errors` of the backbone for text, or for images at full, half and a quarter of their side."""
    findings = []
    view = subject.batch(0).views[0]
    sides = (SIZE, SIZE // 2, SIZE // 4) if subject.views[0] == "image" else ()
    for inputs in [subject.batch(0, (side,)).views[-1] for side in sides] or [view]:
        errors = bf16_errors(subject.build(SEED).backbone, inputs)
        name = max(errors, key=lambda key: errors[key])
        advice = (
            f"the gradient of backbone.{name} in bfloat16 is not that of float32. Compute this layer in float32, as "
            "backbones.image.exact_convolutions does"
        )
        check = f"bf16 gradients, views of {'x'.join(map(str, inputs.shape[1:]))}"
        findings.append(within(check, subject, errors[name], BF16_TOLERANCE, advice))
    return findings


class _Call(NamedTuple):
    """A call of a layer: its input and the gradient of its output."""

    name: str
    layer: nn.Module
    inputs: Tensor
    gradient: Tensor


def bf16_errors(network: nn.Module, inputs: Tensor) -> dict[str, float]:
    """Relative error of the bfloat16 gradient of each parameter, compared with float32.

    Layers are compared one by one, with the same input and the same gradient of the output: through a whole network
    with BatchNorm and ReLU, rounding errors grow to 20 %. Gradients of vectors (norms and biases) are sums over the
    batch that may cancel; their error is 0 if they are finite. NaN counts as infinite.

    Args:
        network: maps `inputs` to (B, D); its gradients are overwritten.
        inputs: (B, ...).

    Returns:
        The error by parameter name.
    """
    with poisoned_memory(), torch.autocast("cpu", dtype=torch.bfloat16):
        calls = _recorded_calls(network, inputs)
    errors: dict[str, float] = {}
    for name, layer, x, gradient in calls:
        exact = copy.deepcopy(layer).float()
        exact.zero_grad()
        exact(x.float() if x.is_floating_point() else x).backward(gradient.float())
        for key, parameter in layer.named_parameters():
            found, expected = parameter.grad, exact.get_parameter(key).grad
            if found is None or expected is None:  # frozen
                continue
            error = float((found - expected).norm() / expected.norm().clamp(min=1e-12))
            if parameter.ndim < 2 and error < torch.inf:
                error = 0.0
            errors[f"{name}.{key}".lstrip(".")] = error if error < torch.inf else torch.inf
    return errors


def _recorded_calls(network: nn.Module, inputs: Tensor) -> list[_Call]:
    """Calls of the layers with parameters, in a forward and backward pass of a random projection of the output."""
    network.zero_grad()
    calls: list[_Call] = []
    handles = []

    def record(name: str, layer: nn.Module) -> None:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            x = args[0].detach().clone()  # an in-place activation may change it later
            output.register_hook(lambda gradient: calls.append(_Call(name, layer, x, gradient.clone())))

        handles.append(layer.register_forward_hook(hook))

    for name, layer in network.named_modules():
        in_children = any(True for child in layer.children() for _ in child.parameters())
        if not in_children and any(True for _ in layer.parameters(recurse=False)):
            record(name, layer)
    try:
        output = network(inputs)
        projection = torch.randn(output.shape, generator=torch.Generator().manual_seed(SEED))
        (output.float() * projection).sum().backward()
    finally:
        for handle in handles:
            handle.remove()
    return calls
