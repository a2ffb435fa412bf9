"""The report of a sweep in Weights & Biases: its tables, its figures, its page, and its files as an artifact."""

import io
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from ssl_zoo import files
from ssl_zoo.report.board import Board, to_lines
from ssl_zoo.report.figures import make_figures
from ssl_zoo.report.report import Report
from ssl_zoo.report.representation_view import map_figures
from ssl_zoo.report.sections import make_sections
from ssl_zoo.report.series import make_series
from ssl_zoo.report.vega import draw_png

REPORT_SECONDS = 60
"""Maximum time for which the upload may delay the end of a sweep."""
ID_NAME = "wandb_id"


def send_to_wandb(report: Report, folder: Path, project: str, group: str | None = None) -> None:
    """Logs a report that has been written to `folder` as a run of its own.

    It is online if there is an API key, otherwise offline in `<folder>/wandb`; $WANDB_MODE overrides both. A report
    that is made again continues the same wandb run. A failure of wandb is only printed: the report is on disk.

    Args:
        report: the report.
        folder: where its files are.
        project: wandb project.
        group: of the runs of the sweep.
    """
    try:
        run = _start(folder, project, group)
        try:
            run.log(_content(report, folder))
            run.log_artifact(_artifact(folder))
        finally:
            run.finish()
    except Exception as error:  # wandb raises many types, socket errors included
        print(f"wandb: the report was not sent ({type(error).__name__}: {error})", file=sys.stderr)
    else:
        print(f"wandb: the report is a run of the project {project}")


def _start(folder: Path, project: str, group: str | None) -> Any:
    import wandb

    known = folder / ID_NAME
    if not known.exists():
        files.write_atomically(known, secrets.token_hex(4))
    mode: Any = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
    return wandb.init(
        project=project,
        name=f"report-{group or folder.name}",
        group=group,
        job_type="report",
        id=known.read_text(encoding="utf-8"),
        resume="allow",
        mode=mode,
        dir=str(folder),
        settings=wandb.Settings(silent=True, console="off", x_disable_meta=True, finish_timeout=REPORT_SECONDS),
    )


def _content(report: Report, folder: Path) -> dict[str, Any]:
    """What is logged: tables, figures and the page by name."""
    import wandb
    from PIL import Image

    comparison, series = report.comparison, make_series(report.comparison)

    def table(lines: list[list[str]]) -> Any:
        return wandb.Table(columns=list(lines[0]), data=lines[1:])

    boards: list[Board] = [board for section in make_sections(comparison, series) for board in section.boards]
    content = {f"report/{board.caption}": table(to_lines(board)) for board in boards}
    content["report/leaderboard"] = table(report.table)
    content["report/verdicts"] = table([["sentence"], *([line] for line in report.verdicts)])
    for figure in [*make_figures(comparison, report.axis), *map_figures(comparison, series)]:
        image = Image.open(io.BytesIO(draw_png(figure.spec)))
        content[f"report/{figure.name}"] = wandb.Image(image, caption=figure.caption)
    content["report/page"] = wandb.Html((folder / "report.html").read_text(encoding="utf-8"), inject=False)
    return content


def _artifact(folder: Path) -> Any:
    import wandb

    artifact = wandb.Artifact("report", type="report")
    for path in sorted(folder.glob("report*.*")):
        artifact.add_file(str(path))
    return artifact
