"""Whole pipelines: against torchvision, by their keys, split between worker and device, as the configs have them."""

from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from omegaconf import OmegaConf

from ssl_zoo.views import Views
from ssl_zoo.views.colour import Normalize
from ssl_zoo.views.geometry import CenterCrop, HorizontalFlip
from ssl_zoo.views.keyed_random import KeyedRandom
from ssl_zoo.views.op import per_image
from tests.views.examples import MEAN, STD, pictures, reference, simclr

CONF = Path(__file__).parents[1] / "conf" / "views"
FILES = sorted(path for path in CONF.glob("*.yaml") if not path.stem.startswith("auto"))  # which name others
FACTS = {"image_size": 32, "half_size": 16, "mean": MEAN, "std": STD, "pad_id": 0}


def test_whole_simclr_pipeline_equals_torchvision_per_sample() -> None:
    x, ops, expected = pictures(64), simclr(), []
    for index in range(64):
        y = x[index : index + 1] / 255
        for position, op in enumerate(ops):
            stream = KeyedRandom(3, 2, torch.tensor([index]), 0).at(position)
            if op.p == 1 or stream.chance() < op.p:
                y = reference(op, y, op.sample(stream, y))
        expected.append(y)
    (view,) = Views([ops])(x, torch.arange(64), 2, 3)
    worst = (view - torch.cat(expected)).abs().max()
    print(f"whole pipeline, after normalising: {worst:.1e}")
    assert worst < 2e-5


def test_views_depend_on_seed_epoch_index_and_view_alone() -> None:
    x, indices, views = pictures(16), torch.arange(100, 116), Views([simclr()], copies=[2])
    first, second = views(x, indices, 4, seed=1)
    assert len(views) == 2
    assert first.shape == (16, 3, 32, 32)
    assert first.dtype == torch.float32
    backwards = views(x.flip(0), indices.flip(0), torch.full((16,), 4), seed=1)
    some = views(x[3:5], indices[3:5], 4, seed=1)
    torch.testing.assert_close(backwards[1].flip(0), second, atol=1e-5, rtol=0)
    torch.testing.assert_close(some[0], first[3:5], atol=1e-5, rtol=0)
    assert torch.equal(views(x, indices, 4, seed=1)[0], first)
    for other in (second, views(x, indices, 5, 1)[0], views(x, indices, 4, 2)[0], views(x, indices + 1, 4, 1)[0]):
        assert (other - first).abs().flatten(1).amax(1).min() > 0.1


@pytest.mark.parametrize("size", [(32, 32), (41, 60), (200, 90), (20, 25)])
@pytest.mark.parametrize("small", [32, 16])
def test_a_worker_and_the_device_make_the_views_of_one_piece(size: tuple[int, int], small: int) -> None:
    x, indices = pictures(8, 3, *size), torch.arange(40, 48)
    views = Views([simclr(), [CenterCrop(small), Normalize(MEAN, STD)]])
    each = [views.crop_in_worker(x[k], 40 + k, epoch=3, seed=9) for k in range(8)]
    crops = [torch.stack(crop) for crop in zip(*each, strict=True)]
    assert [crop.shape for crop in crops] == [(8, 3, 32, 32), (8, 3, small, small)]
    assert crops[0].dtype == torch.uint8
    for view, crop in enumerate(Views([ops[:1] for ops in views.pipelines])(x, indices, 3, 9)):
        assert (crops[view] / 255 - crop).abs().max() < 0.501 / 255
    whole, split = views(x, indices, 3, 9), views(crops, indices, 3, 9)
    assert (whole[1] - split[1]).abs().max() < 0.501 / 255 / min(STD)
    assert (whole[0] - split[0]).abs().mean() < 1 / 255 / min(STD)


def test_a_worker_refuses_pipelines_that_begin_without_a_crop() -> None:
    with pytest.raises(ValueError, match=r"pipeline 1 .* begin it with"):
        Views([simclr(), [HorizontalFlip(0.5)]]).crop_in_worker(pictures(1)[0], 0, 0, 0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_makes_its_views(path: Path) -> None:
    cfg = OmegaConf.create({"facts": FACTS, "views": OmegaConf.load(path)})
    views = hydra.utils.instantiate(cfg.views, _convert_="all")
    assert len(views) == sum(cfg.views.get("copies", [1] * len(cfg.views.pipelines)))
    if path.stem in ("tokens", "documents", "windows", "window", "twice"):
        ids = torch.randint(1, 100, (6, 128))
        assert all(view.dtype == torch.int64 for view in views(ids, torch.arange(6), 0, 0))
    else:
        out = views(pictures(6), torch.arange(6), 0, 0)
        assert all(view.shape == (6, 3, *view.shape[2:]) and view.isfinite().all() for view in out)
        sides = [32, 32, 16, 16, 16, 16] if path.stem in ("multicrop", "dino") else [32] * len(views)
        assert [view.shape[-1] for view in out] == sides


@pytest.mark.parametrize("name", ["simclr", "byol", "multicrop", "ressl", "digits"])
def test_the_ops_are_one_graph_to_a_compiler(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(x: torch.Tensor, chosen: torch.Tensor, function: Any) -> torch.Tensor:
        return torch.where(per_image(chosen), function(x, slice(None)), x)  # what a GPU does

    monkeypatch.setattr("ssl_zoo.views.op.change", change)
    monkeypatch.setattr("ssl_zoo.views.colour.change", change)
    cfg = OmegaConf.create({"facts": FACTS, "views": OmegaConf.load(CONF / f"{name}.yaml")})
    views = hydra.utils.instantiate(cfg.views, _convert_="all")
    x, indices = pictures(6), torch.arange(6)
    expected = views(x, indices, 3, 5)
    monkeypatch.setattr(views, "_make", torch.compile(views._make, fullgraph=True, dynamic=False, backend="eager"))
    for ours, theirs in zip(views(x, indices, 3, 5), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_compiled_views_leave_batches_on_the_cpu_as_they_are() -> None:
    """There the ops change the chosen examples alone, which is no graph; a run counts its FLOPs there."""
    eager, compiled = Views([simclr()], copies=[2]), Views([simclr()], copies=[2])
    compiled.compile()
    x, indices = pictures(6), torch.arange(6)
    for ours, theirs in zip(compiled(x, indices, 3, 5), eager(x, indices, 3, 5), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_views_on_a_gpu_equal_those_on_the_cpu() -> None:
    x, indices = pictures(64), torch.arange(64)
    here, there, compiled = (Views([simclr()], copies=[2]) for _ in range(3))
    compiled.compile()
    for epoch in (1, 2):
        expected = here(x, indices, epoch, 2)
        for views in (there, compiled):
            for ours, theirs in zip(views(x.cuda(), indices.cuda(), epoch, 2), expected, strict=True):
                torch.testing.assert_close(ours.cpu(), theirs, atol=1e-4, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_views_do_not_wait_for_a_gpu() -> None:
    for path in FILES:
        cfg = OmegaConf.create({"facts": FACTS, "views": OmegaConf.load(path)})
        views = hydra.utils.instantiate(cfg.views, _convert_="all")
        images = path.stem not in ("tokens", "documents", "windows", "window", "twice")
        x = pictures(6).cuda() if images else torch.randint(1, 100, (6, 128), device="cuda")
        indices = torch.arange(6, device="cuda")
        views(x, indices, 0, 0)
        torch.cuda.set_sync_debug_mode("error")
        try:
            views(x, indices, 1, 0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
