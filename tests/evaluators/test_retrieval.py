"""Recall against a loop, at known values, with ties and repeated captions; on real data in its own room."""

from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from ssl_zoo.evaluators.base import EvalContext, run_evaluators
from ssl_zoo.evaluators.retrieval import Retrieval, ranks
from ssl_zoo.method import Method
from tests.evaluators.fakes import FakeData

DIRECTIONS = ("image_to_text", "text_to_image")


class Captioned(FakeData):
    """Images are vectors; the caption `ids[i]` belongs to the image numbered `owners[i]`."""

    def __init__(self, images: Tensor, ids: Tensor, owners: Tensor, **facts: Any):
        unlabelled = (images, torch.full((len(images),), -1))
        super().__init__(unlabelled, unlabelled, **{"has_labels": False, "num_classes": 0, **facts})
        self.captions = ids, owners

    def eval_captions(self, split: str) -> tuple[Tensor, Tensor]:
        assert split == "test"
        return self.captions


class Towers(Method):
    """Images as they are; a caption by its first token, a row of `table`."""

    def __init__(self, table: Tensor) -> None:
        super().__init__(nn.Identity())
        self.table = nn.Parameter(table)

    def embed_image(self, images: Tensor) -> Tensor:
        assert not self.training
        return normalize(images, dim=1)

    def embed_text(self, ids: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return normalize(self.table[ids[:, 0]], dim=1)


def recalls(method: Method, data: Any, k: list[int], batch_size: int = 256) -> dict[str, float]:
    return run_evaluators({"retrieval": Retrieval(k)}, EvalContext(method, data, "final", batch_size=batch_size))


def test_equals_a_loop() -> None:
    rng = torch.Generator().manual_seed(0)
    images, table = torch.randn(40, 6, generator=rng), torch.randn(200, 6, generator=rng)
    owners = torch.arange(40).repeat_interleave(5)
    table += images[owners]  # so that some are found
    data = Captioned(images, torch.arange(200)[:, None], owners)
    cosines = normalize(images, dim=1) @ normalize(table, dim=1).T
    for batch_size in (256, 7):
        found = recalls(Towers(table), data, [1, 5, 10], batch_size)
        for k in (1, 5, 10):
            hits = [any(owners[j] == i for j in cosines[i].argsort(descending=True)[:k]) for i in range(40)]
            assert found[f"retrieval/image_to_text/recall{k}"] == pytest.approx(sum(hits) / 40)
            hits = [int(owners[j]) in cosines[:, j].argsort(descending=True)[:k].tolist() for j in range(200)]
            assert found[f"retrieval/text_to_image/recall{k}"] == pytest.approx(sum(hits) / 200)
        assert [found[f"retrieval/{direction}/recall1"].n for direction in DIRECTIONS] == [40, 200]  # type: ignore[attr-defined]
        by_image, by_caption = (found[f"retrieval/{direction}/recall1"] for direction in DIRECTIONS)
        assert by_image.right.tolist() == [bool(owners[j] == i) for i, j in enumerate(cosines.argmax(dim=1))]  # type: ignore[attr-defined]
        assert by_caption.right is None  # type: ignore[attr-defined]  # five captions of an image are not independent
        assert 0 < found["retrieval/text_to_image/recall1"] < 1


def test_order_of_images_does_not_matter() -> None:
    data = Captioned(torch.eye(6), torch.arange(6)[:, None], torch.arange(6))
    data.order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert set(recalls(Towers(torch.eye(6)), data, [1], batch_size=4).values()) == {1.0}


def test_one_caption_of_several_is_enough() -> None:
    """Image 0 finds its second caption first; the query of its first caption finds image 1."""
    table = torch.eye(3)[[1, 0, 1, 2]]
    data = Captioned(torch.eye(3), torch.arange(4)[:, None], torch.tensor([0, 0, 1, 2]))
    found = recalls(Towers(table), data, [1, 2])
    assert found["retrieval/image_to_text/recall1"] == pytest.approx(2 / 3)  # image 1 ties with a caption of image 0
    assert found["retrieval/text_to_image/recall1"] == pytest.approx(3 / 4)


@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_equal_scores_are_no_hits(rounding: float) -> None:
    """A collapsed encoder gives every pair one score, up to rounding."""
    rng = torch.Generator().manual_seed(0)
    images, table = (torch.ones(20, 4) + rounding * torch.randn(20, 4, generator=rng) for _ in range(2))
    data = Captioned(images, torch.arange(20)[:, None], torch.arange(20))
    assert set(recalls(Towers(table), data, [1, 5, 10]).values()) == {0.0}


def test_a_caption_of_two_images_is_right_for_both() -> None:
    ids = torch.tensor([[0], [0], [2]])  # the first two images have the same caption
    data = Captioned(torch.eye(3)[[0, 0, 2]], ids, torch.arange(3))
    assert set(recalls(Towers(torch.eye(3)), data, [1]).values()) == {1.0}


def test_an_image_without_a_caption_is_only_a_candidate() -> None:
    data = Captioned(torch.eye(3)[[0, 0, 1]], torch.tensor([[0], [1]]), torch.tensor([0, 2]))
    found = recalls(Towers(torch.eye(3)), data, [1])
    assert found == {"retrieval/image_to_text/recall1": 1.0, "retrieval/text_to_image/recall1": 0.5}
    assert found["retrieval/image_to_text/recall1"].n == 2  # type: ignore[attr-defined]


def test_rank_is_the_number_of_irrelevant_ones_that_are_not_worse() -> None:
    candidates = torch.tensor([[0.9], [0.8], [0.8], [0.1]])
    relevant = torch.tensor([[False, True, False, True], [False, False, False, True]])
    assert ranks(torch.ones(2, 1), candidates, relevant).tolist() == [2, 3]
    assert ranks(torch.ones(2, 1).repeat(400, 1), candidates, relevant.repeat(400, 1)).tolist() == [2, 3] * 400


@pytest.mark.parametrize("k", [[], [0], [1, 1]])
def test_bad_k_is_refused(k: list[int]) -> None:
    with pytest.raises(ValueError, match=r"evaluators\.retrieval\.k="):
        Retrieval(k)


def test_what_cannot_be_evaluated_is_refused_or_named() -> None:
    data = Captioned(torch.eye(3), torch.arange(3)[:, None], torch.arange(3))
    with pytest.raises(ValueError, match=r"needs a method with a text tower, and Method has none.*method=clip"):
        recalls(Method(nn.Linear(1, 1)), data, [1])
    with pytest.raises(ValueError, match="needs images with captions"):
        recalls(Towers(torch.eye(3)), FakeData(*[(torch.eye(3), torch.arange(3))] * 2), [1])
    empty = torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="all captions of the test split are empty"):
        recalls(Towers(torch.eye(3)), Captioned(torch.eye(3), *empty), [1])
    data.facts["num_test"] = 0
    assert recalls(Towers(torch.eye(3)), data, [1]) == {}
    with pytest.raises(FloatingPointError, match="NaN"):
        recalls(Towers(torch.full((3, 3), torch.nan)), Captioned(torch.eye(3), *data.captions), [1])


def test_the_config_builds_it() -> None:
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "evaluators" / "retrieval.yaml")
    (evaluator,) = hydra.utils.instantiate(config, _convert_="all").values()
    data = Captioned(one_hot(torch.arange(12)).float(), torch.arange(12)[:, None], torch.arange(12))
    metrics = evaluator(EvalContext(Towers(torch.eye(12)), data, "final"))
    assert metrics == {f"retrieval/{way}/recall{k}": 1.0 for way in DIRECTIONS for k in (1, 5, 10)}
