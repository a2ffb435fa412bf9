"""A stranger's checkpoint runs no code and reads no secret; an honest one is rebuilt as it was."""

import copy
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ssl_zoo.config import CONF
from ssl_zoo.data.text.tokenizer import TextTokenizer, train_tokenizer
from ssl_zoo.methods.mlm import MLM
from ssl_zoo.tasks.fill_mask import fill_mask
from ssl_zoo.training import card
from ssl_zoo.training.checkpoints import REQUIRED_KEYS
from ssl_zoo.training.encoder_card import TOKENIZER_NAME
from tests.conftest import Ended

pytestmark = pytest.mark.xdist_group("card")  # its checkpoint is costly: one worker runs the file

SECRET = "correct-horse-battery"
COMMAND = "touch MARKER"
SYSTEM = {"_target_": "os.system", "command": COMMAND}
PATH = {"_target_": "pathlib.Path", "_args_": ["MARKER"]}

PARTS: dict[str, dict[str, Any]] = {
    "os.system": SYSTEM,
    "posix.system": {"_target_": "posix.system", "command": COMMAND},
    "by another module's name": {"_target_": "logging.os.system", "command": COMMAND},
    "subprocess.Popen": {"_target_": "subprocess.Popen", "args": ["touch", "MARKER"]},
    "subprocess.run": {"_target_": "subprocess.run", "args": ["touch", "MARKER"]},
    "os.spawn": {"_target_": "os.spawnlp", "_args_": [0, "touch", "touch", "MARKER"]},
    "eval": {"_target_": "builtins.eval", "_args_": ["open('MARKER', 'w')"]},
    "exec": {"_target_": "builtins.exec", "_args_": ["open('MARKER', 'w')"]},
    "open": {"_target_": "builtins.open", "file": "MARKER", "mode": "w"},
    "torch.load": {"_target_": "torch.load", "f": "PICKLE", "weights_only": False},
    "torch.load by a longer name": {"_target_": "torch.nn.modules.module.torch.load", "f": "PICKLE"},
    "pandas.read_pickle": {"_target_": "pandas.read_pickle", "filepath_or_buffer": "PICKLE"},
    "numpy.load": {"_target_": "numpy.load", "file": "PICKLE", "allow_pickle": True},
    "hydra's own call": {"_target_": "hydra.utils.call", "_recursive_": False, "config": SYSTEM},
    "get_object": {"_target_": "hydra.utils.get_object", "path": "evil_module.ran"},
    "pathlib": {
        "_target_": "pathlib.Path.write_text",
        "_args_": [PATH, ""],
    },
    "importlib": {"_target_": "importlib.import_module", "name": "evil_module"},
    "runpy": {"_target_": "runpy.run_path", "path_name": "SCRIPT"},
    "torch.hub": {"_target_": "torch.hub.load", "repo_or_dir": "FOLDER", "model": "evil", "source": "local"},
    "shutil.copy": {"_target_": "shutil.copy", "src": "SCRIPT", "dst": "MARKER"},
    "partial": {**SYSTEM, "_partial_": True},
}
"""In place of the backbone's section."""

VALUES: dict[str, tuple[str, Any]] = {
    "inside the backbone": ("config.backbone.out_indices", SYSTEM),
    "in a list of the backbone": ("config.backbone.out_indices", [1, [SYSTEM]]),
    "as positional arguments": ("config.backbone._args_", [SYSTEM]),
    "in a list of the method": ("config.method.replace", [0.8, 0.1, SYSTEM]),
    "as a setting of the method": ("config.method.mask_ratio", SYSTEM),
    "as a new part of the method": ("config.method.generator", SYSTEM),
    "with recursion switched off": ("config.method._recursive_", False),
    "in the optimizer": ("config.optimizer", SYSTEM),
    "in the views": ("config.views", {"_target_": "ssl_zoo.views.Views", "views": [SYSTEM]}),
    "in the tokenizer": ("config.data.tokenizer", SYSTEM),
    "in the trainer": ("config.trainer.strategy", SYSTEM),
    "in a fact": ("facts.vocab_size", SYSTEM),
    "an environment variable as a setting": ("config.method.mask_ratio", "${oc.env:WANDB_API_KEY}"),
    "an environment variable as a name": ("config.backbone.trunk", "vit_${oc.env:WANDB_API_KEY}"),
    "an environment variable as a fact": ("facts.word_starts", "${oc.env:WANDB_API_KEY}"),
    "a configuration made by a resolver": ("config.backbone", "${oc.create:${config.backbone}}"),
    "a pickle as weights": ("config.backbone.pretrained", "PICKLE"),
    "a pickle that timm loads": ("config.backbone.checkpoint_path", "PICKLE"),
    "a choice outside conf/": ("choices.backbone", "../../EVIL"),
    "a card that is no object": ("config", ["method"]),
}
"""One value of a card that is honest otherwise."""


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a checkpoint of `method=mlm` holds, and, under "folder", where its tokenizer lies."""
    folder = tmp_path_factory.mktemp("honest")
    train_tokenizer(["the movie was great", "a bad film and a good one"] * 5, "bpe", 300, True).save(
        str(folder / TOKENIZER_NAME)
    )
    tokenizer = TextTokenizer(folder / TOKENIZER_NAME)
    facts = {key: getattr(tokenizer, key) for key in ("vocab_size", "pad_id", "sep_id", "mask_id", "num_special")}
    facts |= {"modality": "text", "tokenizer_hash": tokenizer.identity}
    facts |= {"word_starts": "1" * tokenizer.vocab_size, "max_length": 16, "class_names": ["${oc.env:WANDB_API_KEY}"]}
    settings = ["backbone.num_heads=4", "+backbone.drop_path_rate=0.1", "method.mask_ratio=0.2"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["method=mlm", *settings])
    plain = OmegaConf.to_container(config)  # with its interpolations, as a run keeps it
    config.facts = {key: value for key, value in facts.items() if key != "class_names"}
    method = instantiate(config.method, backbone=instantiate(config.backbone))
    choices = {"method": "mlm", "backbone": "text_tiny"}
    return {
        **{key: {} for key in REQUIRED_KEYS},
        "state_dict": {f"method.{key}": value for key, value in method.state_dict().items()},
        "ssl_zoo": {"card": {"config": plain, "facts": facts, "choices": choices}},
        "folder": folder,
    }


def altered(honest: dict[str, Any], path: str, value: Any, folder: Path) -> None:
    """A run folder whose checkpoint has `value` at the dotted `path` of its card."""
    saved = copy.deepcopy({key: part for key, part in honest.items() if key != "folder"})
    *parents, last = path.split(".")
    place = saved["ssl_zoo"]["card"]
    for name in parents:
        place = place[name]
    place[last] = value
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(saved, folder / "checkpoints" / "step-00000001.ckpt")
    shutil.copy(honest["folder"] / TOKENIZER_NAME, folder)


def armed(value: Any, folder: Path) -> Any:
    """`value` with the names of files in `folder`; each of them makes MARKER when it is run or unpickled."""
    if isinstance(value, dict):
        return {key: armed(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [armed(item, folder) for item in value]
    if not isinstance(value, str):
        return value
    files = {"MARKER": "ran", "PICKLE": "evil.pkl", "SCRIPT": "evil_module.py", "FOLDER": "", "EVIL": "evil"}
    for name, file in files.items():
        value = value.replace(name, str(folder / file))
    return value


def set_trap(folder: Path) -> None:
    """Writes the files that gadgets refer to; the file `ran` appears in the folder if one of them is run."""
    (folder / "evil.pkl").write_bytes(pickle.dumps(Touch(folder / "ran")))
    for name in ("evil_module.py", "hubconf.py"):
        (folder / name).write_text(f"import pathlib\npathlib.Path({str(folder / 'ran')!r}).touch()\nran = 1\n")
    (folder / "evil.yaml").write_text(f"_target_: os.system\ncommand: touch {folder / 'ran'}\n")


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a trap set, and a secret in the environment."""
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.syspath_prepend(str(tmp_path))
    set_trap(tmp_path)
    return tmp_path


GADGETS = {**{name: ("config.backbone", part) for name, part in PARTS.items()}, **VALUES}
UNREAD = {"in the optimizer", "in the views", "in the tokenizer", "in the trainer", "a pickle as weights"}
"""Gadgets in what a model is not made of; the last one is of weights, which the checkpoint holds itself."""


@pytest.mark.parametrize("name", GADGETS)
def test_no_gadget_in_a_card_runs(
    name: str, honest: dict[str, Any], trap: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert len(GADGETS) >= 27
    path, value = GADGETS[name]
    altered(honest, path, armed(value, trap), trap / "stranger")
    config = OmegaConf.create({"checkpoint": str(trap / "stranger"), "text": "a [MASK]"})
    said = ""
    if name in UNREAD:
        fill_mask(config, trap)
    else:
        with pytest.raises(ValueError, match="checkpoint") as raised:
            fill_mask(config, trap)
        said = str(raised.value)
    assert not (trap / "ran").exists()
    assert SECRET not in said + "".join(capfd.readouterr())


def test_a_gadget_in_place_of_the_method_is_a_mistake_in_one_line(
    honest: dict[str, Any], trap: Path, cli: Callable[..., Ended]
) -> None:
    altered(honest, "config.method", armed(SYSTEM, trap), trap / "stranger")
    ended = cli("task=fill_mask", "checkpoint=stranger", "text=a [MASK]", "hydra.run.dir=fill")
    assert (ended.status, (trap / "ran").exists()) == (2, False)
    assert "os.system) is not in conf/" in ended.err
    assert "Traceback" not in ended.err


def test_a_pickled_gadget_in_the_file_is_refused(honest: dict[str, Any], trap: Path, cli: Callable[..., Ended]) -> None:
    altered(honest, "config.backbone", Touch(trap / "ran"), trap / "stranger")
    assert cli("task=fill_mask", "checkpoint=stranger", "text=a [MASK]", "hydra.run.dir=fill").status == 2
    assert not (trap / "ran").exists()


def test_the_traps_work(trap: Path) -> None:
    """Each would be seen if something ran it."""
    pickle.loads((trap / "evil.pkl").read_bytes())
    assert (trap / "ran").exists()


@pytest.mark.parametrize("has_names", [True, False], ids=["named", "of an older run"])
def test_an_honest_card_gives_the_same_model(has_names: bool, honest: dict[str, Any]) -> None:
    stored = card.read_card(honest, "run")
    if not has_names:
        stored = stored | {"choices": {}}
    config = card.compose_from_card(stored)
    assert (config.backbone.num_heads, config.backbone.drop_path_rate, config.method.mask_ratio) == (4, 0.1, 0.2)
    method = instantiate(config.method, backbone=instantiate(config.backbone))
    assert isinstance(method, MLM)
    method.load_state_dict({key.removeprefix("method."): value for key, value in honest["state_dict"].items()})


def test_the_backbone_alone_can_be_composed(honest: dict[str, Any]) -> None:
    """By a run of another method that starts from its weights."""
    stored = card.read_card(honest, "run")
    stored["config"]["method"] = {"_target_": "mine.MyMethod"}
    assert "method" not in (config := card.compose_from_card(stored, ["backbone"]))
    assert config.backbone.num_heads == 4


def test_a_file_of_another_program_is_named() -> None:
    with pytest.raises(ValueError, match="checkpoint=theirs was not written by ssl_zoo"):
        card.read_card({"state_dict": {}}, "theirs")
