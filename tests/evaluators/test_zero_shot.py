"""Zero-shot accuracy against a loop, at known values, and what is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from ssl_zoo.evaluators.base import EvalContext, run_evaluators
from ssl_zoo.evaluators.zero_shot import ZeroShot
from ssl_zoo.method import Method
from tests.evaluators.fakes import FakeData, blobs

NAMES = ["cat", "dog", "frog"]
TEMPLATES = ["a photo of a {}.", "one {}", "{} again and again"]


class Pairs(FakeData):
    """Tokens are the letters."""

    def tokenise(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[ord(letter) for letter in text.ljust(30)] for text in texts])


class Towers(Method):
    """Images as they are; a text by the numbers of its letters, one embedding a letter."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Identity())
        self.letters = nn.Embedding(128, width)

    def embed_image(self, images: Tensor) -> Tensor:
        assert not self.training
        return nn.functional.normalize(self.backbone(images), dim=1)

    def embed_text(self, ids: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return nn.functional.normalize(self.letters(ids).mean(dim=1), dim=1)


def judged(method: Method, data: Any, batch_size: int = 256) -> EvalContext:
    return EvalContext(method, data, "init", batch_size=batch_size)


def pairs(count: int = 60, **facts: Any) -> Pairs:
    return Pairs(blobs(10, 6, 3, 1.0), blobs(count, 6, 3, 1.0, seed=1), **{"class_names": NAMES, **facts})


def test_equals_a_loop() -> None:
    method, data = Towers(6), pairs()
    right = 0
    with torch.no_grad():
        for image, label in zip(*data.parts["test"], strict=True):
            cosines = []
            for name in NAMES:
                sentences = [data.tokenise([template.format(name)])[0] for template in TEMPLATES]
                vectors = [method.letters(ids).mean(0) for ids in sentences]
                mean = sum(vector / vector.norm() for vector in vectors)
                cosines.append(float(image @ mean / (image.norm() * mean.norm())))
            right += cosines.index(max(cosines)) == int(label)
    for batch_size in (256, 7):  # chunks of prompts and images change nothing
        found = run_evaluators({"zero_shot": ZeroShot(TEMPLATES)}, judged(method, data, batch_size))
        assert found == {"zero_shot/top1": pytest.approx(right / 60)}
    assert method.training


def test_texts_that_name_the_direction_of_their_class_are_right() -> None:
    method = Towers(3)
    with torch.no_grad():
        method.letters.weight.zero_()
        for direction, letter in enumerate("cdf"):  # what begins cat, dog and frog, and is in no other of them
            method.letters.weight[ord(letter), direction] = 1
    y = torch.arange(30) % 3
    x = torch.eye(3)[y]
    data = Pairs((x, y), (x, y), class_names=NAMES)
    assert ZeroShot(["{}"])(judged(method, data)) == {"zero_shot/top1": 1.0}
    data.facts["class_names"] = ["dog", "cat", "frog"]
    assert ZeroShot(["{}"])(judged(method, data))["zero_shot/top1"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("templates", [[], ["a photo"], ["a {}", "a photo"]])
def test_bad_templates_are_refused(templates: list[str]) -> None:
    with pytest.raises(ValueError, match=r"evaluators\.zero_shot\.templates="):
        ZeroShot(templates)


def test_what_cannot_be_judged_is_refused_at_once() -> None:
    judge = ZeroShot(TEMPLATES)
    method = Method(nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"needs a method with a text tower, and Method has none.*method=clip"):
        run_evaluators({"zero_shot": judge}, judged(method, pairs()))
    with pytest.raises(ValueError, match="needs data with captions"):
        judge(judged(Towers(6), FakeData(blobs(10, 6, 3, 1.0), blobs(10, 6, 3, 1.0))))
    with pytest.raises(ValueError, match="this data has no class names"):
        judge(judged(Towers(6), pairs(class_names=[], has_labels=False)))
    with pytest.raises(ValueError, match="this data has no labelled test split"):
        judge(judged(Towers(6), pairs(num_test=0)))


def test_the_config_builds_it() -> None:
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "evaluators" / "zero_shot.yaml")
    (evaluator,) = hydra.utils.instantiate(config, _convert_="all").values()
    assert evaluator(judged(Towers(6), pairs())).keys() == {"zero_shot/top1"}
