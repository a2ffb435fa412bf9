from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssl_zoo.evaluators.knn import KNN
from ssl_zoo.evaluators.linear import Linear
from ssl_zoo.evaluators.transfer_images import TransferImages
from tests.evaluators.fakes import FakeData, judge
from tests.evaluators.test_image_sets import FACTS, root  # noqa: F401  (a fixture)

KNOWN = {"colours": "colours", "digits": "sklearn:digits"}


def transfer(folder: Path, **settings: Any) -> TransferImages:
    rest = {"root": str(folder), "examples": 100, "linear": Linear([1e-2], 0.2), "knn": KNN([1], None, False)}
    return TransferImages(KNOWN, **{"sets": None} | rest | settings)


def own(**facts: Any) -> FakeData:
    x, y = torch.zeros(2, 3, 8, 8), torch.tensor([-1, -1])
    return FakeData((x, y), (x, y), **FACTS | {"has_labels": False} | facts)


def test_each_set_is_classified_by_its_own_labels(root: Path) -> None:  # noqa: F811
    found = transfer(root)(judge(own(), encoder=nn.Flatten()))
    assert found["transfer/colours/top1"] == found["transfer_knn/colours/top1"] == 1
    assert found["transfer/colours/top1"].n == 8  # type: ignore[attr-defined]
    assert 0.6 < found["transfer/digits/top1"] < 1
    assert found["transfer/mean/top1"] == pytest.approx((1 + found["transfer/digits/top1"]) / 2)
    blind = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    nn.init.zeros_(blind[1].weight)
    one = transfer(root, sets=["colours"])(judge(own(), encoder=blind))
    assert one["transfer/colours/top1"] == 0.5
    assert "transfer/mean/top1" not in one


def test_it_is_left_out_during_training_and_of_text(root: Path, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    assert transfer(root)(judge(own(), "periodic")) == {}
    assert transfer(root)(judge(own(modality="text"))) == {}
    assert "transfer_images skipped" in caplog.text
