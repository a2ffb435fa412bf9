"""NNSiam's loss against a loop and lightly; its queue and its limit."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_zoo.method import Batch
from ssl_zoo.methods.nnsiam import NNSiam
from ssl_zoo.methods.simsiam import SimSiam


def make() -> NNSiam:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.num_features = 6  # type: ignore[assignment]
    return NNSiam(backbone, hidden_dim=16, out_dim=8, predictor_hidden_dim=16, queue_size=20)


def make_batch() -> Batch:
    labels = torch.zeros(7, dtype=torch.long)
    return Batch([torch.randn(7, 3, 2, 2), torch.randn(7, 3, 2, 2)], labels, labels)


@torch.no_grad()
def test_loss_is_minus_the_cosine_to_the_others_neighbour_in_both_directions() -> None:
    method, batch = make(), make_batch()
    keys, total = method.queue.keys, 0.0
    z1, z2 = (method.projector(method.backbone(view)) for view in batch.views)
    for mine, other in ((z1, z2), (z2, z1)):
        for p, z in zip(F.normalize(method.predictor(mine), dim=1), F.normalize(other, dim=1), strict=True):
            neighbour = keys[(keys - z).square().sum(dim=1).argmin()]
            total -= 0.5 * float(p @ neighbour) / 7
    assert method(batch, 0.0)["loss"].item() == pytest.approx(total, abs=1e-6)


def test_loss_equals_lightlys() -> None:
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import NNMemoryBankModule

    method, batch = make(), make_batch()
    bank = NNMemoryBankModule(size=(20, 8))
    bank.bank = method.queue.keys.clone()
    z1, z2 = (method.projector(method.backbone(view)) for view in batch.views)
    p1, p2 = method.predictor(z1), method.predictor(z2)
    theirs = 0.5 * (NegativeCosineSimilarity()(p1, bank(z2)) + NegativeCosineSimilarity()(p2, bank(z1)))
    torch.testing.assert_close(method(batch, 0.0)["loss"], theirs)


def test_a_queue_that_holds_the_batch_makes_it_simsiam() -> None:
    method, batch = make(), make_batch()
    simsiam = SimSiam(method.backbone, 16, 8, 16)
    simsiam.projector, simsiam.predictor = method.projector, method.predictor
    z = torch.cat([method.projector(method.backbone(view)) for view in batch.views])
    method.queue.keys = F.normalize(z.detach(), dim=1)
    torch.testing.assert_close(method(batch, 0.0)["loss"], simsiam(batch, 0.0)["loss"])


def test_the_queue_gets_the_first_view_after_it_was_used_in_training_only() -> None:
    method, batch = make(), make_batch()
    before = method.queue.keys
    method.eval()(batch, 0.0)
    assert torch.equal(method.queue.keys, before)
    method.train()(batch, 0.0)["loss"].backward()
    z = method.projector(method.backbone(batch.views[0]))
    torch.testing.assert_close(method.queue.keys, torch.cat([F.normalize(z, dim=1).detach(), before[7:]]))
    assert not method.queue.keys.requires_grad
    assert all(p.grad is not None for p in method.parameters())


def test_only_the_predictor_learns_at_a_constant_rate() -> None:
    assert NNSiam.constant_rate == ("predictor",)


@pytest.mark.parametrize("key", ["queue_size", "predictor_hidden_dim"])
def test_bad_values_are_refused(key: str) -> None:
    backbone = nn.Linear(2, 2)
    backbone.num_features = 2  # type: ignore[assignment]
    values = {"queue_size": 8, "predictor_hidden_dim": 8} | {key: 0}
    with pytest.raises(ValueError, match=rf"method\.{key}"):
        NNSiam(backbone, 8, 4, **values)
