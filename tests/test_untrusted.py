import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from ssl_zoo import build
from ssl_zoo.tasks import pretrain
from ssl_zoo.training.checkpoints import SafeCheckpointIO
from ssl_zoo.untrusted import check_plain
from tests.conftest import Ended
from tests.training.test_checkpoints import contents


@pytest.mark.parametrize("value", [None, 1, 0.5, True, "resnet18", "timm/vit_tiny.augreg", [1, "avg"], ["a", None]])
def test_plain_values_pass(value: object) -> None:
    check_plain("key", value, "file")


@pytest.mark.parametrize(
    "value",
    ["/etc/passwd", "http://host/x", "${oc.env:HOME}", "a b", "../x/y", {"_target_": "os.system"}, [["${x}"]], b"x"],
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"key.* of the file"):
        check_plain("key", value, "file")


def test_a_run_folder_names_no_code_that_a_resumed_run_calls(
    cli: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strategy, callbacks and plugins are those of the command line, whatever stands in the folder."""
    run, folder, marker = ("logger=csv", "trainer=cpu", "hydra.run.dir=run"), tmp_path / "run", tmp_path / "called"

    def stop(cfg: DictConfig) -> None:  # all parts but the data and the network have been built by then
        assert (cfg.trainer.strategy, cfg.trainer.callbacks, cfg.trainer.plugins) == ("auto", None, None)
        build.trainer_parts(cfg.trainer)
        raise ValueError("far enough")

    monkeypatch.setattr(pretrain, "build_data", stop)
    assert cli(*run, "budget.steps=1").err == "error: far enough\n"
    call = {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": [str(marker)]}}
    evil = {"strategy": call, "callbacks": {"evil": call}, "plugins": {"evil": call}}
    build.trainer_parts(OmegaConf.create(evil))
    assert marker.exists()  # from the command line it is called
    marker.unlink()
    config = json.loads((folder / "config.json").read_text())
    config["trainer"] |= evil
    (folder / "config.json").write_text(json.dumps(config))
    about = {"ssl_zoo": {"card": {"config": config}}, "callbacks": evil}
    SafeCheckpointIO().save_checkpoint(contents() | about, folder / "checkpoints" / "step-00000001.ckpt")
    for _ in range(2):
        assert cli(*run, "budget.steps=2").err == "error: far enough\n"
        assert not marker.exists()
        (folder / "config.json").unlink(missing_ok=True)  # then the checkpoint's own copy is read
