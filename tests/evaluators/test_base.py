import contextlib
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.evaluators.base import EvalContext, frozen, run_evaluators, same_rng, warn_once
from ssl_zoo.method import Batch
from tests.evaluators.fakes import FakeData, blobs, judge


class Constant:
    needs_labels = True

    def __init__(self, **metrics: float):
        self.metrics = metrics

    def __call__(self, judged: EvalContext) -> dict[str, float]:
        torch.rand(3), np.random.rand(), random.random()
        return {"looked/train": float(len(judged.train.x)), **self.metrics} if not self.metrics else self.metrics


class Free(Constant):
    needs_labels = False


@pytest.fixture(autouse=True)
def _forget_what_was_said() -> None:
    warn_once.cache_clear()


def small() -> FakeData:
    return FakeData(blobs(50, 6, 5, 1.0), blobs(20, 6, 5, 1.0, seed=1))


def test_features_are_the_encoders_output_in_order_of_the_indices() -> None:
    data = small()
    data.order = torch.randperm(20)
    encoder = nn.Linear(6, 3)
    x, y, indices = judge(data, encoder=encoder, batch_size=7).test
    assert torch.allclose(x, encoder(data.parts["test"][0]), atol=1e-6)
    assert x.dtype == torch.float32
    assert not x.requires_grad
    assert torch.equal(y, data.parts["test"][1])
    assert torch.equal(indices, torch.arange(20))


def test_one_pass_serves_all_evaluators() -> None:
    data = small()
    judged = judge(data)
    run_evaluators({"a": Constant(a=1.0), "b": Constant()}, judged)
    assert judged.test is judged.test
    assert data.passes == {"train": 1, "test": 1}


def test_features_do_not_depend_on_the_batch_size() -> None:
    encoder = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
    one, many = (judge(small(), encoder=encoder, batch_size=size).train.x for size in (1, 50))
    assert torch.allclose(one, many, atol=1e-6)


def test_the_encoder_runs_in_the_precision_it_is_handed_and_features_are_float32() -> None:
    seen = []

    class Look(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(out := super().forward(x))
            return out

    judged = judge(small(), encoder=Look(6, 4), precision=lambda: torch.autocast("cpu", torch.bfloat16))
    assert judged.train.x.dtype == torch.float32
    assert {out.dtype for out in seen} == {torch.bfloat16}


def test_training_goes_on_as_if_nothing_had_been_judged() -> None:
    encoder = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)).train()
    encoder[2].eval()  # as a frozen part is
    judged = judge(small(), encoder=encoder)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    run_evaluators({"a": Constant()}, judged)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected
    assert [module.training for module in encoder.modules()] == [True, True, True, False]
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())


def test_modes_and_random_states_return_after_an_error_too() -> None:
    module = nn.Dropout().train()
    state = torch.get_rng_state()
    with contextlib.suppress(RuntimeError), same_rng(), frozen(module):
        torch.rand(1)
        raise RuntimeError
    assert module.training
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)


def test_metrics_of_all_evaluators_are_merged() -> None:
    assert run_evaluators({"a": Constant(a=1.0), "b": Free(b=2.0)}, judge(small())) == {"a": 1.0, "b": 2.0}
    with pytest.raises(ValueError, match=r"evaluators=\['a', 'b'\].*top1"):
        run_evaluators({"a": Constant(top1=1.0), "b": Constant(top1=2.0)}, judge(small()))


def test_without_labels_what_needs_them_is_left_out_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    x, _ = blobs(50, 6, 5, 1.0)
    for data, lack in (
        (FakeData((x, torch.full((50,), -1)), (x[:0], torch.empty(0, dtype=torch.int64)), has_labels=False), "labels"),
        (FakeData(blobs(50, 6, 5, 1.0), (x[:0], torch.empty(0, dtype=torch.int64))), "labelled test split"),
    ):
        for _ in range(2):
            assert run_evaluators({"a": Constant(a=1.0), "b": Free(b=2.0)}, judge(data)) == {"b": 2.0}
        assert caplog.messages == [f"a skipped: this data has no {lack}"]
        caplog.clear()


def test_features_that_are_not_finite_are_an_error() -> None:
    x, y = blobs(50, 6, 5, 1.0)
    x[7, 2] = torch.nan
    with pytest.raises(FloatingPointError, match="train split"):
        _ = judge(FakeData((x, y), (x, y))).train


def test_inputs_are_the_plain_views_flattened() -> None:
    images = torch.rand(12, 3, 4, 4)
    data = FakeData((images, torch.zeros(12, dtype=torch.int64)), (images, torch.zeros(12, dtype=torch.int64)))
    assert torch.equal(judge(data, encoder=nn.Flatten()).inputs("train").x, images.flatten(1))


def test_features_are_the_mean_over_the_views_of_an_example() -> None:
    images, labels = torch.rand(12, 3, 4, 4), torch.zeros(12, dtype=torch.int64)

    class TwoViews(FakeData):
        def eval_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
            for batch in super().eval_batches(split, batch_size):
                yield batch._replace(views=[batch.views[0], 3 * batch.views[0]])

    data = TwoViews((images, labels), (images, labels))
    torch.testing.assert_close(judge(data, encoder=nn.Flatten()).train.x, 2 * images.flatten(1))
