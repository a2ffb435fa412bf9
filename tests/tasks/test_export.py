"""The task: what is exported is complete or absent, and an upload goes to a stand-in of the Hub on this machine."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from ssl_zoo.encoder import load
from ssl_zoo.tasks import export
from tests.test_encoder import image_encoder


def test_a_folder_appears_when_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_encoder("vit", tmp_path)
    encoder = load(tmp_path)
    folder = export.export_encoder(encoder, "timm", tmp_path)
    files = {"README.md", "config.json", "encoder.json", "model.safetensors"}
    assert {path.name for path in folder.iterdir()} == files
    assert "timm.create_model" in (folder / "README.md").read_text()

    def fail(encoder: object, folder: Path) -> str:
        (folder / "half").write_text("")
        raise ValueError("no")

    monkeypatch.setitem(export.FORMATS, "timm", fail)
    with pytest.raises(ValueError, match="no"):
        export.export_encoder(encoder, "timm", tmp_path)
    assert {path.name for path in folder.iterdir()} == files  # the earlier export is as it was
    assert not list(tmp_path.glob(".*part"))


def test_no_place_on_this_machine_is_published() -> None:
    words = ["method=byol", "data.path=/home/me/pictures", "+data.root='/x'", "hydra.run.dir=out", "seed=1"]
    words += ["backbone.pretrained=/home/me/w.pt", "checkpoint=runs/1", "data.tokenizer.name=/home/me/t.json"]
    found = export.without_paths({"training": {"method": "byol", "overrides": words}})
    assert found["training"] == {"method": "byol", "overrides": ["method=byol", "seed=1"]}
    assert export.without_paths({"modality": "image"}) == {"modality": "image"}


@pytest.mark.parametrize(
    ("encoder", "kind", "push", "message"),
    [
        (None, "timm", None, "needs encoder="),
        ("run", None, None, "format=null: give one of timm, torch, onnx, hf"),
        ("run", "tensorflow", None, "format=tensorflow: give one of"),
        ("run", "timm", "name", "push=name: give the id"),
    ],
)
def test_mistakes_are_found_first(encoder: str | None, kind: str | None, push: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export.check_export(encoder, kind, push)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(export.NEEDED, "onnx", ("no_such_package",))
    with pytest.raises(ValueError, match=r"format=onnx needs no_such_package: pip install 'ssl_zoo\[onnx\]'"):
        export.check_export("run", "onnx", None)


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as an upload needs: it keeps the files of one commit."""

    uploaded: dict[str, bytes]

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        address = f"http://127.0.0.1:{self.server.server_address[1]}"
        if self.headers.get("Authorization") != "Bearer hf_right":
            self._answer(401, {"error": "Invalid credentials"})
        elif self.path == "/api/repos/create":
            self._answer(200, {"url": f"{address}/me/encoder", "name": "me/encoder"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._answer(200, {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.uploaded[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._answer(200, {"commitUrl": f"{address}/me/encoder/commit/1", "commitOid": "1"})
        else:
            self._answer(200, {})

    def do_GET(self) -> None:
        self._answer(404, {"error": "Not found"})

    def log_message(self, *arguments: Any) -> None:
        """Prints nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    Hub.uploaded = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    yield Hub.uploaded
    server.shutdown()
    server.server_close()


def test_an_export_is_uploaded_with_its_card(hub: dict[str, bytes], tmp_path: Path) -> None:
    image_encoder("vit", tmp_path)
    folder = export.export_encoder(load(tmp_path), "timm", tmp_path)
    assert "/me/encoder" in export.push_to_hub(folder, "me/encoder")
    assert hub.keys() == {path.name for path in folder.iterdir()}
    assert hub["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert hub["README.md"].startswith(b"---\nlibrary_name: timm")


def test_a_refused_upload_keeps_the_export(
    hub: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    (tmp_path / "README.md").write_text("x")
    with pytest.raises(ValueError, match=r"push=me/encoder: not uploaded .*the export is in"):
        export.push_to_hub(tmp_path, "me/encoder")
    assert not hub
