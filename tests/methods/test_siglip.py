"""SigLIP's loss against a double loop, known values, identities and transformers; two processes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.text import TextTransformer
from ssl_zoo.distributed import all_reduce_mean, gather_batch_norm, rank, world_size
from ssl_zoo.method import Batch
from ssl_zoo.methods.siglip import SigLIP, sigmoid_loss
from tests import distributed

SCALE, BIAS = torch.tensor(10.0), torch.tensor(-10.0)


def naive(images: Tensor, texts: Tensor, scale: float, bias: float) -> float:
    """Section 3.2, one number at a time."""
    count, total = len(images), 0.0
    for i in range(count):
        for j in range(count):
            z = 1 if i == j else -1
            total -= math.log(1 / (1 + math.exp(z * (-scale * float(images[i] @ texts[j]) - bias))))
    return total / count


def unit(rows: int, width: int = 8) -> Tensor:
    return F.normalize(torch.randn(rows, width), dim=1)


def siglip() -> SigLIP:
    image = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    image.num_features = 8  # type: ignore[assignment]
    text = TextTransformer("eva02_tiny_patch14_224", 50, 6, depth=1, embed_dim=16, num_heads=2)
    return SigLIP(image, text, out_dim=8, scale=10, bias=-10)


def pairs(count: int) -> Batch:
    ids = torch.randint(5, 50, (count, 6))
    ids[::2, 4:] = 0
    unknown = torch.full((count,), -1)
    return Batch([torch.randn(count, 3, 6, 6), ids], unknown, torch.arange(count))


@pytest.mark.parametrize(("scale", "bias"), [(10.0, -10.0), (1.0, 0.0), (60.0, -3.0)])
def test_loss_equals_a_double_loop(scale: float, bias: float) -> None:
    images, texts = unit(7), unit(7)
    found = sigmoid_loss(images, texts, torch.tensor(scale), torch.tensor(bias))
    assert found.item() == pytest.approx(naive(images, texts, scale, bias), rel=1e-5)


def test_loss_equals_transformers() -> None:
    from transformers import SiglipConfig, SiglipModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = sizes | {"vocab_size": 50, "max_position_embeddings": 6, "projection_size": 16}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=sizes | {"image_size": 8, "patch_size": 4}))
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))
        model.logit_bias.fill_(-10)
        out = model(torch.randint(5, 50, (12, 6)), torch.randn(12, 3, 8, 8), return_loss=True)
    assert out.loss is not None
    torch.testing.assert_close(sigmoid_loss(out.image_embeds, out.text_embeds, SCALE, BIAS), out.loss)


def test_known_values() -> None:
    same = F.normalize(torch.ones(10, 4), dim=1)
    zero = torch.tensor(0.0)
    assert sigmoid_loss(same, same, zero, zero).item() == pytest.approx(10 * math.log(2), rel=1e-6)  # a coin a text
    # logits 0 for pairs, -10 for all others: what the start of training is made for
    apart = sigmoid_loss(torch.eye(10), torch.eye(10), SCALE, BIAS).item()
    assert apart == pytest.approx(math.log(2) + 9 * math.log(1 + math.exp(-10)), rel=1e-5)


def test_loss_is_symmetric_and_blind_to_order() -> None:
    images, texts, order = unit(9), unit(9), torch.randperm(9)
    loss = sigmoid_loss(images, texts, SCALE, BIAS)
    torch.testing.assert_close(sigmoid_loss(texts, images, SCALE, BIAS), loss)
    torch.testing.assert_close(sigmoid_loss(images[order], texts[order], SCALE, BIAS), loss)
    assert sigmoid_loss(images, texts.roll(1, 0), SCALE, BIAS) != loss


def test_loss_is_float32_under_autocast() -> None:
    images, texts = unit(9), unit(9)
    with torch.autocast("cpu", torch.bfloat16):
        inside = sigmoid_loss(images, texts, SCALE, BIAS)
    assert torch.equal(inside, sigmoid_loss(images, texts, SCALE, BIAS))


def test_forward_is_the_loss_of_the_embeddings_and_every_parameter_learns() -> None:
    method, batch = siglip(), pairs(6)
    found = method(batch, 0.0)
    assert (found["scale"].item(), found["bias"].item()) == (pytest.approx(10), -10)
    images, texts = method.embed_image(batch.views[0]), method.embed_text(batch.views[1])
    for embedded in (images, texts):
        assert embedded.shape == (6, 8)
        torch.testing.assert_close(embedded.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(found["loss"], sigmoid_loss(images, texts, SCALE, BIAS))
    found["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    assert method.encoder is method.backbone


def test_several_image_views_average() -> None:
    method, batch = siglip().eval(), pairs(6)
    (one, ids), two = batch.views, torch.randn(6, 3, 6, 6)
    losses = [method(batch._replace(views=[view, ids]), 0.0)["loss"] for view in (one, two)]
    torch.testing.assert_close(method(batch._replace(views=[one, two, ids]), 0.0)["loss"], torch.stack(losses).mean())


def test_pairs_are_learned() -> None:
    method, batch = siglip(), pairs(16)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
    for _ in range(100):
        loss = method(batch, 0.0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3 < math.log(2)


def step() -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients as DistributedDataParallel would average them."""
    torch.manual_seed(0)
    method, batch = siglip(), pairs(16)
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
        ({"scale": 0}, r"method\.scale=0"),
        ({"out_dim": -1}, r"method\.out_dim=-1"),
        ({"bias": math.nan}, r"method\.bias=nan"),
    ],
)
def test_mistakes_are_named(settings: dict, words: str) -> None:
    net = nn.Linear(2, 2)
    net.num_features = 2  # type: ignore[assignment]
    with pytest.raises(ValueError, match=words):
        SigLIP(net, net, **({"out_dim": 8, "scale": 10, "bias": -10} | settings))
