from typing import Any

import pytest
import torch
from torch import nn

from ssl_zoo.evaluators.linear import Linear
from ssl_zoo.evaluators.outliers import Outliers, auroc, familiarity
from tests.evaluators.fakes import FakeData, blobs, judge

SETTINGS: dict[str, Any] = {
    "held_out": 0.25, "k": 5, "known": {}, "sets": [], "root": None, "examples": None, "linear": Linear([1e-2], 0.2),
}  # fmt: skip
NAMES = ("softmax", "energy", "knn")


def test_the_area_is_the_share_of_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    inside, outside = (torch.randint(5, (n,), generator=generator).float() for n in (20, 30))
    pairs = [(a > b) + 0.5 * (a == b) for a in inside.tolist() for b in outside.tolist()]
    assert auroc(inside, outside) == pytest.approx(sum(pairs) / 600)
    assert auroc(inside, inside) == 0.5


def test_scores_are_their_formulas() -> None:
    x, y = blobs(40, 6, 3, 1)
    probe = SETTINGS["linear"].standardized(x, y)
    queries = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    found = familiarity(probe, x, queries, 3)
    logits = probe.logits(queries)
    assert torch.allclose(found["softmax"], (logits.exp() / logits.exp().sum(1, keepdim=True)).max(1).values)
    assert torch.allclose(found["energy"], logits.exp().sum(1).log(), atol=1e-5)
    unit, bank = queries / queries.norm(dim=1, keepdim=True), x / x.norm(dim=1, keepdim=True)
    third = torch.cdist(unit, bank).sort(dim=1).values[:, 2]
    assert torch.equal(found["knn"].argsort(), (-third).argsort())


def test_a_distant_class_is_recognised_and_a_copy_of_a_known_one_is_not() -> None:
    (x, y), (z, truth) = blobs(200, 8, 4, 3), blobs(120, 8, 4, 3, seed=1)
    found = Outliers(**SETTINGS)(judge(FakeData((x, y), (z, truth))))
    assert found.keys() == {f"outliers/held_out_classes/auroc_{name}" for name in NAMES}
    assert found["outliers/held_out_classes/auroc_knn"] > 0.9
    between = torch.where((truth == 3)[:, None], (z.roll(2, 0) + z.roll(3, 0)) / 2, z)  # classes 0 and 1
    unsure = Outliers(**SETTINGS)(judge(FakeData((x, y), (between, truth))))
    assert unsure["outliers/held_out_classes/auroc_softmax"] > 0.8
    copied = torch.where((truth == 3)[:, None], z.roll(1, 0), z)  # of class 2
    same = Outliers(**SETTINGS)(judge(FakeData((x, y), (copied, truth))))
    assert same["outliers/held_out_classes/auroc_knn"] < 0.8


def test_other_images_are_compared_with_the_test_split(tmp_path: Any, cache_root: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("SSL_ZOO_CACHE", str(cache_root))
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(60, 1, 8, 8, generator=generator), torch.arange(60) % 2
    x[:, :, :4] += y.view(-1, 1, 1, 1)
    facts = {"image_size": 8, "in_chans": 1, "mean": [0.0], "std": [1.0]}
    context = judge(FakeData((x, y), (x, y), **facts), encoder=nn.Flatten())
    settings = SETTINGS | {"held_out": 0, "known": {"digits": "sklearn:digits"}, "sets": None, "examples": 50}
    found = Outliers(**settings)(context)
    assert found.keys() == {f"outliers/digits/auroc_{name}" for name in NAMES}
    assert found["outliers/digits/auroc_knn"] > 0.9


def test_two_classes_are_too_few_to_hold_one_out(caplog: pytest.LogCaptureFixture) -> None:
    x, y = blobs(40, 4, 2, 3)
    assert Outliers(**SETTINGS)(judge(FakeData((x, y), (x, y)))) == {}
    assert "too few to hold some out" in caplog.text
    assert Outliers(**SETTINGS)(judge(FakeData((x, y), (x, y)), "init")) == {}


@pytest.mark.parametrize(("key", "value"), [("held_out", 1), ("k", 0), ("held_out", 0)])
def test_settings_outside_their_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"evaluators\.outliers\.{key}={value}"):
        Outliers(**SETTINGS | {key: value})
