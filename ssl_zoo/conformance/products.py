"""Checks that, under autocast, layers multiply in bfloat16 but losses do not."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_zoo.conformance.checks import SEED, Finding
from ssl_zoo.conformance.subjects import Subject

PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "linear", "matmul", "einsum"}
"""Names of the aten operators for products of matrices and vectors."""


class _Layers(TorchFunctionMode):
    """Counts the layers that are being executed: submodules of a method, and `F.linear` with a parameter as weight.

    The latter is a tied output layer, as in masked language models.
    """

    def __init__(self, method: nn.Module):
        super().__init__()
        self.depth = 0
        self.hooks = []
        for module in method.modules():
            if module is not method:
                self.hooks.append(module.register_forward_pre_hook(self.enter))
                self.hooks.append(module.register_forward_hook(self.leave, always_call=True))

    def enter(self, *_: Any) -> None:
        self.depth += 1

    def leave(self, *_: Any) -> None:
        self.depth -= 1

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        is_layer = func is nn.functional.linear and any(isinstance(x, nn.Parameter) for x in args[1:2])
        self.depth += is_layer
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.depth -= is_layer


class _HalfProducts(TorchDispatchMode):
    """Collects products with a bfloat16 result outside of any layer."""

    def __init__(self, layers: _Layers):
        super().__init__()
        self.layers = layers
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in PRODUCTS and not self.layers.depth and out.dtype == torch.bfloat16:
            self.found.append(f"{name} -> {tuple(out.shape)}")
        return out


def product_precision(subject: Subject) -> list[Finding]:
    """Under bfloat16 autocast, every scalar must be float32, and no product outside a layer may be in bfloat16."""
    method = subject.build(SEED)
    layers = _Layers(method)
    products = _HalfProducts(layers)
    with torch.autocast("cpu", dtype=torch.bfloat16), layers, products:
        scalars: dict[str, Tensor] = method(subject.batch(0), 0.5)
    for hook in layers.hooks:
        hook.remove()
    wrong = [f"{name} is {value.dtype}" for name, value in scalars.items() if value.dtype != torch.float32]
    wrong += [f"{product} is computed in bfloat16" for product in products.found]
    advice = f"{', '.join(wrong)}. Convert with .float() and multiply by functional.similarities, or with autocast off"
    return [Finding("precision", subject.name, advice if wrong else "")]
