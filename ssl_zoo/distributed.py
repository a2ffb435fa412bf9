"""Collectives with gradient, and BatchNorm over the global batch. Letters: B batch, W processes, C channels."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def world_size() -> int:
    """Number of processes, 1 outside distributed training."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Index of this process, 0 outside distributed training."""
    return dist.get_rank() if dist.is_initialized() else 0


class _AllGather(torch.autograd.Function):
    """Concatenates the tensors of all processes; the backward pass sums the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gathered = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(gathered, x.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)  # without this sum the gradient would miss a factor of W
        return grad.chunk(world_size())[rank()]


def all_gather(x: Tensor) -> Tensor:
    """Concatenates x (B, ...) of all processes to (W * B, ...) in rank order, with gradient; identity for W = 1."""
    return _AllGather.apply(x) if world_size() > 1 else x


def own_rows(x: Tensor) -> Tensor:
    """(B,) int64, the indices of this process's rows of x (B, ...) in `all_gather(x)`."""
    return torch.arange(len(x), device=x.device) + rank() * len(x)


class _AllReduceMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x / world_size()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad / world_size()


def all_reduce_mean(x: Tensor) -> Tensor:
    """Mean of x over the processes, with gradient; identity for one process."""
    return _AllReduceMean.apply(x) if world_size() > 1 else x


def broadcast(x: Tensor) -> Tensor:
    """Overwrites x with the values of rank 0, without gradient; for random numbers that all processes share."""
    if world_size() > 1:
        dist.broadcast(x, 0)
    return x


def whole(x: Tensor) -> Tensor:
    """All of x where it is divided among the processes, as by FSDP; every process must call it."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def rand_rows(*shape: int, device: torch.device) -> Tensor:
    """Uniform random float32 numbers in [0, 1) of the given shape, whose first dimension is the batch of this process.

    Rank 0 samples them for the global batch, so that k processes mask the same tokens as one process would.
    """
    uniform = torch.rand(world_size() * shape[0], *shape[1:], device=device)
    return broadcast(uniform).chunk(world_size())[rank()]


class GatheredBatchNorm(nn.Module):
    """BatchNorm over the global batch of all processes, built from an ordinary BatchNorm layer.

    torch's SyncBatchNorm does the same on GPUs only. Every process must hold the same number of examples. Parameters
    and buffers keep their names; see `gather_batch_norm`.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm):
        super().__init__()
        if norm.momentum is None or not norm.track_running_stats:
            raise ValueError(f"{norm}: several CPU processes need BatchNorm with a momentum and running statistics")
        self.weight = norm.weight
        self.bias = norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)
        self.eps = norm.eps
        self.momentum = norm.momentum
        # timm's BatchNormAct2d is a BatchNorm followed by dropout and an activation.
        self.after = nn.Sequential(*(m for m in (getattr(norm, "drop", None), getattr(norm, "act", None)) if m))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (B, C, ...) per channel in float32; returns the shape and dtype of x."""
        if not self.training:
            x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
            return self.after(x)
        dims = [0, *range(2, x.ndim)]
        x32 = x.float()
        mean = all_reduce_mean(x32.mean(dims))
        centred = x32 - _per_channel(mean, x.ndim)
        var = all_reduce_mean(centred.square().mean(dims))
        count = world_size() * x.numel() / x.shape[1]
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = (var + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        out = centred * _per_channel(scale, x.ndim)
        out = out if self.bias is None else out + _per_channel(self.bias, x.ndim)
        return self.after(out.to(x.dtype))


def _per_channel(x: Tensor, ndim: int) -> Tensor:
    return x.view(1, -1, *(1 for _ in range(ndim - 2)))


def gather_batch_norm(module: nn.Module) -> None:
    """Replaces every BatchNorm inside `module`, in place, by `GatheredBatchNorm`; state_dict keys do not change."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, GatheredBatchNorm(child))
        else:
            gather_batch_norm(child)
