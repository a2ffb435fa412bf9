"""SimCSE is a configuration of SimCLR: its two views are equal, and dropout tells them apart."""

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from ssl_zoo.config import CONF
from ssl_zoo.method import Batch
from ssl_zoo.methods.simclr import SimCLR

FACTS = {"modality": "text", "vocab_size": 50, "max_length": 16, "pad_id": 0, "sep_id": 3}
SMALL = ("backbone.depth=1", "backbone.embed_dim=32", "method.hidden_dim=16", "method.out_dim=8")


def configure(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["method=simcse", *overrides])
    cfg.facts = FACTS
    return cfg


def build(*overrides: str) -> SimCLR:
    cfg = configure(*SMALL, *overrides)
    return instantiate(cfg.method, backbone=instantiate(cfg.backbone), _convert_="all")


def documents() -> list[Tensor]:
    ids = torch.randint(5, 50, (8, 16))
    ids[:4, 10:] = 0  # padding
    views = instantiate(configure().views, _convert_="all")
    return views(ids, torch.arange(8), 0, 0)


def test_what_the_configuration_says() -> None:
    cfg = configure()
    assert cfg.data.path == "python:stdlib"
    assert (cfg.data.row_length, cfg.data.train_rows) == (32, None)
    assert [cfg.backbone[f"{place}_drop_rate"] for place in ("pos", "attn", "proj")] == [0.1] * 3
    assert cfg.backbone.depth == 2
    assert cfg.method.temperature == 0.05
    larger = configure("backbone=text_small", "data=imdb", "views=windows")
    assert (larger.backbone.proj_drop_rate, larger.backbone.depth) == (0.1, 4)
    assert len(larger.views.pipelines[0]) == 1


def test_the_views_are_the_same_tokens_under_different_dropout() -> None:
    first, second = documents()
    assert torch.equal(first, second)
    backbone = build().train().backbone
    x, y = backbone(torch.cat([first, second])).chunk(2)  # as SimCLR runs its views
    assert ((x - y).abs().amax(dim=1) > 0.01).all()
    backbone.eval()
    x, y = backbone(torch.cat([first, second])).chunk(2)
    torch.testing.assert_close(x, y)


def test_without_dropout_positives_agree_whatever_the_weights() -> None:
    def agreement(method: SimCLR) -> Tensor:
        first, second = documents()
        z, w = method.projector(method.train().backbone(torch.cat([first, second]))).chunk(2)
        return torch.cosine_similarity(z, w)

    without = build(*(f"backbone.{place}_drop_rate=0.0" for place in ("pos", "attn", "proj")))
    torch.testing.assert_close(agreement(without), torch.ones(8))
    assert (agreement(build()) < 0.999).any()


def test_a_step_is_finite() -> None:
    method, views = build().train(), documents()
    loss = method(Batch(views, views[0][:, 0], views[0][:, 0]), 0.0)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
