"""A credential given on the command line or in a file is in nothing that a run or a sweep writes or prints."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ssl_zoo.report import results
from ssl_zoo.training import credentials
from ssl_zoo.training.credentials import MASK, masked, masked_text
from tests.conftest import Ended

SECRET = "correct-horse-battery"
GIVEN = (
    f"+logger.mine.api_key={SECRET}",
    f"+logger.mine.client_secret='{SECRET},2'",
    f"+optimizer.db={{password: {SECRET}}}",
    f"+data.origin=https://user:{SECRET}@example.org/images",
    f"+hydra.job.env_set.SOME_API_KEY={SECRET}",
    f"name='https://user:{SECRET}@example.org'",
)


def leaked(folder: Path) -> list[str]:
    return [str(file) for file in folder.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


@pytest.mark.parametrize(
    "key", ["api_key", "apikey", "WANDB_API_KEY", "password", "DB_PASSWORD", "client-secret", "hf_token", "access_key"]
)
def test_a_credential_is_masked_by_its_key(key: str) -> None:
    assert masked({"a": {key: SECRET}, "b": [{key: 1234}]}) == {"a": {key: MASK}, "b": [{key: MASK}]}
    for text in (f"+logger.{key}={SECRET}", f"{{{key}: {SECRET}}}", f"{{'{key}': '{SECRET}'}}", f'{key}="{SECRET}"'):
        assert SECRET not in masked_text(text)
        assert key in masked_text(text)


def test_a_credential_is_masked_in_an_address() -> None:
    assert masked_text(f"no file at https://me:{SECRET}@host:80/a?b") == f"no file at https://{MASK}@host:80/a?b"
    assert masked_text("https://host:80/a@b") == "https://host:80/a@b"


@pytest.mark.parametrize("key", ["pad_token", "mask_token", "sort_key", "token", "key", "tokenizer", "keys", "monkey"])
def test_honest_keys_are_none(key: str) -> None:
    assert masked({key: "abc", "text": f"{key}=abc"}) == {key: "abc", "text": f"{key}=abc"}


@pytest.mark.parametrize("text", ["/etc/passwd: no such file", "wrong password: try again", "the secret: it is gone"])
def test_a_sentence_is_left_alone(text: str) -> None:
    assert masked_text(text) == text


@pytest.mark.parametrize("value", [None, "", True, "${oc.env:WANDB_API_KEY}"])
def test_what_tells_nothing_stays(value: Any) -> None:
    assert masked({"api_key": value}) == {"api_key": value}


def test_what_is_moved_is_still_there_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    config = OmegaConf.create(
        {"a": {"password": "x,'y"}, "b": ["https://u:p@h"], "seed": 0, "text": "the secret: gone"}
    )
    wanted = OmegaConf.to_container(config)
    OmegaConf.set_struct(config, True)
    credentials.move_credentials(config)
    assert "x,'y" not in OmegaConf.to_yaml(config)
    assert "u:p" not in OmegaConf.to_yaml(config)
    assert OmegaConf.to_container(config, resolve=True) == wanted
    for name in os.environ.keys() - before.keys():
        monkeypatch.delenv(name)


def test_log_records_are_masked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(mask := credentials.MaskCredentials())
    logging.getLogger("any").warning("read %s", f"ftp://me:{SECRET}@host")
    caplog.handler.removeFilter(mask)
    assert caplog.messages == [f"read ftp://{MASK}@host"]


QUICK = ("hydra.run.dir=run", "trainer.accelerator=cpu", "evaluators=[]", "budget.steps=1", "data.batch_size=32")


def test_no_file_of_a_run_holds_one(cli: Callable[..., Ended]) -> None:
    ended = cli(*QUICK, "logger=csv", *GIVEN[-2:])
    assert ended.status == 0, ended.err
    assert results.read_results(Path("run"))["experiment"] == f"https://{MASK}@example.org"
    assert SECRET not in ended.out + ended.err
    assert leaked(Path()) == []


def test_no_file_of_a_refused_run_holds_one(cli: Callable[..., Ended]) -> None:
    ended = cli(*QUICK, *GIVEN, "optimizer.lr=-1")
    assert ended.status == 2, ended.err
    assert SECRET not in ended.out + ended.err
    assert results.read_results(Path("run"))["status"] == "failed"
    assert leaked(Path()) == []


def test_an_honest_key_reaches_its_part(cli: Callable[..., Ended]) -> None:
    ended = cli("hydra.run.dir=run", "budget.steps=1", "+method.pad_token=abc")
    assert "unexpected keyword argument 'pad_token'" in ended.err


@pytest.mark.slow
def test_no_file_of_a_sweep_holds_one(tmp_path: Path, data_root: Path, cache_root: Path) -> None:
    """Its jobs get it through the environment, and each could use it."""
    command = [sys.executable, "-m", "ssl_zoo.run", "-m", "seed=-1,-2", "hydra.sweep.dir=sweep", *GIVEN, "logger=csv"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
    assert "hydra.run.dir" in (tmp_path / "sweep" / "0" / "output.log").read_text()
    name = results.read_results(tmp_path / "sweep" / "0")["config"]["optimizer"]["db"]["password"]
    assert re.fullmatch(r"\$\{oc\.env:SSL_ZOO_\w+\}", name)
    assert leaked(tmp_path) == []
