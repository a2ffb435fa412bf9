"""`task=export`: an encoder for other libraries, checked against the original before it is kept.

python run.py task=export encoder=<run folder> format=timm           timm.create_model("local-dir:...", pretrained=True)
python run.py task=export encoder=<run folder> format=onnx push=<user>/<name>
"""

import importlib.util
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ssl_zoo import encoder_file
from ssl_zoo.encoder import Encoder, load
from ssl_zoo.exporters.to_hf import export_hf
from ssl_zoo.exporters.to_onnx import export_onnx
from ssl_zoo.exporters.to_timm import export_timm
from ssl_zoo.exporters.to_torch import export_torch
from ssl_zoo.report.model_card import model_card
from ssl_zoo.training import hardware, transcript

log = logging.getLogger(__name__)

FORMATS: dict[str, Callable[[Encoder, Path], str]] = {
    "timm": export_timm,
    "torch": export_torch,
    "onnx": export_onnx,
    "hf": export_hf,
}
"""By the name of the format: writes the encoder to a folder, and returns the Python code that loads it."""
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "hf": ("transformers",)}
"""Packages that a format needs beyond those of ssl_zoo."""
_PLACE = re.compile(r"[^=]*(path|root|dir|checkpoint|pretrained|tokenizer\.name)=")
"""Overrides whose value is a file or a folder."""
EXTRA_OF = {"onnx": "onnx", "hf": "transformers"}
"""The extra of ssl_zoo that brings them."""


def export(cfg: DictConfig, folder: Path) -> None:
    """Writes the encoder in `cfg.format`, and uploads it if `cfg.push` is given."""
    check_export(cfg.encoder, cfg.format, cfg.push)
    transcript.write_transcript(folder)
    hardware.prepare_torch("cpu", "32-true")
    path = export_encoder(load(cfg.encoder), cfg.format, folder)
    log.info("exported: %s. To load it, see %s", path, path / "README.md")
    if cfg.push is not None:
        log.info("uploaded: %s", push_to_hub(path, cfg.push))


def check_export(encoder: str | None, kind: str | None, push: str | None) -> None:
    """Raises ValueError for a command that cannot succeed, before the encoder is loaded."""
    if encoder is None:
        raise ValueError("task=export needs encoder=<run folder, encoder file, timm:NAME or hf:NAME>")
    if kind not in FORMATS:
        raise ValueError(f"format={'null' if kind is None else kind}: give one of {', '.join(FORMATS)}")
    for package in NEEDED.get(kind, ()):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"format={kind} needs {package}: pip install 'ssl_zoo[{EXTRA_OF[kind]}]'")
    if push is not None and push.count("/") != 1:
        raise ValueError(f"push={push}: give the id of a repository on the Hugging Face Hub, <user>/<name>")


def export_encoder(encoder: Encoder, kind: str, folder: str | Path) -> Path:
    """Exports an encoder to `<folder>/<kind>`, which appears only if it is complete and its features are right.

    Args:
        encoder: on the CPU.
        kind: "timm", "torch" (`torch.export`), "onnx" or "hf" (transformers).
        folder: where the new folder is made; one of an earlier export is replaced.

    Raises:
        ValueError: for a network that the format cannot hold, or that gives other features there.
    """
    encoder.eval()
    with _replaced_at_the_end(Path(folder) / kind) as part:
        usage = FORMATS[kind](encoder, part)
        manifest = without_paths(encoder.manifest)
        (part / "README.md").write_text(model_card(manifest, kind, usage))
        (part / encoder_file.MANIFEST_NAME).write_text(json.dumps(manifest, indent=1) + "\n")
    return Path(folder) / kind


def without_paths(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest to publish: its command line without the values that name places on this machine."""
    training = dict(manifest.get("training") or {})
    words = [text for text in training.get("overrides", []) if not _PLACE.match(text)]
    return {**manifest, "training": {**training, "overrides": words}} if training else manifest


@contextmanager
def _replaced_at_the_end(folder: Path) -> Iterator[Path]:
    """A folder to write to, which takes the name `folder` if no error is raised, and is removed otherwise."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def push_to_hub(folder: Path, repository: str) -> str:
    """Uploads an exported folder with its model card to the Hugging Face Hub; returns the address.

    Raises:
        ValueError: if the Hub refuses it or cannot be reached; what was exported stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        return str(
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload an encoder").commit_url
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"push={repository}: not uploaded ({reason}). Log in by `hf auth login` with a token that may write; "
            f"the export is in {folder}"
        ) from error
