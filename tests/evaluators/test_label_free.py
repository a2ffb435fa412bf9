from typing import Any

import pytest
import torch
from torch import nn

from ssl_zoo.evaluators.label_free import LabelFree, surrogate_views
from tests.evaluators.fakes import FakeData, judge

SETTINGS: dict[str, Any] = {"examples": 40, "views": 4, "window": 3, "clusters": 4, "k": 2}
KEYS = {"alpha_req", "lidar", "alignment", "uniformity", "clid/learnability", "clid/dimension"}


def images(count: int = 60) -> FakeData:
    x = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = torch.full((count,), -1)
    facts = {"image_size": 8, "in_chans": 3, "mean": [0.5] * 3, "std": [0.5] * 3, "has_labels": False}
    return FakeData((x, y), (x[:0], y[:0]), **facts)


def test_all_scores_of_images_are_finite_and_the_same_each_time() -> None:
    torch.manual_seed(0)
    context = judge(images(), encoder=nn.Sequential(nn.Flatten(), nn.Linear(192, 6)))
    found = LabelFree(**SETTINGS)(context)
    assert found.keys() == KEYS
    assert all(torch.tensor(value).isfinite() for value in found.values())
    assert 0 < found["alignment"] < 4
    assert found["uniformity"] < 0
    assert found == LabelFree(**SETTINGS)(context)


def test_views_are_of_the_same_example_and_differ() -> None:
    context = judge(images(), encoder=nn.Flatten())
    z = LabelFree(**SETTINGS)._views(context)
    assert z.shape == (40, 4, 192)
    assert (z[:, 0] != z[:, 1]).any(dim=1).all()
    shuffled = images()
    shuffled.order = torch.randperm(60)
    again = LabelFree(**SETTINGS)._views(judge(shuffled, encoder=nn.Flatten()))
    assert torch.allclose(z.sum((0, 1)), again.sum((0, 1)), atol=1e-3), "the order of the data does not matter"


def test_a_constant_encoder_is_perfectly_aligned_and_not_uniform() -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(x), 5)

    with pytest.warns(match="distinct clusters"):
        found = LabelFree(**SETTINGS)(judge(images(), encoder=Constant()))
    assert found["alignment"] == pytest.approx(0, abs=1e-6)
    assert found["uniformity"] == pytest.approx(0, abs=1e-5)
    assert found["lidar"] == pytest.approx(1, abs=1e-4)


def test_texts_are_cut_to_windows_and_few_examples_suffice() -> None:
    ids = torch.randint(2, 20, (12, 9), generator=torch.Generator().manual_seed(0))
    views = surrogate_views({"modality": "text", "pad_id": 0}, 4, 3)
    made = views(ids, torch.arange(12), 0, seed=0)
    assert [view.shape for view in made] == [(12, 3)] * 4
    y = torch.full((12,), -1)
    data = FakeData((ids, y), (ids[:0], y[:0]), modality="text", pad_id=0, has_labels=False)
    torch.manual_seed(0)
    found = LabelFree(**SETTINGS)(judge(data, encoder=nn.Sequential(nn.EmbeddingBag(20, 5))))
    assert found.keys() == KEYS


def test_features_that_are_not_finite_are_an_error() -> None:
    class BreaksLater(nn.Flatten):
        factor = 1.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.factor

    context = judge(images(), encoder=BreaksLater())
    assert context.train.x.isfinite().all()
    context.method.encoder.factor = float("inf")
    with pytest.raises(FloatingPointError, match="label_free"):
        LabelFree(**SETTINGS)._views(context)


@pytest.mark.parametrize(
    ("key", "value"), [("examples", 3), ("views", 1), ("window", 0), ("clusters", 1), ("clusters", 41), ("k", 21)]
)
def test_settings_outside_their_range_are_refused(key: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"evaluators\.label_free\..*{value}"):
        LabelFree(**SETTINGS | {key: value})
