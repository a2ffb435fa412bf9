"""iBOT's two losses against loops and lightly; its masks, centres, teacher; images and text."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.backbones.text import TextTransformer
from ssl_zoo.backbones.tokens import embed, encode
from ssl_zoo.method import Batch
from ssl_zoo.methods.ibot import IBOT
from ssl_zoo.nn.token_masking import MaskedTokens, mask_one_view
from ssl_zoo.schedules import cosine_schedule

TINY: dict[str, Any] = {"depth": 2, "embed_dim": 16, "num_heads": 2, "mlp_ratio": 2}
B, N, NUM_MASKED = 5, 16, 5  # tokens of a view; round(0.3 * 16) are masked


def make(text: bool = False, **changes: Any) -> IBOT:
    vit = {"image_size": 8, "patch_size": 2, "global_pool": "avg", "fc_norm": False, **TINY}
    backbone = (
        TextTransformer("eva02_tiny_patch14_224", 30, N, **TINY)
        if text
        else image_backbone("vit_tiny_patch16_224", 3, **vit)
    )
    numbers = {"temperature": 0.1, "freeze_until": 0.1, "center_decay": 0.9, "ema_decay": 0.8, "mask_ratio": 0.3}
    numbers |= {"teacher_temperature": 0.07, "teacher_temperature_start": 0.04, "teacher_temperature_warmup": 0.5}
    method = IBOT(backbone, 16, 8, 10, **(numbers | changes))
    with torch.no_grad():
        method.mask_token.normal_()
        # so that the student is not the teacher
        method.projector.mlp[0].weight.normal_()  # type: ignore[operator]
    return method


def make_batch(local: int = 0) -> Batch:
    labels = torch.zeros(B, dtype=torch.long)
    return Batch([torch.randn(B, 3, size, size) for size in [8, 8] + [4] * local], labels, labels)


def scores(method: IBOT, batch: Batch, masked: MaskedTokens) -> dict[str, Tensor]:
    """What student and teacher say, one view at a time: views (V, B, K) and all tokens (B, V, N, K)."""
    mask = masked.mask.view(B, 2, N)
    pooled, tokens, t_pooled, t_tokens = [], [], [], []
    for v, view in enumerate(batch.views):
        if v >= 2:
            pooled.append(method.projector(method.backbone(view)))
            continue
        x = embed(method.backbone, view)
        x = torch.where(mask[:, v].unsqueeze(-1), method.mask_token, x)
        out, known = encode(method.backbone, view, embeddings=x), encode(method.teacher, view)
        pooled.append(method.projector(out.pooled))
        tokens.append(method.projector(out.tokens))
        t_pooled.append(method.teacher_projector(known.pooled))
        t_tokens.append(method.teacher_projector(known.tokens))
    found = {"s": torch.stack(pooled), "t": torch.stack(t_pooled)}
    return found | {"s_tokens": torch.stack(tokens, 1), "t_tokens": torch.stack(t_tokens, 1)}


def seeded(method: IBOT, batch: Batch, progress: float) -> tuple[dict[str, Tensor], MaskedTokens]:
    """One forward pass and what it hid."""
    torch.manual_seed(3)
    scalars = method(batch, progress)
    torch.manual_seed(3)
    return scalars, mask_one_view(torch.stack(batch.views[:2], dim=1), method.backbone, method.mask)


@pytest.mark.parametrize("local", [0, 2])
def test_both_losses_equal_loops(local: int) -> None:
    method, batch = make().eval(), make_batch(local)
    method.center.copy_(torch.randn(10) / 10)
    method.token_center.copy_(torch.randn(10) / 10)
    scalars, masked = seeded(method, batch, 0.25)
    found = scores(method, batch, masked)
    views = []
    for i in range(2):
        for j in range(2 + local):
            if i != j:
                t = F.softmax((found["t"][i] - method.center) / 0.055, dim=1)
                views.append(-(t * F.log_softmax(found["s"][j] / 0.1, dim=1)).sum(1).mean())
    assert scalars["pooled"].item() == pytest.approx(sum(views).item() / len(views), rel=1e-4)  # type: ignore[union-attr]
    total = 0.0
    for b in range(B):
        for v in range(2):
            for n in range(N):
                if masked.mask.view(B, 2, N)[b, v, n]:
                    t = F.softmax((found["t_tokens"][b, v, n] - method.token_center) / 0.055, dim=0)
                    s = F.log_softmax(found["s_tokens"][b, v, n] / 0.1, dim=0)
                    total -= (t * s).sum().item() / NUM_MASKED / (2 * B)
    assert scalars["tokens"].item() == pytest.approx(total, rel=1e-4)
    torch.testing.assert_close(scalars["loss"], scalars["pooled"] + scalars["tokens"])


def test_losses_and_centres_equal_lightly() -> None:
    """lightly's token loss is a mean over masked views: twice ours, where every other view counts 0 as in the paper."""
    from lightly.loss import DINOLoss, IBOTPatchLoss

    method, batch = make(), make_batch()
    dino, ibot = DINOLoss(10), IBOTPatchLoss(10)
    for _ in range(2):  # the second time with centres
        scalars, masked = seeded(method, batch, 0.8)
        found = scores(method, batch, masked)
        mask = masked.mask.view(B, 2 * N)
        grid_mask = mask.unsqueeze(1)  # (B, 1, VN): one row of tokens
        t = found["t_tokens"].flatten(1, 2)[mask]
        s = found["s_tokens"].flatten(1, 2)[mask]
        torch.testing.assert_close(scalars["pooled"], dino(list(found["t"]), list(found["s"]), teacher_temp=0.07))
        torch.testing.assert_close(2 * scalars["tokens"], ibot(t, s, grid_mask, teacher_temp=0.07))
        torch.testing.assert_close(method.center, dino.center.flatten())
        torch.testing.assert_close(method.token_center, ibot.center.value.flatten())


def test_every_trained_parameter_gets_a_gradient_and_the_teacher_none() -> None:
    method, batch = make(), make_batch(local=1)
    for progress, learns in ((0.05, False), (0.5, True)):
        method.zero_grad()
        method(batch, progress)["loss"].backward()
        trained = {name: p for name, p in method.named_parameters() if not name.startswith("teacher")}
        assert all(p.grad is not None for p in trained.values())
        assert bool(trained["projector.prototypes.weight"].grad.any()) == learns  # type: ignore[union-attr]
        assert all(p.grad is None for p in [*method.teacher.parameters(), *method.teacher_projector.parameters()])


def test_the_teacher_moves_by_the_scheduled_decay() -> None:
    method = make()
    before = method.teacher_projector.mlp[0].weight.clone()  # type: ignore[index, union-attr]
    method.after_step(0.6)
    decay = cosine_schedule(0.8, 1.0, 0.6)
    expected = decay * before + (1 - decay) * method.projector.mlp[0].weight  # type: ignore[operator]
    torch.testing.assert_close(method.teacher_projector.mlp[0].weight, expected)  # type: ignore[index, union-attr]


def test_text_with_padding_hides_no_padding() -> None:
    method = make(text=True)
    ids = torch.randint(5, 30, (B, 2, N))
    ids[0, :, 3:] = 0
    masked = mask_one_view(ids, method.backbone, method.mask)
    assert not (masked.mask & (ids.flatten(1) == 0)).any()
    assert masked.valid.sum(1).tolist() == [1, *[NUM_MASKED] * (B - 1)]  # of three tokens, of sixteen


def test_every_masked_token_of_texts_counts_alike() -> None:
    method = make(text=True).eval()
    ids = torch.randint(5, 30, (B, 2, N))
    ids[0, :, 3:] = 0
    batch = Batch(list(ids.unbind(1)), ids[:, 0, 0], ids[:, 0, 0])
    scalars, masked = seeded(method, batch, 0.5)
    found, mask = scores(method, batch, masked), masked.mask.view(B, 2, N)
    t = F.softmax(found["t_tokens"][mask] / 0.07, dim=1)
    each = -(t * F.log_softmax(found["s_tokens"][mask] / 0.1, dim=1)).sum(1)
    assert len(each) == 1 + NUM_MASKED * (B - 1)
    torch.testing.assert_close(scalars["tokens"], each.mean() / 2)


@pytest.mark.parametrize("short", [1, 0])
def test_texts_too_short_to_mask_any_are_finite(short: int) -> None:
    method = make(text=True)
    ids = torch.randint(5, 30, (B, 2, N))
    ids[:, :, short:] = 0
    scalars = method(Batch(list(ids.unbind(1)), ids[:, 0, 0], ids[:, 0, 0]), 0.5)
    scalars["loss"].backward()
    assert scalars["tokens"] == 0
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    assert method.token_center.isfinite().all()


def test_a_backbone_without_tokens_is_refused() -> None:
    backbone = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="vit_tiny"):
        IBOT(backbone, 16, 8, 10, 0.1, 0.07, 0.04, 0.5, 0.1, 0.9, 0.8, 0.3)


@pytest.mark.parametrize(("key", "value"), [("mask_ratio", 1.0), ("center_decay", 0.0), ("freeze_until", 2.0)])
def test_bad_values_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        make(**{key: value})  # type: ignore[arg-type]
