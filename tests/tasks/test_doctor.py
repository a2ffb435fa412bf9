"""The doctor finds what there is, says what to fix, keeps secrets, and works where everything is missing."""

import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from ssl_zoo.tasks import doctor
from ssl_zoo.tasks.doctor import OK, Row
from tests.conftest import Ended

NAMES = ("Python", "packages", "processor", "precision", "memory", "disk of the run folder", "cache", "allocator")
QUICK = ("task=doctor", "logger=csv", "hydra.run.dir=run")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, no login, no home."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "HF_HUB_OFFLINE", "NETRC", "SSL_ZOO_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_the_table_is_printed_and_nothing_is_trained(cli: Callable[..., Ended]) -> None:
    ended = cli(*QUICK)
    assert ended.status == 0, ended.err
    for name in (*NAMES, "data here", "cifar10_captions", "flickr8k_captions, imagenette, imdb", "digits, stdlib_docs"):
        assert name in ended.out
    assert "to fix: Hub" in ended.out + ended.err
    assert sorted(path.name for path in Path("run").iterdir()) == ["run.log"]


def test_it_works_where_everything_is_missing(cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_ZOO_DATA", "/nowhere/data")
    monkeypatch.setenv("SSL_ZOO_CACHE", "/nowhere/cache")
    monkeypatch.setattr(doctor, "_declared", lambda: ["no-such-package>=2"])
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    ended = cli("task=doctor", "data.root=/nowhere/root")
    assert ended.status == 0, ended.err
    text = " ".join(ended.out.replace("│", " ").split())
    for said in ("pip install 'no-such-package>=2'", "set SSL_ZOO_DATA", "set data.root", "devices", "could not be"):
        assert said in text
    assert "Traceback" not in ended.out + ended.err


def test_no_credential_is_printed(cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"WANDB_API_KEY": "k3y" * 10, "HF_TOKEN": "hf_t0ken", "HF_ENDPOINT": "http://user:pa55@127.0.0.1:9"}
    for name, value in (secrets | {"WANDB_BASE_URL": "https://user:pa55@wandb.example"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SSL_ZOO_DATA", "s3://user:pa55@bucket")
    ended = cli("task=doctor", "hydra.run.dir=run", "+logger.wandb.api_key=pa55pa55")
    assert ended.status == 0, ended.err
    assert "logged in to wandb.example" in ended.out
    for secret in ("k3yk3y", "hf_t0ken", "pa55"):
        assert secret not in ended.out + ended.err + Path("run/run.log").read_text()


def test_packages_outside_of_the_declared_range(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["numpy<1", "rich>=1", "no-such-package>=2,<3", "no-such-extra>=1; extra == 'more'"]
    monkeypatch.setattr(doctor, "_declared", lambda: lines)
    first, *wrong = doctor.package_rows()
    assert first.found.startswith("rich ")
    assert first.found.endswith("no-such-extra not installed (optional)")
    assert [(row.name, row.advice) for row in wrong] == [
        ("numpy", "pip install 'numpy<1'"),
        ("no-such-package", "pip install 'no-such-package<3,>=2'"),
    ]


def test_the_declared_packages_are_those_of_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    in_checkout = doctor._declared()
    assert any(text.startswith("torch>=") for text in in_checkout)
    assert "tensorboard; extra == 'tensorboard'" in in_checkout
    assert not [row for row in doctor.package_rows()[1:] if row.found == "not installed"]


def test_devices() -> None:
    rows = {row.name: row for row in doctor.device_rows("gpu", "32-true")}
    assert "32-true on" in rows["precision"].found
    if "GPU" in rows:
        assert "trainer.accelerator=gpu needs one" in rows["GPU"].advice
        assert {row.name: row for row in doctor.device_rows("auto", "auto")}["GPU"].advice == OK


@pytest.mark.parametrize(("free", "is_ok"), [(10**8, False), (10**11, True)])
def test_free_disk(free: int, is_ok: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    (row,) = doctor.disk_rows("disk", tmp_path / "not" / "yet", "hydra.run.dir")
    assert (row.advice == OK) == is_ok
    assert is_ok or row.advice.endswith("by hydra.run.dir")


def test_size_and_place_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_ZOO_CACHE", str(tmp_path / "cache"))
    assert doctor.cache_rows()[0].found == f"{tmp_path / 'cache'}: empty"
    (tmp_path / "cache" / "images").mkdir(parents=True)
    with open(tmp_path / "cache" / "images" / "x", "wb") as file:
        file.truncate(3 * 10**9)
    assert doctor.cache_rows()[0].found.endswith(": 3.0 GB")
    monkeypatch.setattr(doctor, "SIZE_SECONDS", -1.0)
    assert "more than" in doctor.cache_rows()[0].found


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not logged in to api.wandb.ai" in doctor.wandb_rows(True)[0].found
    assert "wandb login" in doctor.wandb_rows(True)[0].advice
    assert doctor.wandb_rows(False)[0].advice == OK
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert doctor.wandb_rows(True) == [Row("wandb", "logged in to api.wandb.ai")]
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert "WANDB_MODE=offline" in doctor.wandb_rows(True)[0].found


class Answers(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as made:
        Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


def test_a_hub_that_answers(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server)
    (row,) = doctor.hub_rows()
    assert row.advice == OK
    assert f"{server} answers" in row.found


def test_a_hub_that_is_silent_or_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be reached" in doctor.hub_rows()[0].found
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(doctor, "HUB_SECONDS", 0.1)
        assert "cannot be reached" in doctor.hub_rows()[0].found
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor.hub_rows()[0].advice == OK


def test_data_is_found_below_the_root(data_root: Path) -> None:
    rows = {row.name: row for row in doctor.data_rows(str(data_root))}
    assert rows["data here"].found == "cifar10, cifar10_captions, flickr8k, flickr8k_captions, imagenette, imdb"
    assert "cifar100" in rows["data to be downloaded"].found
    assert rows["data built in"].found == "digits, stdlib_docs"
    assert rows["SSL_ZOO_DATA"].advice == OK
    assert doctor.data_rows("/nowhere")[0].advice.startswith("set data.root")
