"""Optimizers that the papers use and neither torch nor timm provides in that form."""

from collections.abc import Iterable
from typing import Any

from timm.optim import Lars
from torch import nn


def lars(params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], **settings: Any) -> Lars:
    """Returns LARS with layer-wise learning rates for parameters of two or more dimensions.

    Norms and biases, which have one dimension, take plain momentum steps, as in the official code of MoCo v3. timm
    decides by weight decay instead: with none, all parameters would be trained by plain SGD with momentum.

    Args:
        params: parameters or parameter groups, as for any torch optimizer.
        settings: arguments of `timm.optim.Lars` except `always_adapt`.
    """
    groups = [group if isinstance(group, dict) else {"params": [group]} for group in params]
    parts = [
        group | {"params": part, "always_adapt": adapt}
        for group in groups
        for adapt in (False, True)
        if (part := [p for p in group["params"] if (p.ndim > 1) == adapt])
    ]
    return Lars(parts, **settings)
