"""The documentation site builds, its generated parts follow the tree, and each command that a page shows composes."""

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from ssl_zoo.config import CONF, quoted
from ssl_zoo.method_choice import with_methods

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = re.compile(r"(?:run\.py|-m ssl_zoo\.run|ssl-zoo)\b(.*)")
"""What starts a run, and its arguments."""


def blocks(language: str) -> list[str]:
    """The code blocks of this language in the README and in docs/."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [block for page in PAGES for block in fence.findall(page.read_text())]


def lines() -> list[str]:
    """Each command of the bash blocks once, in one line and without its comment."""
    joined = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    return sorted({shlex.join(shlex.split(line, comments=True)) for line in joined} - {""})


RUNS = [line for line in lines() if RUN.search(line)]
MODULES = sorted({name for line in lines() for name in re.findall(r"-m (ssl_zoo[.\w]*)", line)})


@pytest.fixture(scope="module")
def my_conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `my_conf` of the pages: the YAML blocks that begin with the name of their file."""
    folder = tmp_path_factory.mktemp("my_conf")
    for block in blocks("yaml"):
        if name := re.match(r"# my_conf/(\S+)\n", block):
            (folder / name[1]).parent.mkdir(exist_ok=True)
            (folder / name[1]).write_text(block)
    return folder


def test_commands_are_found() -> None:
    assert len(RUNS) >= 30
    assert any("README" in page.name for page in PAGES)


@pytest.mark.parametrize("line", RUNS)
def test_command_composes(line: str, my_conf: Path) -> None:
    found = RUN.search(re.sub(r"<\w+>", "simclr", line))
    assert found is not None
    arguments = with_methods(shlex.split(found[1]))
    search = []
    if "--config-dir" in arguments:
        position = arguments.index("--config-dir")
        assert arguments[position + 1] == "my_conf"
        del arguments[position : position + 2]
        search = [f"hydra.searchpath=[file://{my_conf}]"]
    if "--cfg" in arguments:
        arguments = arguments[: arguments.index("--cfg")]
    arguments = [a for a in arguments if a != "-m" and not a.startswith("hydra.")]
    arguments = [quoted(a, is_sweep="-m" in found[1].split()) for a in arguments]  # as `main` does
    singles = []
    for override in OverridesParser.create().parse_overrides(arguments):
        if override.is_interval_sweep():
            singles.append(f"{override.get_key_element()}={override.value().start}")
        elif override.is_sweep_override():
            singles.append(f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}")
        else:
            singles.append(override.input_line or "")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose("config", [*search, *singles])


def test_the_introduction_has_a_figure_and_its_command_for_each_story() -> None:
    page = (ROOT / "docs" / "introduction.md").read_text()
    shown = re.findall(r"^!\[(.+)\]\((.+)\)$", page, re.MULTILINE)
    assert page.count("![") == len(shown)
    told = re.findall(r"^python run\.py experiment=intro/(\w+)$", page, re.MULTILINE)
    assert [file for _, file in shown] == [f"introduction/{story}.png" for story in told]
    assert set(told) == {file.stem for file in (CONF / "experiment" / "intro").glob("*.yaml")}
    for alternative, file in shown:
        assert len(alternative.split()) >= 20, "a reader who does not see the figure learns what it shows"
        assert 5_000 < (ROOT / "docs" / file).stat().st_size < 120_000


@pytest.mark.parametrize("name", MODULES)
def test_module_of_a_command_exists(name: str) -> None:
    assert find_spec(name) is not None


@pytest.fixture
def generate() -> ModuleType:
    """docs/generate.py, which is no module of a package."""
    spec = spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_site_builds_without_torch(tmp_path: Path) -> None:
    """Warnings are errors: a dead link, a page that is in no menu, a mark that stands for nothing."""
    pytest.importorskip("mkdocs")
    code = "import sys; sys.modules['torch'] = None; from mkdocs.__main__ import cli; cli(sys.argv[1:])"
    command = [sys.executable, "-c", code, "build", "--strict", "--site-dir", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    unfilled = [page for page in tmp_path.rglob("*.html") if "<!-- generated:" in page.read_text()]
    assert not unfilled


def test_every_choice_is_in_the_configuration(generate: ModuleType) -> None:
    page = generate.configuration()
    choices = [file.relative_to(CONF).with_suffix("").as_posix() for file in CONF.glob("*/**/*.yaml")]
    assert "experiment/intro/dots" in choices
    assert not [choice for choice in choices if f"`{choice.partition('/')[2]}`" not in page]


def test_a_method_without_a_number_says_so(generate: ModuleType, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(generate.accuracy, "RECORD", tmp_path / "accuracy.jsonl")
    page = generate.methods()
    assert page.count(generate.NOT_MEASURED) == 2 * len(list((CONF / "method").glob("*.yaml")))


def test_a_mark_that_stands_for_nothing_is_an_error(generate: ModuleType) -> None:
    with pytest.raises(KeyError, match="nonsense"):
        generate.on_page_markdown("<!-- generated: nonsense -->")


def test_angle_brackets_outside_of_code_are_text(generate: ModuleType) -> None:
    assert generate.prose("a <b> `<c>`") == "a &lt;b&gt; `<c>`"


def test_python_of_the_encoder_page_runs(tmp_path: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from tests.test_encoder import image_encoder

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_ZOO_CACHE", str(cache_root))
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "my_run").mkdir()
    image_encoder("vit", tmp_path / "my_run")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (20, 30), "red").save(name)
    page = (ROOT / "docs" / "encoder.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    variables: dict[str, Any] = {}
    exec("\n".join(code), variables)
    assert variables["vectors"].shape == (2, 32)
    assert variables["patches"].shape[1] == variables["grid"][0] * variables["grid"][1]
    assert 0 < variables["run"].metrics["knn/top1"] <= 1
