"""Maths that several papers share, by the names the papers use. Letters: B batch, D width, W processes, K keys."""

import copy
import itertools
import math
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def world_size() -> int:
    """Number of processes that train together, 1 outside distributed training."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them, 0 outside distributed training."""
    return dist.get_rank() if dist.is_initialized() else 0


class _AllGather(torch.autograd.Function):
    """Concatenates every process's tensor; the backward pass sums what each process found for each part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)  # without this sum the gradient would miss a factor of W
        return grad.chunk(world_size())[rank()]


def all_gather(x: Tensor) -> Tensor:
    """(B, ...) on each of W processes -> (W * B, ...) on all, in rank order, with gradient; one process: identity."""
    return _AllGather.apply(x) if world_size() > 1 else x


def own_rows(x: Tensor) -> Tensor:
    """(B,) int64: where the rows of x (B, ...) stand in `all_gather(x)`."""
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
    """What rank 0 holds, on every process, without gradient: for a draw that all must share."""
    if world_size() > 1:
        dist.broadcast(x, 0)
    return x


def rand_rows(*shape: int, device: torch.device) -> Tensor:
    """(B, ...) uniform float32 in [0, 1), a row for each example of this process.

    Rank 0 draws for the global batch, so k processes hide the same tokens as one process would.
    """
    draws = torch.rand(world_size() * shape[0], *shape[1:], device=device)
    return broadcast(draws).chunk(world_size())[rank()]


def mean_over(values: Tensor, where: Tensor) -> Tensor:
    """Mean of `values` at the True entries of `where`; its average over the processes is the mean over the global batch
    even if they hold different numbers of entries."""
    return values.masked_fill(~where, 0).sum() / all_reduce_mean(where.sum().float()).clamp(min=1)


class GatheredBatchNorm(nn.Module):
    """Wraps a BatchNorm layer so that all processes normalise by the statistics of the global batch.

    torch's SyncBatchNorm does the same on GPUs only. Every process must hold equally many examples. Parameters and
    buffers stay under the names they had; see `gather_batch_norm`.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm):
        super().__init__()
        if norm.momentum is None or not norm.track_running_stats:
            raise ValueError(f"{norm}: several CPU processes need BatchNorm with a momentum and running statistics")
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)
        self.eps, self.momentum = norm.eps, norm.momentum
        # timm's BatchNormAct2d is a BatchNorm followed by dropout and an activation
        self.after = nn.Sequential(*(m for m in (getattr(norm, "drop", None), getattr(norm, "act", None)) if m))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...), computed in float32."""
        if not self.training:
            x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
            return self.after(x)
        dims = [0, *range(2, x.ndim)]
        wide = x.float()
        mean = all_reduce_mean(wide.mean(dims))
        centred = wide - _per_channel(mean, x.ndim)
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
    """Replaces every BatchNorm below `module`, in place, by one with global statistics; state_dict keys stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, GatheredBatchNorm(child))
        else:
            gather_batch_norm(child)


def similarities(x: Tensor, y: Tensor) -> Tensor:
    """Dot product of each vector of x with each of y, in float32 under autocast too: (..., D), (K, D) -> (..., K).

    Losses multiply through this function and not by `@`: autocast would compute the product in bfloat16, whose errors
    of up to 0.4 % are then divided by the temperature.
    """
    with torch.autocast(device_type=x.device.type, enabled=False):
        return x.float() @ y.float().T


def info_nce(queries: Tensor, keys: Tensor, positives: Tensor, temperature: float, hidden: Tensor | None) -> Tensor:
    """InfoNCE: mean cross-entropy of picking each query's positive among the keys by cosine similarity.

    queries (B, D), keys (K, D); positives (B,) int64, column of each query's positive; hidden (B, K) bool marks pairs
    to leave out, such as a query with itself. Computed in float32; the mean is over the B queries.
    """
    queries, keys = F.normalize(queries.float(), dim=1), F.normalize(keys.float(), dim=1)
    logits = similarities(queries, keys) / temperature  # (B, K)
    if hidden is not None:
        logits = logits.masked_fill(hidden, -torch.inf)
    return F.cross_entropy(logits, positives)


def negative_cosine(x: Tensor, y: Tensor) -> Tensor:
    """2 - 2 cos(x, y), the squared distance of the unit vectors, mean over the batch. x, y: (B, D); in float32."""
    return (2 - 2 * F.cosine_similarity(x.float(), y.float(), dim=1)).mean()


@torch.no_grad()
def sinkhorn(scores: Tensor, temperature: float, iterations: int, valid: Tensor | None = None) -> Tensor:
    """Soft assignments (B, K), each row summing to 1, that use all K prototypes equally over the global batch.

    Sinkhorn-Knopp on exp(scores / temperature) in float32 and in logarithms; scores (B, K). Caron et al., "SwAV", 2020,
    https://arxiv.org/abs/2006.09882, Section 3.1 and Appendix A; `temperature` is their epsilon. valid: (B,) bool, the
    rows that count in the balance, all by default; the others' assignments are finite and mean nothing.
    """
    logs = all_gather(scores.float()) / temperature  # (W * B, K)
    weights = torch.zeros((), device=logs.device)  # logarithms
    if valid is not None:
        # Finite, so that a batch without any valid row gives no NaN; exp of it is 0 all the same.
        weights = torch.where(all_gather(valid), 0.0, -1e4).unsqueeze(1)
    for _ in range(iterations):
        logs = logs - (logs + weights).logsumexp(dim=0)
        logs = logs - logs.logsumexp(dim=1, keepdim=True)
    return logs.exp().chunk(world_size())[rank()]


def global_views(views: list[Tensor]) -> list[Tensor]:
    """The views of the first one's shape, which come first; the others are the local crops of multi-crop."""
    return list(itertools.takewhile(lambda view: view.shape == views[0].shape, views))


def view_pairs(views: list[Tensor]) -> list[tuple[int, int]]:
    """(i, j) for each global view i and each other view j: j is to agree with i. Two views: [(0, 1), (1, 0)].

    With multi-crop local views agree with global ones, never with each other (SwAV, Section 3.3; DINO, Section 3.1).
    A symmetric loss takes those with i < j, since global views come first.
    """
    return [(i, j) for i in range(len(global_views(views))) for j in range(len(views)) if i != j]


def embed_views(network: nn.Module, views: list[Tensor]) -> list[Tensor]:
    """network(view) for each view, neighbours of one shape in one pass; so BatchNorm sees them together."""
    outputs: list[Tensor] = []
    for _, run in itertools.groupby(views, key=lambda view: view.shape):
        group = list(run)
        outputs += network(torch.cat(group)).chunk(len(group))
    return outputs


VIEWS_PER_BATCH_NORM = ("joint", "separate")


def project_views(
    backbone: nn.Module, projector: nn.Module, views: list[Tensor], views_per_batch_norm: str
) -> list[Tensor]:
    """projector(backbone(view)) for each view, with the same views in the BatchNorms of both networks.

    views_per_batch_norm: "joint" normalises all views of one shape together in the backbone, and all views together in
        the projector; "separate" normalises each view by its own statistics. Published numbers come from both, and
        the two have nearly orthogonal gradients (https://github.com/lightly-ai/lightly/pull/2031).
    """
    if views_per_batch_norm == "separate":
        return [projector(backbone(view)) for view in views]
    return list(projector(torch.cat(embed_views(backbone, views))).chunk(len(views)))


def off_diagonal(x: Tensor) -> Tensor:
    """A square matrix with zeros on its diagonal."""
    return x - x.diagonal().diag()


def variance_loss(z: Tensor) -> Tensor:
    """VICReg's hinge on the standard deviation of each feature (Eq. 1-2), mean over the features. z: (N, D) float32."""
    # The 1e-4 (epsilon of Eq. 2) keeps the gradient of the root finite for a feature that has collapsed.
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


def cosine(start: float, end: float, progress: float) -> float:
    """Half-cosine from `start` at progress 0 to `end` at progress 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def ramp(start: float, end: float, share: float, progress: float) -> float:
    """Linear from `start` to `end` over the first `share` of the run, then `end`."""
    return start + (end - start) * min(progress / share, 1.0)


def warmup_cosine(progress: float, warmup: float, final: float) -> float:
    """Learning-rate factor: linear from 0 over the first `warmup` of the run, then half-cosine from 1 to `final`.

    Raises: ValueError unless 0 <= warmup < 1 and final >= 0."""
    if not (0 <= warmup < 1 and final >= 0):
        raise ValueError(f"schedule.warmup={warmup}, final={final}: give a share of the run below 1, and 0 or more")
    if progress < warmup:
        return progress / warmup
    return cosine(1.0, final, (progress - warmup) / (1 - warmup))


def warmup_linear(progress: float, warmup: float, flat: float) -> float:
    """Learning-rate factor: linear from 0 over `warmup`, 1 until `flat` of the run is spent, then linear to 0.

    Raises: ValueError unless 0 <= warmup <= flat < 1."""
    if not 0 <= warmup <= flat < 1:
        raise ValueError(f"schedule.warmup={warmup}, flat={flat}: give shares of the run below 1, warmup no later")
    if progress < warmup:
        return progress / warmup
    return 1.0 if progress < flat else (1 - progress) / (1 - flat)


def ema_copy(module: nn.Module) -> nn.Module:
    """A copy for an EMA to move; it takes no gradient and has neither dropout nor drop path (`ema_mode`)."""
    copied = copy.deepcopy(module).requires_grad_(False)
    copied.is_ema = True  # type: ignore[assignment]  # by which `Method.train` finds it
    ema_mode(copied, training=True)
    return copied


def ema_mode(module: nn.Module, training: bool) -> None:
    """Evaluation mode, so that dropout and drop path are off; layers with running statistics follow `training`.

    So BatchNorm normalises by the batch while the student trains, as in the official codes of MoCo, BYOL, DINO and MSN,
    and targets have no noise of their own: DINO and iBOT give drop path to the student only, data2vec and DINOv2 put
    the teacher into evaluation mode.
    """
    for part in module.modules():
        part.training = training and hasattr(part, "running_var")


@torch.no_grad()
def ema_update(target: nn.Module, online: nn.Module, decay: float) -> None:
    """target <- decay * target + (1 - decay) * online for parameters; buffers (BatchNorm statistics) are copied."""
    torch._foreach_lerp_(list(target.parameters()), [p.detach() for p in online.parameters()], 1 - decay)
    for mine, theirs in zip(target.buffers(), online.buffers(), strict=True):
        mine.copy_(theirs)


def choice(options: tuple[str, ...], **values: str) -> None:
    """Raises ValueError unless each value is one of `options`; names become keys of `method.`."""
    for name, value in values.items():
        if value not in options:
            raise ValueError(f"method.{name}={value}: give one of {', '.join(options)}")


def positive(**values: float) -> None:
    """Raises ValueError unless each value is a finite number above 0; names become keys of `method.`."""
    for name, value in values.items():
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"method.{name}={value} must be a finite number above 0")


def share(**values: float) -> None:
    """Raises ValueError unless each value is a share of the run, 0 and 1 included; names become keys of `method.`."""
    for name, value in values.items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"method.{name}={value} is a share of the run: give a number from 0 to 1")


def fraction(**values: float) -> None:
    """Raises ValueError unless each value lies inside (0, 1); names become keys of `method.`."""
    for name, value in values.items():
        if not isinstance(value, int | float) or not 0 < value < 1:
            raise ValueError(f"method.{name}={value} must lie between 0 and 1, both excluded")
