"""Optimizers that neither torch nor timm has as the papers use them."""

from collections.abc import Iterable
from typing import Any

from timm.optim import Lars
from torch import nn


def lars(params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], **settings: Any) -> Lars:
    """LARS whose layer-wise rates go to matrices and filters, with weight decay or without it.

    Norms and biases, which have one dimension, take plain momentum steps, as in the official code of MoCo v3. timm
    decides by weight decay instead: without any it would be plain SGD with momentum for every parameter.

    Args:
        params: Parameters, or groups of them as for any optimizer of torch.
        settings: Arguments of `timm.optim.Lars` except `always_adapt`.
    """
    groups = [group if isinstance(group, dict) else {"params": [group]} for group in params]
    parts = [
        group | {"params": part, "always_adapt": adapt}
        for group in groups
        for adapt in (False, True)
        if (part := [p for p in group["params"] if (p.ndim > 1) == adapt])
    ]
    return Lars(parts, **settings)
