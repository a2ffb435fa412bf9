"""A method of one's own: outside of the package by --config-dir, and inside of it as three new files."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from ssl_zoo.config import CONF
from ssl_zoo.dry_run import dry_run
from tests.conftest import Ended

ROOT = Path(__file__).parent.parent
CODE = """
from ssl_zoo.methods.simclr import SimCLR


class Mine(SimCLR):
    def __init__(self, backbone, temperature):
        super().__init__(backbone, hidden_dim=8, out_dim=8, temperature=temperature)
"""
CONFIG = """
defaults:
  - /views@_global_.paper_views.digits: digits

_target_: {module}.Mine
temperature: 0.2
"""


def own_method(folder: Path, module: str) -> None:
    """A method in `folder`/<module>.py and its file `folder`/my_conf/method/mine.yaml."""
    (folder / f"{module}.py").write_text(CODE)
    (folder / "my_conf" / "method").mkdir(parents=True)
    (folder / "my_conf" / "method" / "mine.yaml").write_text(CONFIG.format(module=module))


def test_method_outside_the_package_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_method(tmp_path, "method_on_the_path")
    monkeypatch.syspath_prepend(tmp_path)
    search = f"hydra.searchpath=[file://{tmp_path / 'my_conf'}]"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [search, "method=mine", "method.temperature=0.5"])
    method = dry_run(cfg)
    assert type(method).__name__ == "Mine"
    assert method.temperature == 0.5


def test_method_outside_the_package_is_chosen_by_config_dir(cli: Callable[..., Ended], tmp_path: Path) -> None:
    """By `main`, which `ssl-zoo` and `python -m ssl_zoo.run` call; it stops before the data, at a wrong value."""
    own_method(tmp_path, "method_by_config_dir")
    options = ("--config-dir", "my_conf", "method=mine", "logger=csv", "hydra.run.dir=run")
    missing = cli(*options)
    assert missing.status == 2
    assert "method._target_=method_by_config_dir.Mine: a module is not found (method_by_config_dir)" in missing.err
    assert "PYTHONPATH" in missing.err
    sys.path.insert(0, str(tmp_path))
    try:
        refused = cli(*options, "method.temperature=-1")
    finally:
        sys.path.remove(str(tmp_path))
    assert refused.status == 2
    assert "temperature" in refused.err


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The repository's files, and SimCLR once more under the name `newcomer`."""
    if not (ROOT / ".git").exists():
        pytest.skip("the list of files comes from git")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    tree = ast.parse((ROOT / "ssl_zoo" / "methods" / "simclr.py").read_text())
    taken = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    for name in ("ssl_zoo/methods/{}.py", "conf/method/{}.yaml", "tests/methods/test_{}.py"):
        text = (tmp_path / name.format("simclr")).read_text()
        text = re.sub(r"ssl_zoo\.methods\.simclr\b", "ssl_zoo.methods.newcomer", text)
        text = re.sub(rf"\b({'|'.join(taken)})\b(?! =)", r"New\1", text)  # one meaning, one name
        (tmp_path / name.format("newcomer")).write_text(text)
    return tmp_path


def test_method_inside_the_package_is_three_files(checkout: Path) -> None:
    """No list, table or page has to be edited: the sweeps that take every method pass, and so does the rest of the
    tests that read the tree."""
    tests = ["methods/test_newcomer.py", "test_zoo.py", "test_methods_step.py", "test_methods_resume.py"]
    tests += ["test_layout.py", "test_readme.py", "test_docs.py"]
    # Commands compose as before; what is slow, and what the other methods do, is not repeated.
    chosen = "newcomer or test_layout or test_readme or (test_docs and not composes)"
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow", "-k", chosen]
    command = [sys.executable, "-m", "pytest", *options, *(f"tests/{name}" for name in tests)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(checkout)
    ended = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "newcomer" not in (checkout / "benchmarks" / "results" / "accuracy.md").read_text()
