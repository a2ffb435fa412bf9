from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.evaluators.base import EvalContext
from ssl_zoo.evaluators.scratch import Scratch
from tests.evaluators.fakes import FakeData, blobs, judge

FACTS: dict[str, Any] = {"in_chans": 1, "image_size": 4, "mean": [0.5], "std": [0.25]}


def images(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Plain views (count, 1, 4, 4) of 3 classes, of pixels in [0, 1]."""
    x, y = blobs(count, 16, 3, 1.5, seed)
    pixels = (x / 10 + 0.5).clamp(0, 1)
    return (pixels.view(-1, 1, 4, 4) - 0.5) / 0.25, y


class Recorded(FakeData):
    """Notes what the training views are made of."""

    def __init__(self, *parts: Any):
        super().__init__(*parts, **FACTS)
        self.asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def views(self, images: Tensor, indices: Tensor, epochs: Tensor, seed: int) -> list[Tensor]:
        self.asked.append((images, indices, epochs))
        return [(images - 0.5) / 0.25, torch.zeros(1)]  # only the first one is used


def setting() -> tuple[Recorded, nn.Module, EvalContext]:
    data = Recorded(images(60), images(90, seed=1))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU())
    return data, network, judge(data, encoder=network)


def train(scratch: Scratch, judged: EvalContext, network: nn.Module) -> float:
    return scratch.accuracy(judged, network, judged.inputs("train"), judged.inputs("test"))


def test_a_network_learns_its_labels_and_the_given_one_stays_untrained() -> None:
    _, network, judged = setting()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    accuracy = train(Scratch(steps=60, batch_size=20, lr=1e-2, weight_decay=0.0, draws=2), judged, network)
    assert accuracy > 0.9
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_the_same_call_gives_the_same_number() -> None:
    _, network, judged = setting()
    scratch = Scratch(steps=5, batch_size=20, lr=1e-2, weight_decay=0.0, draws=2)
    first = train(scratch, judged, network)
    torch.manual_seed(77)
    assert train(scratch, judged, network) == first


def test_every_example_comes_once_an_epoch_as_pixels_with_its_own_index() -> None:
    data, network, judged = setting()
    train(Scratch(steps=7, batch_size=25, lr=1e-2, weight_decay=0.0, draws=2), judged, network)
    pixels, indices, epochs = (torch.cat(parts) for parts in zip(*data.asked, strict=True))
    assert [len(x) for x, _, _ in data.asked] == [25] * 7
    for epoch in range(2):
        assert sorted(indices[epochs == epoch].tolist()) == list(range(60))
    assert int((epochs == 2).sum()) == 7 * 25 - 120
    assert torch.allclose(pixels, data.parts["train"][0][indices] * 0.25 + 0.5, atol=1e-6)
    assert 0 <= pixels.min() <= pixels.max() <= 1


def test_fewer_examples_than_a_batch_come_several_times_in_different_views() -> None:
    data, network, judged = setting()
    few = judged.inputs("train")
    few = type(few)(*(part[10:13] for part in few))
    Scratch(steps=2, batch_size=8, lr=1e-2, weight_decay=0.0, draws=2).accuracy(
        judged, network, few, judged.inputs("test")
    )
    drawn = [pair for _, indices, epochs in data.asked for pair in zip(indices.tolist(), epochs.tolist(), strict=True)]
    assert len(drawn) == len(set(drawn)) == 16
    assert {index for index, _ in drawn} == {10, 11, 12}


def test_the_rate_rises_for_a_tenth_and_falls_to_nothing() -> None:
    scratch = Scratch(steps=100, batch_size=8, lr=1.0, weight_decay=0.0, draws=2)
    rates = [scratch._rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1
    assert rates[-1] == pytest.approx(0)
    assert rates[9:] == sorted(rates[9:], reverse=True)


@pytest.mark.parametrize(("key", "value"), [("steps", 0), ("batch_size", 1), ("draws", 1)])
def test_bad_settings_name_key_and_value(key: str, value: int) -> None:
    settings = {"steps": 5, "batch_size": 8, "lr": 1e-3, "weight_decay": 0.0, "draws": 2} | {key: value}
    with pytest.raises(ValueError, match=rf"scratch\.{key}={value}: give at least"):
        Scratch(**settings)


def test_the_rate_is_chosen_on_labelled_examples_and_only_where_there_are_enough() -> None:
    _, network, judged = setting()
    train, test = judged.inputs("train"), judged.inputs("test")
    scratch = Scratch(steps=20, batch_size=25, lr=[1e-9, 3e-2], weight_decay=0.0, draws=2)
    assert scratch.choose(judged, network, train) == 3e-2, "with the other one nothing is learned"
    chosen = Scratch(steps=20, batch_size=25, lr=3e-2, weight_decay=0.0, draws=2)
    assert scratch.accuracy(judged, network, train, test) == chosen.accuracy(judged, network, train, test)
    one = torch.stack([(train.y == label).nonzero()[0, 0] for label in train.y.unique()])
    few = type(train)(*(part[one] for part in train))
    assert scratch.choose(judged, network, few) == 1e-9
    with pytest.raises(ValueError, match=r"scratch\.lr=\[\]"):
        Scratch(steps=1, batch_size=2, lr=[], weight_decay=0.0, draws=2)
