"""The architecture, held by tests: who may import whom, what mirrors what, how large a room may grow."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ssl_zoo"
FILES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "methods": {"method", "functional", "heads", "hidden", "masks", "memory", "tokens"},
    "learner": {"method", "functional"},
    "data": {"method", "functional", "views", "data"},
    "evaluators": {"data", "evaluators", "masks", "method", "proportion"},
    "views": {"views"},
    "conformance": {
        "build",
        "conformance",
        "evaluators",
        "functional",
        "learner",
        "method",
        "overrides",
        "run",
        "session",
        "tokens",
    },
    "heads": set(),
    "backbones": set(),
    "text_backbones": {"backbones"},
    "tokens": {"text_backbones"},
    "masks": {"functional"},
    "hidden": {"functional", "masks", "tokens"},
    "memory": {"functional"},
    "functional": set(),
    "method": {"functional"},
    "proportion": set(),
    "results": {"files"},
    "files": set(),
    "transcript": {"credentials", "files"},
    "job": {"files", "results"},
    "report": {"bars", "clean", "comparison", "files", "results"},
    "clean": set(),
    "settings": set(),
    "credentials": set(),
}
MAY_USE_LIGHTNING = {
    "learner", "data", "loggers", "checkpoints", "stop_signals", "session", "saving", "run_folder", "progress",
    "processes", "build", "run", "conformance",
}  # fmt: skip
MAY_USE_OMEGACONF = {
    "build",
    "card",
    "conformance",
    "credentials",
    "ending",
    "encoder_card",
    "run",
    "overrides",
}  # the last: its errors
LAZY = {"wandb", "datasets", "transformers", "matplotlib", "pandas", "sklearn", "lightly"}


def room(path: Path) -> str:
    """The part of the package a file belongs to: its folder, or its own name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path, only_top: bool = False) -> set[str]:
    """Dotted names that a file imports, anywhere or at its top level."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if only_top else list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_import_rule(path: Path) -> None:
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("ssl_zoo.") and name.count(".") > 0}
    if room(path) in MAY_IMPORT:
        assert ours <= MAY_IMPORT[room(path)], f"{room(path)} may not import {ours - MAY_IMPORT[room(path)]}"
    everything = {name.split(".")[0] for name in imports(path)}
    if room(path) not in MAY_USE_LIGHTNING:
        assert "lightning" not in everything
    if room(path) not in MAY_USE_OMEGACONF:
        assert "omegaconf" not in everything
    at_top = {name.split(".")[0] for name in imports(path, only_top=True)}
    assert not at_top & LAZY, f"import {at_top & LAZY} where it is used: it is slow or optional"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_file_has_its_test_and_its_size(path: Path) -> None:
    if path.name == "__init__.py":
        return
    test = ROOT / "tests" / path.relative_to(PACKAGE).parent / f"test_{path.name}"
    assert test.exists(), f"{test.relative_to(ROOT)} is missing"
    limit = 150 if room(path) == "methods" else 350
    assert path.read_text().count("\n") <= limit


@pytest.mark.parametrize("path", sorted((PACKAGE / "methods").glob("*.py")), ids=lambda p: p.stem)
def test_a_method_is_one_file_one_config_one_paper(path: Path) -> None:
    source = path.read_text()
    config = (ROOT / "conf" / "method" / path.name).with_suffix(".yaml").read_text()
    assert f"ssl_zoo.methods.{path.stem}." in config
    assert "https://" in (ast.get_docstring(ast.parse(source)) or "")
    assert "modality" not in source


def test_nothing_unsafe_is_loaded() -> None:
    for path in FILES:
        source = path.read_text()
        for call in ("weights_only=False", "pickle.load(", "allow_pickle=True", "trust_remote_code=True"):
            assert call not in source, f"{path.name}: {call}"
