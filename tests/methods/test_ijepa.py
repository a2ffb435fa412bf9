"""I-JEPA's blocks, context and loss against loops; what predictor and target encoder see."""

import pytest
import timm
import torch
from torch import nn

from ssl_zoo.backbones import tokens
from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.backbones.text import TextTransformer
from ssl_zoo.method import Batch
from ssl_zoo.methods.ijepa import IJEPA, Division

LABELS = torch.zeros(4, dtype=torch.long)


def vit() -> nn.Module:
    small = {"depth": 2, "embed_dim": 32, "num_heads": 2, "global_pool": "avg", "fc_norm": False}
    return image_backbone("vit_tiny_patch16_224", 3, 16, **small)  # type: ignore[arg-type]


def make(backbone: nn.Module | None = None, **changes: object) -> IJEPA:
    settings = {
        "context_ratio": 0.25,
        "num_targets": 4,
        "target_scale": [0.15, 0.2],
        "target_aspect": [0.75, 1.5],
        "predictor_dim": 16,
        "predictor_depth": 1,
        "predictor_num_heads": 2,
        "ema_decay": 0.9,
    }
    return IJEPA(backbone or vit(), **settings | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("grid", [(4, 4), (8, 8), (14, 14), (1, 64)])
def test_block_sizes_keep_to_scale_and_aspect(grid: tuple[int, int]) -> None:
    method, area = make(), grid[0] * grid[1]
    sizes = {method.block_size(grid, torch.device("cpu")) for _ in range(200)}
    assert len(sizes) > 1
    for height, exact in sizes:
        width = min(max(round(exact), 1), grid[1])  # both sides are rounded to whole tokens
        assert (height - 0.5) * (width - 0.5) < 0.2 * area
        assert (height + 0.5) * (width + 0.5) > 0.15 * area
        assert height <= grid[0]
        assert grid[0] == 1 or 0.75 * (width - 0.5) - 0.5 < height < 1.5 * (width + 0.5) + 0.5


@pytest.mark.parametrize("size", [8, 16, 32])
def test_context_and_counted_targets_never_meet(size: int) -> None:
    method, view = make(), torch.randn(64, 3, size, size)
    n = (size // 2) ** 2
    for _ in range(5):
        context, blocks, inside, counts = method.divide(view)
        assert inside.all()
        assert context.shape == (64, n // 4)
        assert blocks.shape == counts.shape
        assert counts.flatten(1).any(dim=1).all()
        for seen, targets, counted in zip(context, blocks, counts, strict=True):
            assert len(set(seen.tolist())) == n // 4
            assert not set(seen.tolist()) & set(targets[counted].tolist())
            assert set(targets[~counted].tolist()) <= set(seen.tolist())
        if blocks[0].numel() <= n - n // 4:  # the context finds room outside, wherever the targets lie
            assert counts.all()


def test_the_loss_is_smooth_l1_to_the_normalised_targets() -> None:
    method, view = make(), torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        for p in method.backbone.parameters():  # so that target and context encoder differ
            p.mul_(1.3)
    torch.manual_seed(1)
    loss = method(Batch([view], LABELS, LABELS), 0.0)["loss"]
    torch.manual_seed(1)
    division = method.divide(view)
    _, blocks, _, counts = division
    predictions, targets = method.predict(view, division), tokens.encode(method.target, view).tokens
    errors = []
    for b, t, k in counts.nonzero().tolist():
        wanted = targets[b, int(blocks[b, t, k])]
        wanted = (wanted - wanted.mean()) / (wanted.var(correction=0) + 1e-5).sqrt()
        distance = (predictions[b, t, k] - wanted).abs()
        errors.append(torch.where(distance < 1, distance.square() / 2, distance - 0.5).mean())
    torch.testing.assert_close(loss, torch.stack(errors).mean())


def test_blocks_are_predicted_from_the_context_alone_each_by_itself() -> None:
    method, view = make().eval(), torch.randn(4, 3, 16, 16)
    division = method.divide(view)
    clean = method.predict(view, division)
    context, blocks, inside, counted = division
    seen = torch.zeros(4, 64).scatter(1, context, 1).view(4, 1, 8, 8).repeat_interleave(2, 2).repeat_interleave(2, 3)
    noisy = view + 9 * (1 - seen) * torch.randn_like(view)
    other_order = division._replace(context=context.flip(1))
    other_blocks = Division(context, blocks.flip(1), inside, counted)
    torch.testing.assert_close(method.predict(noisy, division), clean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(method.predict(view, other_order), clean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(method.predict(view, other_blocks).flip(1), clean, atol=1e-5, rtol=1e-5)


def test_a_predictor_that_gives_zero_has_a_known_loss() -> None:
    method, view = make(), torch.randn(4, 3, 16, 16)
    last = method.predictor.blocks[-1]
    nn.init.zeros_(last.weight)  # type: ignore[arg-type]
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    loss = method(Batch([view], LABELS, LABELS), 0.0)["loss"].item()
    assert 0.3 < loss < 0.5  # 0.5 for squares alone; a normal variable has 0.367 under smooth L1


def test_the_target_encoder_is_kept_and_takes_no_gradient() -> None:
    method = make()
    method(Batch([torch.randn(4, 3, 16, 16)] * 2, LABELS, LABELS), 0.0)["loss"].backward()
    assert method.encoder is method.target
    assert all(p.grad is None for p in method.target.parameters())
    assert [n for n, p in method.named_parameters() if p.grad is None and p.requires_grad] == []


@pytest.mark.parametrize("progress", [0.0, 0.5, 0.999])
def test_the_target_moves_by_a_decay_that_grows_linearly(progress: float) -> None:
    method = make()
    before = [p.clone() for p in method.target.parameters()]
    with torch.no_grad():
        for p in method.backbone.parameters():
            p.add_(1)
    method.after_step(progress)
    for now, old in zip(method.target.parameters(), before, strict=True):
        torch.testing.assert_close(now, old + 0.1 * (1 - progress), atol=1e-6, rtol=1e-5)


TEXT = TextTransformer("eva02_tiny_patch14_224", 50, 24, depth=2, embed_dim=32, num_heads=2)


def texts(*lengths: int) -> torch.Tensor:
    ids = torch.randint(4, 50, (len(lengths), 24))
    return ids.masked_fill(torch.arange(24) >= torch.tensor(lengths)[:, None], 0)


def test_context_and_targets_of_a_text_are_shares_of_its_own_tokens() -> None:
    method, lengths = make(TEXT), (0, 1, 2, 3, 8, 12, 24)
    ids = texts(*lengths)
    for _ in range(20):
        context, blocks, inside, counted = method.divide(ids)
        seen = (ids != 0).gather(1, context)
        assert seen.sum(1).tolist() == [0, 1, 1, 1, 2, 3, 6]  # round(n / 4) from two tokens on
        for i, length in enumerate(lengths):
            chosen = set(context[i][seen[i]].tolist())
            targets = blocks[i][counted[i]].tolist()
            assert not chosen & set(targets)
            assert all(token < length for token in [*chosen, *targets])
            assert bool(targets) == (length >= 2)
        assert inside[:, 0].sum(1)[-1] in (4, 5)  # 0.15 to 0.2 of 24
        assert inside[:, 0].sum(1)[-2] == 2
    loss = method(Batch([ids], LABELS, LABELS), 0.0)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_padding_has_no_influence_on_the_predictions_of_a_text() -> None:
    method, ids = make(TEXT).eval(), texts(24, 10)
    division = method.divide(ids)
    predictions = method.predict(ids, division)[1]
    m, k = int((division.context[1] < 10).sum()), int(division.inside[1, 0].sum())
    assert m < division.context.shape[1]
    assert k < division.blocks.shape[2]
    alone = Division(division.context[1:, :m], division.blocks[1:, :, :k], division.inside[1:, :, :k], division.counted)
    torch.testing.assert_close(predictions[:, :k], method.predict(ids[1:], alone)[0], atol=1e-5, rtol=1e-5)


def test_a_batch_without_any_target_has_the_loss_zero() -> None:
    assert make(TEXT)(Batch([texts(1, 1, 0)], LABELS, LABELS), 0.0)["loss"] == 0


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="has no tokens"):
        make(timm.create_model("resnet10t", num_classes=0))
    bad: dict[str, object] = {"predictor_dim": 18, "target_scale": [0.2, 0.1], "target_aspect": [0, 1]}
    for name, value in bad.items():
        with pytest.raises(ValueError, match=rf"method\.{name}="):
            make(**{name: value})
