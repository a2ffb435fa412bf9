"""The package declares what it imports, and has one version."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import yaml

import ssl_zoo

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTION = {"huggingface_hub": "huggingface-hub", "hydra": "hydra-core", "PIL": "pillow"} | {
    "sklearn": "scikit-learn",
    "vl_convert": "vl-convert-python",
    "yaml": "pyyaml",
}
"""Import name -> name on PyPI, where they differ."""


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~ ;\[]", requirement)[0] for requirement in requirements}


def test_dependencies_are_the_imports() -> None:
    imported: set[str] = set()
    for path in [*ROOT.glob("ssl_zoo/**/*.py"), *ROOT.glob("hydra_plugins/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    imported -= {*sys.stdlib_module_names, "ssl_zoo", "hydra_plugins"}
    optional = set().union(*map(names, PROJECT["optional-dependencies"].values()))
    assert {DISTRIBUTION.get(name, name) for name in imported} - optional == names(PROJECT["dependencies"])


def test_there_is_one_version() -> None:
    assert "version" in PROJECT["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", ssl_zoo.__version__)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == ssl_zoo.__version__
    assert f"## {ssl_zoo.__version__}" in (ROOT / "CHANGELOG.md").read_text()
