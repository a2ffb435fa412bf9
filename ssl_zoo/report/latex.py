"""The comparison as a LaTeX table for a paper, with the rules of the package booktabs."""

import re

from ssl_zoo.report.comparison import Comparison
from ssl_zoo.report.display import to_plain_text
from ssl_zoo.report.estimate import is_accuracy

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "\u2212": r"$-$",
}
"""What LaTeX would not print as it stands."""


def escape_latex(text: str) -> str:
    """Escapes text so that LaTeX prints it literally."""
    return "".join(SPECIAL.get(letter, letter) for letter in to_plain_text(text))


def to_latex(comparison: Comparison) -> str:
    r"""Formats the short table as a `table` environment; the preamble needs \usepackage{booktabs}.

    The baseline is marked by a dagger; notes and verdicts are in the caption or in comments.
    """
    lines = [f"% {to_plain_text(sentence)}" for sentence in comparison.verdicts]
    lines += ["% In the preamble: \\usepackage{booktabs}"]
    if not comparison.rows:
        return "\n".join([*lines, "% No run completed."]) + "\n"
    names, metrics = comparison.varying, comparison.headlines
    heads = [*names, *(f"{key} %" if is_accuracy(key) else key for key in metrics), "n"]
    body = []
    for row in comparison.rows:
        mark = r"$^\dagger$" if row is comparison.baseline else ""
        cells = [escape_latex(row.names[name]) + (mark if name == "method" else "") for name in names]
        cells += [_number(row.cell(key)) for key in metrics]
        body.append(" & ".join([*cells, str(len(row.seeds))]) + r" \\")
    baseline = r" $\dagger$: the baseline." if comparison.baseline is not None else ""
    caption = "Mean over $n$ seeds with its 95\\,\\% interval; in brackets the interval's bounds." + baseline
    lines += [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{{'l' * len(names)}{'r' * (len(metrics) + 1)}}}",
        r"\toprule",
        " & ".join(map(escape_latex, heads)) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _number(cell: str) -> str:
    """A cell of a metric, with a minus sign in place of a hyphen."""
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", escape_latex(cell))
