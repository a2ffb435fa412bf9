"""Maths that several papers share, by the names the papers use. Letters: B batch, D width, W processes, K keys."""

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.distributed import all_gather, all_reduce_mean, rank, world_size


def mean_over(values: Tensor, where: Tensor) -> Tensor:
    """Mean of `values` at the True entries of `where`; its average over the processes is the mean over the global batch
    even if they hold different numbers of entries."""
    return values.masked_fill(~where, 0).sum() / all_reduce_mean(where.sum().float()).clamp(min=1)


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


def cosine_distance(x: Tensor, y: Tensor) -> Tensor:
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
