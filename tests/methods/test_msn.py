"""MSN's loss against a loop and lightly; dropped tokens; the mean entropy's extremes."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.backbones.text import TextTransformer
from ssl_zoo.backbones.tokens import encode
from ssl_zoo.method import Batch
from ssl_zoo.methods.msn import MSN
from ssl_zoo.nn.masks import num_masked
from ssl_zoo.schedules import cosine_schedule

TINY: dict[str, Any] = {"depth": 2, "embed_dim": 16, "num_heads": 2, "mlp_ratio": 2}
B, N = 5, 16


def make(text: bool = False, **changes: Any) -> MSN:
    vit = {"image_size": 8, "patch_size": 2, "global_pool": "avg", "fc_norm": False, **TINY}
    backbone = (
        TextTransformer("eva02_tiny_patch14_224", 30, N, **TINY)
        if text
        else image_backbone("vit_tiny_patch16_224", 3, **vit)
    )
    numbers = {"temperature": 0.1, "sharpening": 0.25, "entropy_weight": 2.0, "mask_ratio": 0.3, "ema_decay": 0.8}
    return MSN(backbone, 16, 8, 10, **(numbers | changes))


def make_batch(local: int = 0) -> Batch:
    labels = torch.zeros(B, dtype=torch.long)
    return Batch([torch.randn(B, 3, size, size) for size in [8, 8] + [4] * local], labels, labels)


def seeded(method: MSN, batch: Batch) -> tuple[dict[str, torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """A forward pass, and the projections of its anchors and targets."""
    torch.manual_seed(3)
    scalars = method(batch, 0.5)
    torch.manual_seed(3)
    h = [*(method.drop(view) for view in batch.views[:2]), *(method.backbone(view) for view in batch.views[2:])]
    anchors = method.projector(torch.cat(h)).chunk(len(h))
    targets = method.target(torch.cat(batch.views[:2])).chunk(2)
    return scalars, list(anchors), list(targets)


@pytest.mark.parametrize("local", [0, 2])
def test_loss_equals_the_loop_of_eq_1(local: int) -> None:
    method, batch = make(), make_batch(local)
    scalars, anchors, targets = seeded(method, batch)
    unit = F.normalize(method.prototypes.weight, dim=1)
    total, count, predictions = 0.0, 0, []
    for j, anchor in enumerate(anchors):
        for b in range(B):
            p = F.softmax(F.normalize(anchor[b], dim=0) @ unit.T / 0.1, dim=0)
            predictions.append(p)
            for i, target in enumerate(targets):
                if i != j:
                    t = F.softmax(F.normalize(target[b], dim=0) @ unit.T / 0.1, dim=0) ** (1 / 0.25)
                    total -= (t / t.sum() * p.log()).sum().item()
                    count += 1
    mean = torch.stack(predictions).mean(0)
    missing = math.log(10) + (mean * mean.log()).sum().item()
    assert scalars["match"].item() == pytest.approx(total / count, rel=1e-4)
    assert scalars["missing_entropy"].item() == pytest.approx(missing, rel=1e-3, abs=1e-6)
    assert scalars["loss"].item() == pytest.approx(total / count + 2 * missing, rel=1e-4)


def test_loss_equals_lightly() -> None:
    """lightly takes one target view: ours is the mean of both directions in the first term, and one entropy of all."""
    from lightly.loss import MSNLoss

    method, batch = make(entropy_weight=1.0), make_batch()
    scalars, anchors, targets = seeded(method, batch)
    without = MSNLoss(sinkhorn_iterations=0, regularization_weight=0)
    q = method.prototypes.weight
    match = (without(anchors[1], targets[0], q) + without(anchors[0], targets[1], q)) / 2
    torch.testing.assert_close(scalars["match"], match)
    both = MSNLoss(sinkhorn_iterations=0, regularization_weight=1.0)
    z, t = torch.cat(anchors), torch.cat(targets).roll(B, 0)
    torch.testing.assert_close(scalars["loss"], both(z, t, q))


def test_missing_entropy_is_zero_for_equal_prototypes() -> None:
    method = make()
    with torch.no_grad():
        method.prototypes.weight.fill_(1)
    scalars = method(make_batch(), 0.5)
    assert scalars["missing_entropy"].item() == pytest.approx(0, abs=1e-5)
    assert scalars["match"].item() == pytest.approx(math.log(10), abs=1e-5)


def test_missing_entropy_is_log_k_when_one_prototype_takes_all() -> None:
    method = make(temperature=0.001)
    with torch.no_grad():
        last = method.projector[-1]
        last.weight.zero_()  # type: ignore[operator]
        last.bias.copy_(method.prototypes.weight[3])  # type: ignore[operator]
    assert method(make_batch(), 0.5)["missing_entropy"].item() == pytest.approx(math.log(10), abs=1e-5)


def test_dropped_tokens_have_no_influence_and_the_rest_keep_their_places() -> None:
    method, view = make().eval(), torch.randn(B, 3, 8, 8)
    torch.manual_seed(3)
    h = method.drop(view)
    torch.manual_seed(3)
    mask = method.mask(torch.ones(B, N, dtype=torch.bool), (4, 4))
    assert torch.equal(mask.sum(1), torch.full((B,), num_masked(0.3, N)))
    keep = torch.stack([(~row).nonzero().flatten() for row in mask])
    torch.testing.assert_close(h, encode(method.backbone, view, keep=keep).pooled)
    patch = mask.view(B, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    other = torch.where(patch, torch.randn_like(view), view)
    torch.manual_seed(3)
    torch.testing.assert_close(method.drop(other), h)


def test_every_text_keeps_its_share_however_short() -> None:
    method = make(text=True).eval()
    ids = torch.randint(5, 30, (B, N))
    for row, length in enumerate((0, 1, 2, 8)):
        ids[row, length:] = 0
    torch.manual_seed(3)
    h = method.drop(ids)
    torch.manual_seed(3)
    mask = method.mask(ids != 0, (1, N))
    assert mask.sum(1).tolist() == [0, 0, 1, 2, 5]
    for i in range(1, B):
        keep = ((ids[i] != 0) & ~mask[i]).nonzero().T
        torch.testing.assert_close(h[i], encode(method.backbone, ids[i, None], keep=keep).pooled[0])
    scalars = method.train()(Batch([ids, ids.flip(0)], ids[:, 0], ids[:, 0]), 0.5)
    scalars["loss"].backward()
    assert all(value.isfinite() for value in scalars.values())
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_the_target_takes_no_gradient_and_moves_by_the_scheduled_decay() -> None:
    method = make()
    method(make_batch(local=1), 0.0)["loss"].backward()
    assert all(p.grad is None for p in method.target.parameters())
    assert all(p.grad is not None for name, p in method.named_parameters() if not name.startswith("target"))
    before = method.target[1][0].weight.clone()  # type: ignore[index]
    with torch.no_grad():
        method.projector[0].weight.add_(1)  # type: ignore[operator]
    method.after_step(0.6)
    torch.testing.assert_close(method.target[1][0].weight, before + 1 - cosine_schedule(0.8, 1.0, 0.6))  # type: ignore[index]


@pytest.mark.parametrize(("key", "value"), [("mask_ratio", 1.0), ("sharpening", 0.0), ("ema_decay", 1.0)])
def test_bad_values_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        make(**{key: value})  # type: ignore[arg-type]
