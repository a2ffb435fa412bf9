"""The architecture, held by tests: who may import whom, what mirrors what, how large a room may grow."""

import ast
from pathlib import Path

import pytest

from ssl_zoo.config import TASKS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ssl_zoo"
FILES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    # Maths: a method reads like its paper and knows nothing of a run.
    "methods": {"backbones.tokens", "checks", "distributed", "functional", "method", "nn", "schedules"},
    "nn": {"backbones.tokens", "checks", "distributed", "functional"},
    "method": {"functional"},
    "functional": {"distributed", "schedules"},
    "distributed": set(),
    "schedules": set(),
    "checks": set(),
    "backbones": set(),
    "views": set(),
    # Data and evaluation know no method.
    "data": {"checks", "files", "method", "views"},
    "evaluators": {"backbones.token_features", "data", "method", "nn.masks", "views"},
    # The run.
    "learner": {"clock", "distributed", "method"},
    "training": {"__version__", "backbones", "config", "data.base", "distributed", "encoder_file", "evaluators",
                 "files", "learner", "method", "report", "schedules", "similarity", "untrusted"},
    "tasks": {"__version__", "auto", "build", "config", "data", "dry_run", "encoder", "encoder_data", "encoder_file",
              "ending", "evaluators", "exporters", "files", "introduction", "learner", "method", "methods.mlm",
              "probe_file", "report", "similarity", "training"},
    "introduction": {"backbones.tokens", "evaluators", "report.display"},
    "clock": set(),
    "auto": {"build", "config", "data", "dry_run", "training"},
    # After training: an encoder in use needs neither Hydra nor Lightning.
    "encoder_file": {"report.results"},
    "encoder": {"backbones", "data", "encoder_file", "files", "pretrained", "training.encoder_card", "untrusted",
                "views"},
    "exporters": {"encoder"},
    "api": {"config", "data", "encoder", "encoder_data", "encoder_file", "ending", "report.results", "training"},
    "encoder_data": {"encoder", "encoder_file", "files"},
    "pretrained": {"backbones", "data", "encoder", "encoder_file"},
    "probe_file": {"encoder_file", "evaluators", "files"},
    "similarity": set(),
    "method_choice": {"config"},
    "untrusted": set(),
    "build": {"clock", "config", "data.base", "learner", "method", "training"},
    "dry_run": {"backbones", "build", "data.order", "method", "nn.queue", "settings", "training"},
    "config": {"settings", "training.cluster", "training.credentials"},
    "settings": set(),
    "ending": {"config", "report.results", "training"},
    "files": set(),
    # A task is imported by its name.
    "run": {"config", "encoder_data", "ending", "method_choice", "report", "training"},
    # After the run.
    "report": {"data.cache", "evaluators.correlation", "evaluators.few_labels", "evaluators.proportion", "files"},
    "sweep": {"config", "files", "report", "training.cluster", "training.loggers",
              "training.stop_signals"},
    "conformance": {"backbones.tokens", "build", "config", "distributed", "evaluators", "learner", "method",
                    "training"},
}  # fmt: skip
"""Room -> modules, or whole rooms, that it may import besides its own."""
MAY_USE_LIGHTNING = {"build", "conformance", "data", "dry_run", "learner", "tasks", "training"}
MAY_USE_OMEGACONF = {
    "api", "auto", "build", "config", "conformance", "dry_run", "encoder_data", "ending", "run", "sweep", "tasks",
    "training.card", "training.credentials", "training.encoder_card",  # what a checkpoint stores; secrets
}  # fmt: skip
MAY_PRINT = {"conformance", "ending", "report", "run", "sweep", "tasks"}  # what ends in tables and on the command line
LAZY = {"wandb", "datasets", "transformers", "matplotlib", "pandas", "sklearn", "lightly"}


def module(path: Path) -> str:
    """The dotted name of a file below the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def room(path: Path) -> str:
    """The part of the package a file belongs to: its folder, or its own name."""
    return module(path).split(".")[0]


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
    if path == PACKAGE / "__init__.py":
        return
    ours = {name.removeprefix("ssl_zoo.") for name in imports(path) if name.startswith("ssl_zoo.")}
    allowed = {room(path), *MAY_IMPORT[room(path)]}
    wrong = {name for name in ours if not any(f"{name}.".startswith(f"{part}.") for part in allowed)}
    assert not wrong, f"{room(path)} may not import {wrong}"
    everything = {name.split(".")[0] for name in imports(path)}
    if room(path) not in MAY_USE_LIGHTNING:
        assert "lightning" not in everything
    if not {room(path), module(path)} & MAY_USE_OMEGACONF:
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


@pytest.mark.parametrize("path", [path for path in FILES if room(path) not in MAY_PRINT], ids=module)
def test_messages_are_logged(path: Path) -> None:
    """A user of the package decides which messages to see, and where; a table goes to a rich console."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}


def test_one_meaning_has_one_name() -> None:
    """No public name is defined at the top of two modules; `main` starts a program, `log` is each module's logger."""
    places: dict[str, set[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
            if room(path) in ("api", "tasks"):
                names = [name for name in names if name not in TASKS]  # a task, called as users call it
            for name in names:
                places.setdefault(name, set()).add(module(path))
    twice = {name: where for name, where in places.items() if len(where) > 1 and not name.startswith("_")}
    assert not twice.keys() - {"log", "main"}, twice
