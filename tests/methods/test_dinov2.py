"""DINOv2's three losses against loops and lightly; its heads, teacher and masks; images and text."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.backbones.text import TextTransformer
from ssl_zoo.backbones.tokens import embed, encode
from ssl_zoo.method import Batch
from ssl_zoo.methods.dinov2 import DINOv2, koleo
from ssl_zoo.nn.token_masking import mask_one_view
from ssl_zoo.schedules import cosine_schedule

TINY: dict[str, Any] = {"depth": 2, "embed_dim": 16, "num_heads": 2, "mlp_ratio": 2}
B, N, NUM_MASKED = 5, 16, 5  # tokens of a view; round(0.3 * 16) are masked


def make(text: bool = False, **changes: Any) -> DINOv2:
    vit = {"image_size": 8, "patch_size": 2, "global_pool": "avg", "fc_norm": False, **TINY}
    backbone = (
        TextTransformer("eva02_tiny_patch14_224", 30, N, **TINY)
        if text
        else image_backbone("vit_tiny_patch16_224", 3, **vit)
    )
    numbers = {"temperature": 0.1, "freeze_until": 0.1, "ema_decay": 0.8, "mask_ratio": 0.3, "koleo_weight": 0.1}
    numbers |= {"teacher_temperature": 0.07, "teacher_temperature_start": 0.04, "teacher_temperature_warmup": 0.5}
    method = DINOv2(backbone, 16, 8, 10, **(numbers | changes))
    with torch.no_grad():
        method.mask_token.normal_()
        # so that the student is not the teacher
        method.projector.mlp[0].weight.normal_()  # type: ignore[operator]
        method.token_projector.mlp[0].weight.normal_()  # type: ignore[operator]
    return method


def make_batch(local: int = 0) -> Batch:
    labels = torch.zeros(B, dtype=torch.long)
    return Batch([torch.randn(B, 3, size, size) for size in [8, 8] + [4] * local], labels, labels)


def balanced(scores: torch.Tensor, temperature: float) -> torch.Tensor:
    q = torch.exp(scores / temperature)
    for _ in range(3):
        q = q / q.sum(0)
        q = q / q.sum(1, keepdim=True)
    return q


@pytest.mark.parametrize("local", [0, 2])
def test_all_losses_equal_loops(local: int) -> None:
    method, batch = make(), make_batch(local)
    torch.manual_seed(3)
    scalars = method(batch, 0.25)
    torch.manual_seed(3)
    masked = mask_one_view(torch.stack(batch.views[:2], dim=1), method.backbone, method.mask)
    mask = masked.mask.view(B, 2, N)
    teacher, t_projector, t_token_projector = method.teacher.children()
    pooled, t_pooled, tokens, t_tokens = [], [], [], []
    for v, view in enumerate(batch.views[:2]):
        x = torch.where(mask[:, v].unsqueeze(-1), method.mask_token, embed(method.backbone, view))
        out, known = encode(method.backbone, view, embeddings=x), encode(teacher, view)
        pooled.append(out.pooled)
        t_pooled.append(t_projector(known.pooled))
        tokens.append(method.token_projector(out.tokens[mask[:, v]]))
        t_tokens.append(t_token_projector(known.tokens[mask[:, v]]))
    s = [method.projector(h) for h in [*pooled, *(method.backbone(view) for view in batch.views[2:])]]
    t = balanced(torch.cat(t_pooled), 0.055).chunk(2)
    views = [
        -(t[i] * F.log_softmax(s[j] / 0.1, dim=1)).sum(1).mean() for i in range(2) for j in range(len(s)) if i != j
    ]
    torch.testing.assert_close(scalars["pooled"], torch.stack(views).mean(), rtol=1e-4, atol=1e-5)
    token_t = balanced(torch.cat(t_tokens), 0.055)
    each = -(token_t * F.log_softmax(torch.cat(tokens) / 0.1, dim=1)).sum(1)
    torch.testing.assert_close(scalars["tokens"], each.sum() / NUM_MASKED / (2 * B), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scalars["koleo"], (koleo(pooled[0]) + koleo(pooled[1])) / 2)
    torch.testing.assert_close(scalars["loss"], scalars["pooled"] + scalars["tokens"] + 0.1 * scalars["koleo"])


def test_koleo_equals_a_loop_and_lightly() -> None:
    from lightly.loss import KoLeoLoss

    x = torch.randn(9, 6, requires_grad=True)
    unit = F.normalize(x, dim=1)
    distances = [torch.stack([(unit[i] - unit[j]).norm() for j in range(9) if i != j]).min() for i in range(9)]
    assert koleo(x).item() == pytest.approx(-torch.stack(distances).log().mean().item(), rel=1e-4)
    torch.testing.assert_close(koleo(x), KoLeoLoss()(x))
    (mine,) = torch.autograd.grad(koleo(x), x)
    (theirs,) = torch.autograd.grad(KoLeoLoss()(x), x)
    torch.testing.assert_close(mine, theirs)


def test_koleo_of_opposite_points_is_minus_log_two() -> None:
    assert koleo(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])).item() == pytest.approx(-0.6931472, abs=1e-5)


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-3])
def test_koleo_of_equal_examples_has_a_floor_and_no_gradient(noise: float) -> None:
    x = (torch.ones(4, 3) + noise * torch.randn(4, 3)).requires_grad_()
    value = koleo(x)
    value.backward()
    assert value.item() == pytest.approx(-math.log(0.01), rel=1e-5)
    assert x.grad is not None
    assert not x.grad.any()


def test_every_trained_parameter_gets_a_gradient_and_the_teacher_none() -> None:
    method, batch = make(), make_batch(local=1)
    for progress, learns in ((0.05, False), (0.5, True)):
        method.zero_grad()
        method(batch, progress)["loss"].backward()
        trained = {name: p for name, p in method.named_parameters() if not name.startswith("teacher")}
        assert all(p.grad is not None for p in trained.values())
        for name in ("projector", "token_projector"):
            assert bool(trained[f"{name}.prototypes.weight"].grad.any()) == learns  # type: ignore[union-attr]
        assert all(p.grad is None for p in method.teacher.parameters())


def test_the_teacher_moves_by_the_scheduled_decay() -> None:
    method = make()
    before = method.teacher[2].mlp[0].weight.clone()  # type: ignore[index]
    method.after_step(0.6)
    decay = cosine_schedule(0.8, 1.0, 0.6)
    expected = decay * before + (1 - decay) * method.token_projector.mlp[0].weight  # type: ignore[operator]
    torch.testing.assert_close(method.teacher[2].mlp[0].weight, expected)  # type: ignore[index]


def test_padding_counts_neither_in_the_token_loss_nor_in_the_balance() -> None:
    method = make(text=True).eval()
    ids = torch.randint(5, 30, (B, 2, N))
    ids[0, :, 3:] = 0
    torch.manual_seed(3)
    scalars = method(Batch(list(ids.unbind(1)), ids[:, 0, 0], ids[:, 0, 0]), 0.5)
    torch.manual_seed(3)
    masked = mask_one_view(ids, method.backbone, method.mask)
    rows, mask = ids.flatten(0, 1), masked.mask.view(2 * B, N)
    teacher, _, token_projector = method.teacher.children()
    t = balanced(token_projector(encode(teacher, rows).tokens[mask]), 0.07)
    x = torch.where(mask.unsqueeze(-1), method.mask_token, embed(method.backbone, rows))
    s = method.token_projector(encode(method.backbone, rows, embeddings=x).tokens[mask])
    each = -(t * F.log_softmax(s / 0.1, dim=1)).sum(1)
    assert len(each) == 1 + NUM_MASKED * (B - 1)
    torch.testing.assert_close(scalars["tokens"], each.mean() / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("short", [1, 0])
def test_texts_too_short_to_mask_any_are_finite(short: int) -> None:
    method = make(text=True)
    ids = torch.randint(5, 30, (B, 2, N))
    ids[:, :, short:] = 0
    scalars = method(Batch(list(ids.unbind(1)), ids[:, 0, 0], ids[:, 0, 0]), 0.5)
    scalars["loss"].backward()
    assert scalars["tokens"] == 0
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


@pytest.mark.parametrize(("key", "value"), [("mask_ratio", 1.0), ("koleo_weight", 0.0), ("freeze_until", 2.0)])
def test_bad_values_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        make(**{key: value})  # type: ignore[arg-type]
