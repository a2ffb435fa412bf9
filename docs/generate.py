"""Fills the documentation with what the tree already says: methods, configuration, results, API.

A page says where, by a comment on a line of its own:

    <!-- generated: methods -->

`GENERATORS` has the names; `results/<file>` stands for a file of benchmarks/results, and `results/rest` for those that
the page does not name. Files are read, not imported, so the site builds in seconds and without torch.
"""

import ast
import copy
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
DOCS = ROOT / "docs"
PACKAGE = ROOT / "ssl_zoo"
RESULTS = ROOT / "benchmarks" / "results"
MARK = re.compile(r"^<!-- generated: (\S+) -->$", re.MULTILINE)
NOT_MEASURED = "not measured at this budget yet"

sys.path.insert(0, str(ROOT))  # mkdocs runs from anywhere
from benchmarks import accuracy  # noqa: E402


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page. Raises KeyError or FileNotFoundError for a mark that stands for nothing."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        if name == "results/rest":
            return rest_of_results(set(MARK.findall(markdown)))
        return result(name.removeprefix("results/")) if name.startswith("results/") else GENERATORS[name]()

    return MARK.sub(fill, markdown)


def fenced(text: str, language: str = "yaml", indent: int = 0) -> str:
    lines = [f"```{language}", *text.strip("\n").splitlines(), "```"]
    return "\n".join(" " * indent + line if line else "" for line in lines)


def folded(title: str, text: str) -> str:
    """A code block that the reader opens."""
    return f'??? note "{title}"\n\n{fenced(text, indent=4)}\n'


def table(head: list[str], lines: list[list[str]]) -> str:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *cells]) + "\n"


def prose(text: str) -> str:
    """`text` with "<" and ">" as text, outside of code."""
    parts = text.split("`")
    return "`".join(p if i % 2 else p.replace("<", "&lt;").replace(">", "&gt;") for i, p in enumerate(parts))


# Home


def readme() -> str:
    """README.md, with its links to files of docs/ as links between pages; links to other files become their names."""
    text = (ROOT / "README.md").read_text().replace("](docs/", "](")
    return re.sub(
        r"\[([^\]]+)\]\((?!https?://|#)([^)]+)\)", lambda m: m[0] if (DOCS / m[2]).exists() else f"`{m[2]}`", text
    )


# Methods


def defaults(config: dict[str, Any]) -> str:
    return " ".join(
        f"{key}={value}" for part in config.get("defaults", []) if isinstance(part, dict) for key, value in part.items()
    )


def target(config: dict[str, Any]) -> str:
    """The dotted name of the class that a file of conf/method builds."""
    return str(config.get("method", config)["_target_"])


def source(name: str) -> Path:
    """The file of the class with this dotted name."""
    return ROOT.joinpath(*name.split(".")[:-1]).with_suffix(".py")


def header(path: Path) -> tuple[str, str]:
    """The first sentence of a file's docstring and the paragraphs after it, which cite the paper."""
    first, _, rest = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")
    return prose(" ".join(first.split())), prose(rest.partition("Letters:")[0].strip())


def kind(config: dict[str, Any]) -> str:
    """What a method takes, from the data and the views that its file names."""
    chosen = defaults(config)
    if "captions" in chosen:
        return "Images with captions"
    if "stdlib_docs" in chosen:
        return "Text"
    return "Images and text" if "paper_views.text" in chosen else "Images"


def methods() -> str:
    """A table per kind of input, then a section per method."""
    rows: dict[str, list[accuracy.Row]] = {}
    for measured in accuracy.measured():
        rows.setdefault(measured.method, []).append(measured)
    files = sorted((CONF / "method").glob("*.yaml"))
    kinds: dict[str, list[Path]] = {}
    for file in files:
        kinds.setdefault(kind(yaml.safe_load(file.read_text())), []).append(file)
    parts = []
    for title, members in sorted(kinds.items()):
        lines = []
        for file in members:
            summary, _ = header(source(target(yaml.safe_load(file.read_text()))))
            row = next((row for row in rows.get(file.stem, []) if row.is_text == (title == "Text")), None)
            numbers = [row.scores[0], row.scores[2]] if row else [NOT_MEASURED, ""]
            lines.append([f"[`{file.stem}`](#{file.stem})", summary.partition(": ")[2] or summary, *numbers])
        parts += [f"## {title}\n", table(["method", "", "kNN %", "linear %"], lines)]
    parts.append("## Each method\n")
    parts += [section(file, rows.get(file.stem, [])) for file in files]
    return "\n".join(parts)


def section(file: Path, rows: list[accuracy.Row]) -> str:
    written = file.read_text()
    config = yaml.safe_load(written)
    path = source(target(config))
    summary, citation = header(path)
    parts = [f"### {file.stem} {{ #{file.stem} }}\n", f"{summary}\n", f"{citation}\n"]
    parts += [f"Source: `{path.relative_to(ROOT)}`.\n", fenced(f"python run.py method={file.stem}", "bash") + "\n"]
    if rows:
        head = ["row", "kNN %", "*init*", "linear %", "*init*", "seeds", "command"]
        lines = [[row.label, *row.scores, str(len(row.runs)), f"`{row.command}`"] for row in rows]
        parts.append(table(head, lines))
    else:
        parts.append(f"Accuracy: {NOT_MEASURED}.\n")
    parts.append(folded(str(file.relative_to(ROOT)), written))
    return "\n".join(parts)


# Configuration


def comment(text: str) -> str:
    """The comment at the top of a file of conf/, in one line."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return prose(" ".join(lines))


def groups() -> list[str]:
    """The folders of conf/, what a user sets first before the rest: the defaults list of config.yaml backwards."""
    listed = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    choices = {key: choice for part in listed if isinstance(part, dict) for key, choice in part.items()}
    folders = [path.name for path in sorted(CONF.iterdir()) if path.is_dir()]
    order = list(reversed(choices))
    return sorted(folders, key=lambda name: (choices.get(name) is None, order.index(name) if name in order else 0))


def configuration() -> str:
    """config.yaml, then a table of choices and the files themselves, per group."""
    parts = ["## config.yaml\n", fenced((CONF / "config.yaml").read_text()) + "\n"]
    for group in groups():
        found = sorted((CONF / group).rglob("*.yaml"))
        files = {file.relative_to(CONF / group).with_suffix("").as_posix(): file.read_text() for file in found}
        if group == "method":
            lines = [
                [f"[`{name}`](methods.md#{name})", header(source(target(yaml.safe_load(text))))[0]]
                for name, text in files.items()
            ]
        else:
            lines = [[f"`{name}`", comment(text)] for name, text in files.items()]
        parts += [f"## {group}=\n", table(["choice", ""], lines)]
        if group != "method":
            parts += [folded(f"conf/{group}/{name}.yaml", text) for name, text in files.items()]
    return "\n".join(parts)


# Results


def result(name: str) -> str:
    """A file of benchmarks/results without its title; records of runs become a table."""
    text = (RESULTS / name).read_text()
    if name.endswith(".jsonl"):
        return records([json.loads(line) for line in text.splitlines()])
    return re.sub(r"\A# .*\n+", "", text)


def records(runs: list[dict[str, Any]]) -> str:
    """One line per run of a .jsonl file, by its command or by what identifies it in results.json."""
    keys = ["knn/top1", "knn200/top1", "linear/top1"]
    lines = []
    for run in runs:
        name = run.get("name") or " ".join(str(run[key]) for key in ("experiment", "method", "data") if run.get(key))
        scores = [f"{100 * run['metrics'][key]:.1f}" if key in run["metrics"] else "" for key in keys]
        seconds = run.get("budget", {}).get("seconds")
        minutes = f"{seconds / 60:.1f}" if seconds else ""
        place = run["environment"]
        lines.append(
            [
                name,
                *scores,
                str(run["seed"]),
                minutes,
                f"{place['device']}, {place['precision']}, torch {place['torch']}",
            ]
        )
    return table(["run", "kNN %, k = 20", "k = 200", "linear %", "seed", "minutes of training", "machine"], lines)


def published() -> str:
    """The recipes of conf/experiment/published with the number that each is to reach, and ours where it was run."""
    runs = [json.loads(line) for file in sorted(RESULTS.glob("*.jsonl")) for line in file.read_text().splitlines()]
    lines = []
    for file in sorted((CONF / "experiment" / "published").glob("*.yaml")):
        name = f"published/{file.stem}"
        about = " ".join(line.lstrip("# ") for line in file.read_text().partition("# python")[0].splitlines()[1:])
        if (found := re.search(r"Published by (\S+): ([\d.]+)", about)) is None:
            continue  # what the recipes have in common
        ours = [run["metrics"]["linear/top1"] for run in runs if run.get("experiment") == name]
        shown = ", ".join(f"{100 * score:.1f}" for score in ours) or NOT_MEASURED
        lines.append([f"`experiment={name}`", f"{found[2]} ({found[1]})", shown])
    return table(["recipe", "published, linear %", "ours, linear %"], lines)


def rest_of_results(named: set[str]) -> str:
    parts = []
    for file in sorted(RESULTS.glob("*.md")):
        if f"results/{file.name}" not in named:
            title = file.read_text().partition("\n")[0].removeprefix("# ")
            parts += [f"## {title}\n", result(file.name)]
    return "\n".join(parts)


# API


def targets(value: Any) -> Iterator[str]:
    """All `_target_` of a configuration, however deep."""
    if isinstance(value, dict):
        if isinstance(value.get("_target_"), str):
            yield value["_target_"]
        for item in value.values():
            yield from targets(item)
    elif isinstance(value, list):
        for item in value:
            yield from targets(item)


def module_file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ssl_zoo."):
            yield from (name for name in (f"{node.module}.{alias.name}" for alias in node.names) if module_file(name))
            yield str(node.module)


def modules() -> list[str]:
    """What a configuration builds, and what methods and evaluators import: what code of one's own meets."""
    found = {
        name.rpartition(".")[0] for file in CONF.glob("*/*.yaml") for name in targets(yaml.safe_load(file.read_text()))
    }
    for folder in ("methods", "evaluators"):
        found |= {name for file in (PACKAGE / folder).glob("*.py") for name in imported(file)}
    ours = {name for name in found if name.startswith("ssl_zoo.") and module_file(name)}
    ours -= {name for name in ours if name.startswith("ssl_zoo.methods.")}  # they have a page of their own
    first = ["ssl_zoo.api", "ssl_zoo.encoder", "ssl_zoo.method", "ssl_zoo.report.report"]
    return [*first, *sorted(ours - set(first))]


SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes):[ ]*(.*)$")
"""The heading of a section of a docstring in Google's style, and what follows on its line."""


def docstring(node: Any) -> str:
    """A docstring as Markdown: prose as it is, sections as lists."""
    lines, inside = [], False
    for line in prose(ast.get_docstring(node) or "").splitlines():
        if found := SECTION.match(line):
            lines += ["", f"**{found[1]}:** {found[2]}", ""]
            inside = True
        elif inside and re.match(r"    \S", line):
            lines.append(f"- {line.strip()}")
        else:
            inside = inside and (not line or line.startswith(" "))
            lines.append(line)
    return "\n".join(lines) + "\n"


def signature(node: Any, name: str) -> str:
    """A fenced `name(arguments) -> result`, with one argument per line if it is long; a property as `name: type`."""
    if {ast.unparse(item) for item in node.decorator_list} & {"property", "cached_property"}:
        return fenced(f"{name}: {ast.unparse(node.returns)}", "python") + "\n"
    arguments = copy.deepcopy(node.args)
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        arguments.args.pop(0)
    result = f" -> {ast.unparse(node.returns)}" if node.returns is not None and node.name != "__init__" else ""
    line = f"{name}({ast.unparse(arguments)}){result}"
    if len(line) > 90:
        each = re.sub(r", (?=\*{0,2}\w+(:|=|,|$)|\*,|/,)", ",\n    ", ast.unparse(arguments))
        line = f"{name}(\n    {each},\n){result}"
    return fenced(line, "python") + "\n"


def is_public(node: ast.stmt) -> bool:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return isinstance(node, kinds) and not node.name.startswith("_") and ast.get_docstring(node) is not None


def members(node: Any) -> str:
    """Signature and docstring of a function, or of a class, its constructor and its public methods."""
    if isinstance(node, ast.FunctionDef):
        return f"### {node.name}\n\n{signature(node, node.name)}\n{docstring(node)}"
    inner = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    parts = [f"### {node.name}\n"]
    if "__init__" in inner:
        parts += [signature(inner["__init__"], node.name), docstring(node), docstring(inner["__init__"])]
    else:
        bases = ", ".join(map(ast.unparse, node.bases))
        parts += [fenced(f"class {node.name}({bases})", "python") + "\n", docstring(node)]
    for name, item in inner.items():
        if is_public(item):
            parts += [signature(item, f"{node.name}.{name}"), docstring(item)]
    return "\n".join(parts)


def api() -> str:
    """A section per module: its header, then its public functions and classes that have a docstring."""
    parts = []
    for name in modules():
        path = module_file(name)
        assert path is not None
        tree = ast.parse(path.read_text())
        parts += [f"## {name}\n", docstring(tree), *map(members, filter(is_public, tree.body))]
    return "\n".join(parts)


GENERATORS: dict[str, Callable[[], str]] = {
    "readme": readme,
    "methods": methods,
    "configuration": configuration,
    "published": published,
    "api": api,
}
