"""Fine-tuning learns, decays by layers, leaves a frozen network alone, and goes on as it would have."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.config import CONF
from ssl_zoo.training import finetuning
from ssl_zoo.training.finetuning import Checkpoint, LinearClassifier, Recipe, train_classifier

DEFAULTS = yaml.safe_load((CONF / "config.yaml").read_text().replace("1e-", "1.0e-"))["finetune"]
DEFAULTS = {key: value for key, value in DEFAULTS.items() if key != "scratch"}


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{**DEFAULTS, **changes})


class Small(nn.Module):
    """Two layers with dropout and a BatchNorm, which has state."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.1))

    def group_matcher(self, coarse: bool) -> dict[str, Any]:
        return {"stem": r"layers\.1", "blocks": r"layers\.(\d+)"}

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def examples() -> tuple[Tensor, Tensor]:
    """16 images (3, 4, 4) of 4 classes around a centre each."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(16) % 4
    return torch.randn(4, 3, 4, 4, generator=rng)[y] + 0.1 * torch.randn(16, 3, 4, 4, generator=rng), y


def batches(stop_at: int | None = None) -> Callable[[int], Iterable[tuple[Tensor, Tensor]]]:
    """Halves of the examples in turn; KeyboardInterrupt in place of the batch of one step."""

    def from_step(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = examples()
        for step, rows in enumerate(cycle((slice(0, 8), slice(8, 16)))):
            if step == stop_at:
                raise KeyboardInterrupt
            if step >= start:
                yield x[rows].clone(), y[rows]

    return from_step


def made(frozen: bool = False) -> LinearClassifier:
    torch.manual_seed(0)
    return LinearClassifier(Small(), 4, frozen)


def train(model: LinearClassifier, path: Path, settings: Recipe, steps: int = 60, stop_at: int | None = None) -> None:
    checkpoint = Checkpoint(path / "x.ckpt", finetuning.origin_of(settings, steps=steps))
    train_classifier(
        model, batches(stop_at), settings, steps, settings.layer_decay, nullcontext, False, 3, checkpoint, "x"
    )


@pytest.mark.parametrize("changes", [{}, {"mixup": 0.2, "cutmix": 0.5}, {"mode": "linear"}])
def test_it_learns_and_its_probe_is_the_model(changes: dict[str, Any], tmp_path: Path) -> None:
    model = made(frozen="mode" in changes)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    train(model, tmp_path, recipe(lr=0.03, linear_lr=0.03, **changes))
    x, y = examples()
    with torch.no_grad():
        logits, features = model(x), model.network(x)
    assert (logits.argmax(1) == y).all()
    assert torch.allclose(model.probe().logits(features), logits, atol=1e-4)
    same = all(torch.equal(before[name], tensor) for name, tensor in model.network.state_dict().items())
    assert same == model.frozen
    assert not (tmp_path / "x.ckpt").exists()  # it was short


@pytest.mark.parametrize("mixup", [0.0, 0.3])
def test_an_interrupted_training_goes_on_bit_for_bit(
    mixup: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, whole = recipe(mixup=mixup), made()
    train(whole, tmp_path, settings)
    monkeypatch.setattr(finetuning, "SAVE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(made(), tmp_path, settings, stop_at=31)
    resumed = made()
    with pytest.raises(ValueError, match=r"x\.ckpt: of a training with other settings"):
        train(resumed, tmp_path, recipe(mixup=mixup, lr=0.5))
    train(resumed, tmp_path, settings)
    state = resumed.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in whole.state_dict().items())
    (tmp_path / "x.ckpt").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"x\.ckpt: damaged"):
        train(made(), tmp_path, settings)


def test_lower_layers_learn_slower_and_norms_do_not_decay() -> None:
    network = image_backbone("vit_tiny_patch16_224", 3, 16, depth=2, embed_dim=32, num_heads=2)
    groups = LinearClassifier(network, 4, frozen=False).parameter_groups(0.05, 0.5)
    places = {id(parameter): group for group in groups for parameter in group["params"]}
    named: dict[str, Any] = dict(network.named_parameters())
    scales = [places[id(named[name])]["lr_scale"] for name in ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")]
    assert scales[0] < scales[1] < places[id(named["blocks.1.mlp.fc1.weight"])]["lr_scale"]
    assert places[id(named["blocks.0.norm1.weight"])]["weight_decay"] == 0
    assert places[id(named["pos_embed"])]["weight_decay"] == 0
    assert groups[-1]["lr_scale"] == 1
    assert sum(len(group["params"]) for group in groups) == len(named) + 2


def test_number_of_steps() -> None:
    assert recipe(epochs=5, min_steps=7, batch_size=32).sizes(320) == (32, 50)
    assert recipe(epochs=5, min_steps=200, batch_size=32).sizes(21) == (20, 200)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mode": "half"}, "finetune.mode=half: give full or linear"),
        ({"epochs": 0}, "finetune.epochs=0: give 1 or more"),
        ({"lr": 0.0}, "finetune.lr=0.0: give a number above 0"),
        ({"drop_path": 1.0}, "finetune.drop_path=1.0: give a number from 0"),
        ({"layer_decay": 1.5}, "finetune.layer_decay=1.5"),
        ({"mixup": 0.5, "batch_size": 31}, "finetune.batch_size=31: mixup and cutmix need an even number"),
    ],
)
def test_values_out_of_range(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recipe(**changes)
