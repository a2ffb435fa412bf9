"""What is built is what the configuration says."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ssl_zoo import build, config, dry_run
from ssl_zoo.conformance.subjects import method_names
from ssl_zoo.views import Views


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        return compose("config", list(overrides))


@pytest.mark.parametrize(("name", "teacher"), [("ijepa", "encoder"), ("data2vec", "teacher")])
def test_teachers_start_from_the_checkpoint_too(name: str, teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(backbone: nn.Module, checkpoint: str) -> None:
        assert checkpoint == "first"
        for weight in backbone.parameters():
            nn.init.constant_(weight, 0.5)

    monkeypatch.setattr("ssl_zoo.training.checkpoints.load_encoder", load)
    cfg = composed(f"method={name}")
    cfg.facts = build.data_module(cfg).expected_facts
    method = build.build_method(cfg, "first")
    for network in (method.backbone, getattr(method, teacher)):
        assert all((weight == 0.5).all() for weight in network.parameters())
    assert any((weight != 0.5).any() for weight in build.build_method(cfg).backbone.parameters())


@pytest.mark.parametrize(("data", "fused"), [("cifar10", True), ("cifar10_captions", True), ("imdb", False)])
def test_views_of_images_are_compiled_on_a_gpu(
    data: str, fused: bool, data_root: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_ZOO_DATA", str(data_root))
    monkeypatch.setenv("SSL_ZOO_CACHE", str(cache_root))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(cache_root / "hf"))
    compiled: list[Views] = []
    monkeypatch.setattr(Views, "compile", lambda views: compiled.append(views))
    for device, wanted in (("cpu", True), ("cuda", False), ("cuda", True)):
        assert not compiled
        monkeypatch.setattr("ssl_zoo.training.environment.device_type", lambda accelerator, device=device: device)
        build.build_data(composed(f"data={data}", "data.batch_size=8", f"trainer.compile={wanted}"))
    assert len(compiled) == fused


def test_names_of_the_data_are_never_interpolated() -> None:
    facts = {"class_names": ["${oc.env:HOME}", r"\${a}", r"\\${seed} ${", "$5", "plain\\"], "num_classes": 5}
    cfg = OmegaConf.create({"facts": build.literal(facts)})
    assert OmegaConf.to_container(cfg, resolve=True) == {"facts": facts}


@pytest.mark.parametrize("data", ["cifar10", "cifar10_captions", "imdb"])
def test_data_turn_out_as_promised(
    data: str, data_root: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_ZOO_DATA", str(data_root))
    monkeypatch.setenv("SSL_ZOO_CACHE", str(cache_root))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(cache_root / "hf"))
    cfg = composed(f"data={data}", "data.batch_size=8")
    promised = build.data_module(cfg).expected_facts
    facts = build.build_data(cfg).facts
    assert promised.keys() - facts.keys() <= {"unk_id", "cls_id", "mask_id", "word_starts"}  # captions lack them
    counted = {"num_classes", "num_indices", "vocab_size", "word_starts"}  # known once the data is read
    assert all(promised[key] == facts[key] for key in promised.keys() & facts.keys() - counted)


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["method=byol", "data=cifar10"], "byol (auto)"),
        (["method=ressl", "data=cifar10"], "ressl (auto)"),
        (["method=ressl", "data=cifar10", "views=simclr"], "simclr"),
        (["method=ressl", "data=cifar10", "views@paper_views.image=mild"], "mild (auto)"),
        (["method=ressl"], "digits (auto)"),
        (["method=ressl", "views=auto"], "ressl (auto)"),
        (["method=mae"], "weak (auto)"),
        (["method=mae", "data=stl10"], "mae (auto)"),
        (["method=vicreg", "data=imdb"], "windows (auto)"),
        (["method=mlm"], "tokens (auto)"),
        (["method=simcse", "data=imdb"], "twice (auto)"),
        (["method=clip"], "weak"),
        (["experiment=table_images", "method=ressl"], "mild"),
    ],
)
def test_views_are_the_methods_unless_somebody_else_chooses(overrides: list[str], wanted: str) -> None:
    """Command line > experiment > data > the method's paper."""
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        cfg = compose("config", overrides, return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    cfg.facts = build.data_module(cfg).expected_facts
    assert build.views_name(cfg, choices) == wanted
    expected = OmegaConf.load(config.CONF / "views" / f"{wanted.removesuffix(' (auto)')}.yaml")
    build.pin_views(cfg)
    assert OmegaConf.to_container(cfg.views) == OmegaConf.to_container(expected)
    assert "paper_views" not in cfg


@pytest.mark.parametrize("name", method_names())
def test_every_method_declares_views_that_it_takes(name: str) -> None:
    cfg = composed(f"method={name}")
    assert {"image", "text"} & cfg.paper_views.keys()
    least = get_class(cfg.method._target_).min_views - ("text_backbone" in cfg.method)
    for views in cfg.paper_views.values():
        copies = views.get("copies") or [1] * len(views.pipelines)
        assert sum(copies) >= least


def test_a_method_without_views_for_the_data_says_so() -> None:
    """A network that takes images, and a method whose paper had text alone."""
    cfg = composed("method=tsdae", "data=digits", "backbone=resnet10t", "views=auto")
    cfg.facts = build.data_module(cfg).expected_facts
    with pytest.raises(ValueError, match="views=auto: this method declares no views for data of image"):
        dry_run.check_modality("views", cfg)


def test_views_of_evaluation_are_equal_in_every_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_ZOO_CACHE", str(tmp_path))
    data = build.build_data(composed("data=digits", "evaluation_views=patches", "data.eval_examples=10"))
    first, again = (next(iter(data.eval_batches("test", 10))) for _ in range(2))
    assert len(first.views) == 20
    assert all(map(torch.equal, first.views, again.views))
    assert not torch.equal(first.views[0], first.views[1])


def test_views_of_evaluation_that_do_not_exist_are_refused() -> None:
    cfg = composed("data=digits", "evaluation_views=patchs")
    cfg.facts = build.data_module(cfg).expected_facts
    with pytest.raises(ValueError, match=r"evaluation_views=patchs: no such file in conf/views\. There are: auto"):
        build.build_views(cfg)
