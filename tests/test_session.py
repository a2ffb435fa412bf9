"""Resuming, the checks before training, and what is shown at the end."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ssl_zoo.evaluators.base import Features
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.methods.simclr import SimCLR
from ssl_zoo.methods.supervised import Supervised
from ssl_zoo.report import results
from ssl_zoo.tasks import pretrain
from ssl_zoo.training import checkpoints, environment, summary
from ssl_zoo.training.checkpoints import KEYS, SafeCheckpointIO


def backbone() -> nn.Module:
    net = nn.Linear(2, 4)
    net.num_features = 4  # type: ignore[assignment]
    return net


def test_a_run_is_complete_when_its_results_say_so(tmp_path: Path) -> None:
    assert not results.is_complete(tmp_path)
    results.write(tmp_path, results.blank("interrupted"))
    assert not results.is_complete(tmp_path)


def data(num_views: int, labelled: bool) -> SimpleNamespace:
    return SimpleNamespace(views=[None] * num_views, rows_have_labels=labelled, facts={})


def test_too_few_views_and_missing_labels_are_refused() -> None:
    simclr, supervised = SimCLR(backbone(), 4, 2, 0.1), Supervised(backbone(), 3, 0.0)
    pretrain.check_method(simclr, data(2, labelled=False))
    pretrain.check_method(supervised, data(1, labelled=True))
    with pytest.raises(ValueError, match="SimCLR needs 2 views of each example, these give 1"):
        pretrain.check_method(simclr, data(1, labelled=False))
    with pytest.raises(ValueError, match="Supervised learns from labels"):
        pretrain.check_method(supervised, data(1, labelled=False))


def test_the_gpu_must_be_there_to_be_asked_for() -> None:
    if torch.cuda.is_available():
        assert environment.device_type("auto") == "cuda"
    else:
        assert environment.device_type("auto") == environment.device_type("cpu") == "cpu"
        with pytest.raises(ValueError, match=r"trainer\.accelerator=gpu"):
            environment.device_type("gpu")


def test_metrics_are_shown_beside_those_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary.show(tmp_path, "simclr", {"knn/top1": 0.75, "init/knn/top1": 0.25}, SimpleNamespace(facts={}), None)
    out = capsys.readouterr().out
    assert "0.25" in out
    assert "0.75" in out
    assert "last epoch" in out


def test_accuracies_are_shown_with_n_and_interval_and_the_majority(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"class_names": ["a", "b"]}
    y = torch.tensor([0] * 30 + [1] * 10)
    features = Features(torch.randn(40, 3), y, torch.arange(40))
    shares = {"knn/top1": Proportion(0.75, 40), "init/knn/top1": Proportion(0.5, 40)}
    summary.show(tmp_path, "simclr", shares, SimpleNamespace(facts=facts), features)
    out = capsys.readouterr().out
    assert "50.0 % (35.2 to 64.8)" in out
    assert "75.0 % (59.8 to 85.8) │ 40" in out
    assert "majority class" in out
    assert "nothing was learned" in out


@pytest.mark.parametrize("error", [RuntimeError("no font"), OSError(28, "No space left"), BrokenPipeError()])
def test_what_is_only_shown_can_fail(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(summary.picture, "draw", fail)
    monkeypatch.setattr(summary.few_labels, "table", fail)
    monkeypatch.setattr("ssl_zoo.report.display.os.dup2", lambda *_: None)
    features = SimpleNamespace(x=torch.zeros(2, 2), y=torch.zeros(2, dtype=torch.int64))
    named = SimpleNamespace(facts={"class_names": ["a"]})
    summary.show(tmp_path, "simclr", {"knn/top1": 0.75, "few/1/knn": 0.5}, named, features)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert type(error).__name__ in caplog.text


def test_a_checkpoint_must_exist() -> None:
    with pytest.raises(ValueError, match="checkpoint=nowhere"):
        checkpoints.load_encoder(backbone(), "nowhere")


def test_a_run_goes_on_from_the_encoder_that_was_kept(tmp_path: Path) -> None:
    """Not from another network of the same shape, such as the student beside a teacher that was kept."""
    kept, other = backbone().state_dict(), backbone().state_dict()
    state = {f"method.{name}.{k}": v for name, net in (("backbone", other), ("target", kept)) for k, v in net.items()}
    saved = {key: {} for key in KEYS} | {"state_dict": state, "ssl_zoo": {"encoder": "method.target"}}
    SafeCheckpointIO().save_checkpoint(saved, tmp_path / "step-00000001.ckpt")
    foreign = {key: value for key, value in saved.items() if key != "ssl_zoo"}
    SafeCheckpointIO().save_checkpoint(foreign, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"backbone\.pretrained"):
        checkpoints.load_encoder(backbone(), str(tmp_path / "foreign.ckpt"))
    started = backbone()
    checkpoints.load_encoder(started, str(tmp_path / "step-00000001.ckpt"))
    torch.testing.assert_close(started.state_dict(), kept, rtol=0, atol=0)
