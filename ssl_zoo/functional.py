"""Losses, pairing of views and EMA that several methods share. Letters: B batch, D width, W processes, K keys."""

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.distributed import all_gather, all_reduce_mean, rank, world_size
from ssl_zoo.schedules import cosine_schedule


def mean_over(values: Tensor, where: Tensor) -> Tensor:
    """Mean of `values` at the True entries of `where`, 0 if there are none in the global batch.

    The average of the results over all processes is the mean over the global batch, even if the processes hold
    different numbers of True entries.
    """
    return values.masked_fill(~where, 0).sum() / all_reduce_mean(where.sum().float()).clamp(min=1)


def similarities(x: Tensor, y: Tensor) -> Tensor:
    """Dot product of each vector of x with each of y, in float32 even under autocast: (..., D), (K, D) -> (..., K).

    Losses use this function instead of `@`: autocast would compute the product in bfloat16, with errors of up to 0.4 %
    that are then divided by the temperature.
    """
    with torch.autocast(device_type=x.device.type, enabled=False):
        return x.float() @ y.float().T


def info_nce(queries: Tensor, keys: Tensor, positives: Tensor, temperature: float, excluded: Tensor | None) -> Tensor:
    """InfoNCE: cross-entropy of identifying each query's positive among the keys by cosine similarity.

    Args:
        queries: (B, D).
        keys: (K, D).
        positives: (B,) int64, the index of each query's positive among the keys.
        temperature: divides the cosine similarities.
        excluded: (B, K) bool, True for pairs to leave out, such as a query with itself; None to keep all.

    Returns:
        Scalar float32, mean over the B queries.
    """
    queries, keys = F.normalize(queries.float(), dim=1), F.normalize(keys.float(), dim=1)
    logits = similarities(queries, keys) / temperature  # (B, K)
    if excluded is not None:
        logits = logits.masked_fill(excluded, -torch.inf)
    return F.cross_entropy(logits, positives)


def cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    """2 - 2 cos(x, y), the squared distance of the unit vectors, mean over the batch, in float32. x, y: (B, D)."""
    return (2 - 2 * F.cosine_similarity(x.float(), y.float(), dim=1)).mean()


@torch.no_grad()
def sinkhorn(
    scores: Tensor, temperature: float, iterations: int, valid: Tensor | None = None, queued: Tensor | None = None
) -> Tensor:
    """Soft assignments that use all K prototypes equally over the global batch (Sinkhorn-Knopp in log space).

    Caron et al., "SwAV", 2020, https://arxiv.org/abs/2006.09882, Section 3.1 and Appendix A.

    Args:
        scores: (B, K) similarities to the prototypes.
        temperature: epsilon in the paper.
        iterations: number of normalisations over rows and columns.
        valid: (B,) bool, the rows to balance over, all by default. Assignments of other rows are finite but
            meaningless.
        queued: (S, K) scores of a queue, equal on all processes, which are balanced with those of the batch (Section
            4.3 of the paper); not together with `valid`.

    Returns:
        (B, K) float32; each row sums to 1.
    """
    logs = all_gather(scores.float()) / temperature  # (W * B, K)
    num_rows = len(logs)
    if queued is not None:
        logs = torch.cat([logs, queued.float() / temperature])
    weights = torch.zeros((), device=logs.device)  # log of the weight of each row
    if valid is not None:
        # -1e4 instead of -inf: its exp is 0 too, and a batch without any valid row gives no NaN.
        weights = torch.where(all_gather(valid), 0.0, -1e4).unsqueeze(1)
    for _ in range(iterations):
        logs = logs - (logs + weights).logsumexp(dim=0)
        logs = logs - logs.logsumexp(dim=1, keepdim=True)
    return logs[:num_rows].exp().chunk(world_size())[rank()]


def global_views(views: list[Tensor]) -> list[Tensor]:
    """The leading views that have the shape of the first; the others are the local crops of multi-crop."""
    return list(itertools.takewhile(lambda view: view.shape == views[0].shape, views))


def view_pairs(views: list[Tensor]) -> list[tuple[int, int]]:
    """Index pairs (i, j) of a global view i and any other view j that is compared with it.

    Two views give [(0, 1), (1, 0)]. In multi-crop, local views are compared with global views only, never with each
    other (SwAV, Section 3.3; DINO, Section 3.1). A symmetric loss uses the pairs with i < j, since global views come
    first.
    """
    return [(i, j) for i in range(len(global_views(views))) for j in range(len(views)) if i != j]


def embed_views(network: nn.Module, views: list[Tensor]) -> list[Tensor]:
    """network(view) for each view; consecutive views of equal shape share one forward pass and BatchNorm statistics."""
    outputs: list[Tensor] = []
    for _, run in itertools.groupby(views, key=lambda view: view.shape):
        group = list(run)
        outputs += network(torch.cat(group)).chunk(len(group))
    return outputs


VIEWS_PER_BATCH_NORM = ("joint", "separate")


def project_views(
    backbone: nn.Module, projector: nn.Module, views: list[Tensor], views_per_batch_norm: str
) -> list[Tensor]:
    """projector(backbone(view)) for each view, with a choice of which views share BatchNorm statistics.

    Args:
        backbone: maps a view (B, ...) to (B, D).
        projector: maps (B, D) to (B, D').
        views: one tensor per view.
        views_per_batch_norm: "joint" normalises all views of one shape together in the backbone, and all views
            together in the projector; "separate" normalises each view by its own statistics. Published results use
            both, and their gradients are nearly orthogonal (https://github.com/lightly-ai/lightly/pull/2031).

    Returns:
        One (B, D') tensor per view.
    """
    if views_per_batch_norm == "separate":
        return [projector(backbone(view)) for view in views]
    return list(projector(torch.cat(embed_views(backbone, views))).chunk(len(views)))


def off_diagonal(x: Tensor) -> Tensor:
    """The square matrix x with its diagonal set to zero."""
    return x - x.diagonal().diag()


def variance_loss(z: Tensor) -> Tensor:
    """VICReg's hinge on the standard deviation of each feature (Eq. 1-2), mean over the features. z: (N, D) float32."""
    # 1e-4 (epsilon of Eq. 2) keeps the gradient of the square root finite for a collapsed feature.
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


def ema_copy(module: nn.Module) -> nn.Module:
    """A copy to be updated by `ema_update`: without gradient, and with dropout and drop path off (see `ema_mode`)."""
    copied = copy.deepcopy(module).requires_grad_(False)
    copied.is_ema = True  # type: ignore[assignment]  # `Method.train` looks for it
    ema_mode(copied, training=True)
    return copied


def ema_mode(module: nn.Module, training: bool) -> None:
    """Puts `module` into evaluation mode, except layers with running statistics, which follow `training`.

    BatchNorm then normalises by the batch during training, as in the official code of MoCo, BYOL, DINO and MSN, while
    dropout and drop path add no noise to the targets: DINO and iBOT use drop path in the student only, data2vec and
    DINOv2 put the teacher into evaluation mode.
    """
    for layer in module.modules():
        layer.training = training and hasattr(layer, "running_var")


@torch.no_grad()
def ema_update(target: nn.Module, online: nn.Module, decay: float) -> None:
    """Parameters: target <- decay * target + (1 - decay) * online. Buffers (BatchNorm statistics) are copied."""
    torch._foreach_lerp_(list(target.parameters()), [p.detach() for p in online.parameters()], 1 - decay)
    for target_buffer, online_buffer in zip(target.buffers(), online.buffers(), strict=True):
        target_buffer.copy_(online_buffer)


def ema_update_cosine(target: nn.Module, online: nn.Module, start: float, progress: float) -> None:
    """`ema_update` with a decay that rises from `start` to 1 over the run along a half-cosine."""
    ema_update(target, online, cosine_schedule(start, 1.0, progress))
