"""CLIP's loss against a double loop, known values, identities, transformers; the scale's limit; two processes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.text import TextTransformer
from ssl_zoo.distributed import all_reduce_mean, gather_batch_norm, rank, world_size
from ssl_zoo.method import Batch
from ssl_zoo.methods.clip import CLIP, clip_loss
from tests import distributed


def naive(images: Tensor, texts: Tensor, scale: float) -> float:
    """Figure 3, one number at a time."""
    count, total = len(images), 0.0
    logits = [[scale * float(image @ text) for text in texts] for image in images]
    for i in range(count):
        over_texts = sum(math.exp(logits[i][j]) for j in range(count))
        over_images = sum(math.exp(logits[j][i]) for j in range(count))
        total -= (math.log(math.exp(logits[i][i]) / over_texts) + math.log(math.exp(logits[i][i]) / over_images)) / 2
    return total / count


def unit(rows: int, width: int = 8) -> Tensor:
    return F.normalize(torch.randn(rows, width), dim=1)


def clip() -> CLIP:
    image = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    image.num_features = 8  # type: ignore[assignment]
    text = TextTransformer("eva02_tiny_patch14_224", 50, 6, depth=1, embed_dim=16, num_heads=2)
    return CLIP(image, text, out_dim=8, temperature=0.07, max_scale=100)


def pairs(count: int) -> Batch:
    ids = torch.randint(5, 50, (count, 6))
    ids[::2, 4:] = 0
    unknown = torch.full((count,), -1)
    return Batch([torch.randn(count, 3, 6, 6), ids], unknown, torch.arange(count))


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_loss_equals_a_double_loop(scale: float) -> None:
    images, texts = unit(7), unit(7)
    assert clip_loss(images, texts, torch.tensor(scale)).item() == pytest.approx(naive(images, texts, scale), rel=1e-5)


def test_loss_equals_transformers() -> None:
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    images, texts = unit(16), unit(16)
    expected = image_text_contrastive_loss(20 * texts @ images.T)
    torch.testing.assert_close(clip_loss(images, texts, torch.tensor(20.0)), expected)


def test_known_values() -> None:
    same = F.normalize(torch.ones(10, 4), dim=1)
    assert clip_loss(same, same, torch.tensor(30.0)).item() == pytest.approx(math.log(10), abs=1e-5)  # 1 of 10
    apart = torch.eye(4)  # log(e^s + 3) - s
    assert clip_loss(apart, apart, torch.tensor(2.0)).item() == pytest.approx(math.log(math.exp(2) + 3) - 2, abs=1e-6)


def test_loss_is_symmetric_and_blind_to_order() -> None:
    images, texts, scale, order = unit(9), unit(9), torch.tensor(10.0), torch.randperm(9)
    loss = clip_loss(images, texts, scale)
    torch.testing.assert_close(clip_loss(texts, images, scale), loss)
    torch.testing.assert_close(clip_loss(images[order], texts[order], scale), loss)
    assert clip_loss(images, texts[order], scale) != loss


def test_loss_is_float32_under_autocast() -> None:
    images, texts, scale = unit(9), unit(9), torch.tensor(100.0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = clip_loss(images, texts, scale)
    assert torch.equal(inside, clip_loss(images, texts, scale))


def test_forward_is_the_loss_of_the_embeddings_and_every_parameter_learns() -> None:
    method, batch = clip(), pairs(6)
    found = method(batch, 0.0)
    assert found["scale"].item() == pytest.approx(1 / 0.07)
    images, texts = method.embed_image(batch.views[0]), method.embed_text(batch.views[1])
    for embedded in (images, texts):
        assert embedded.shape == (6, 8)
        torch.testing.assert_close(embedded.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(found["loss"], clip_loss(images, texts, found["scale"]))
    found["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    assert method.encoder is method.backbone


def test_several_image_views_average() -> None:
    method, batch = clip().eval(), pairs(6)
    (one, ids), two = batch.views, torch.randn(6, 3, 6, 6)
    losses = [method(batch._replace(views=[view, ids]), 0.0)["loss"] for view in (one, two)]
    torch.testing.assert_close(method(batch._replace(views=[one, two, ids]), 0.0)["loss"], torch.stack(losses).mean())


def test_the_scale_is_clipped_after_a_step_and_can_return() -> None:
    method = clip()
    with torch.no_grad():
        method.log_scale.fill_(7.0)
        method.after_step(0.5)
    assert method.log_scale.exp().item() == pytest.approx(100, rel=1e-5)
    method(pairs(6), 0.0)["loss"].backward()
    assert method.log_scale.grad is not None
    assert method.log_scale.grad != 0


def test_pairs_are_learned() -> None:
    method, batch = clip(), pairs(16)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
    for _ in range(100):
        loss = method(batch, 0.0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3 < math.log(16)


def step() -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients as DistributedDataParallel would average them."""
    torch.manual_seed(0)
    method, batch = clip(), pairs(16)
    gather_batch_norm(method)
    part = Batch(*([x.chunk(world_size())[rank()] for x in batch.views], *batch[1:]))
    loss = method(part, 0.3)["loss"]
    loss.backward()
    gradients = {n: all_reduce_mean(p.grad).clone() for n, p in method.named_parameters() if p.grad is not None}
    return all_reduce_mean(loss.detach()), gradients


def test_two_processes_equal_one() -> None:
    loss, gradients = step()
    for shared_loss, shared_gradients in distributed.run(2, step):
        torch.testing.assert_close(shared_loss, loss, rtol=2e-5, atol=0)
        largest = max(float(g.abs().max()) for g in gradients.values())
        for name, gradient in gradients.items():
            assert (shared_gradients[name] - gradient).abs().max() < 2e-5 * largest, name


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0}, r"method\.temperature=0"),
        ({"out_dim": 0}, r"method\.out_dim=0"),
        ({"max_scale": math.inf}, r"method\.max_scale=inf"),
        ({"temperature": 0.001}, r"method\.max_scale=100 must be at least 1 / method\.temperature=1000"),
    ],
)
def test_mistakes_are_named(settings: dict, words: str) -> None:
    net = nn.Linear(2, 2)
    net.num_features = 2  # type: ignore[assignment]
    with pytest.raises(ValueError, match=words):
        CLIP(net, net, **({"out_dim": 8, "temperature": 0.07, "max_scale": 100} | settings))
