"""A table that LaTeX takes, whatever the names are."""

from pathlib import Path

from ssl_zoo.report.latex import escape_latex, to_latex
from ssl_zoo.report.report import compare_folders
from tests.report.records import save_run, save_sweep


def test_escapes_what_latex_reads() -> None:
    assert escape_latex(r"a_b 50% & {x} $y$ #1 ~^\ ±") == (
        r"a\_b 50\% \& \{x\} \$y\$ \#1 \textasciitilde{}\textasciicircum{}\textbackslash{} $\pm$"
    )


def test_the_table_is_whole(tmp_path: Path) -> None:
    save_sweep(tmp_path, 9)
    comparison = compare_folders(tmp_path, baseline="simclr (method.temperature=0.10)").comparison
    lines = [line for line in to_latex(comparison).splitlines() if not line.startswith("%")]
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == 9
    head = lines[lines.index(r"\toprule") + 1]
    assert {line.count(" & ") for line in body} == {head.count(" & ")} == {7}
    assert r"\begin{tabular}{llrrrrrr}" in lines
    assert all(line.endswith(r" \\") and (r"$\pm$" in line or " to " in line) for line in body)
    assert [line.partition("$")[0] for line in body if r"$^\dagger$" in line] == ["simclr"]


def test_a_negative_number_has_a_minus_sign(tmp_path: Path) -> None:
    save_run(tmp_path / "0", "simclr", 0, metrics={"sentence_pairs/sick/spearman": -0.25})
    assert " & $-$0.25 & 1 " in to_latex(compare_folders(tmp_path).comparison)
