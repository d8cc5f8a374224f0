"""Figures of runs as LaTeX: one table for each protocol, which stands in its footnote."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bigtrain.metrics.figures import is_higher_better
from bigtrain.metrics.records import EvaluationRecord, best_record
from bigtrain.reports.comparison import flat
from bigtrain.reports.evaluations import by_protocol, is_compared, spread_of
from bigtrain.reports.lines import FigureLine, lines_of
from bigtrain.reports.run import RunRecord
from bigtrain.reports.units import count, figure

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip
UP, DOWN = r"$\uparrow$", r"$\downarrow$"  # which way is better
NOT_IN_FOOTNOTES = ("versions", "named")


def escaped(text: object) -> str:
    """Return text that LaTeX prints as it is, on one line."""
    writable = str(text).encode(errors="replace").decode()  # without halves of surrogate pairs
    return " ".join("".join(SPECIAL.get(letter, letter) for letter in writable).split())


def latex(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """Return tables of each run's best evaluation by the first of `names`, one for each protocol, so that no column
    holds figures that do not compare; and of the last values of figures of the log."""
    found: dict[str, list[tuple[RunRecord, list[EvaluationRecord]]]] = {}
    for record in records:
        for protocol, evaluations in by_protocol(record.evaluations).items():
            shown = [each for each in evaluations if any(name in each.figures for name in names)]
            if shown:
                found.setdefault(protocol, []).append((record, shown))
    tables = [_table(protocol, members, names) for protocol, members in found.items()]
    evaluated = {name for members in found.values() for _, shown in members for each in shown for name in each.figures}
    tables += [_logged(name, lines_of(records, name, "images")) for name in names if name not in evaluated]
    return "% needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}\n" + "\n".join(tables)


def _table(protocol: str, members: Sequence[tuple[RunRecord, list[EvaluationRecord]]], names: Sequence[str]) -> str:
    first = next(name for name in names if any(name in each.figures for _, shown in members for each in shown))
    rows = [(record.label, best_record(shown, first) or shown[-1]) for record, shown in members]
    others = [name for _, each in rows for name in each.figures if is_compared(name)]
    columns = list(dict.fromkeys([*(name for name in names if name in others), *others]))
    best = {
        name: (max if is_higher_better(name) else min)(each.figures[name] for _, each in rows if name in each.figures)
        for name in columns
    }
    head = [f"{escaped(name)} {UP if is_higher_better(name) else DOWN}" for name in columns]
    body = [
        [escaped(label), count(each.images_seen), *(_cell(each, name, best[name], len(rows)) for name in columns)]
        for label, each in rows
    ]
    note = f"Protocol \\texttt{{{escaped(protocol)}}}: {_footnote(rows[-1][1].protocol)}."
    chosen = f"Of each run, the evaluation that is best by {escaped(first)}. "
    return _tabular(["Run", "Images", *head], body, chosen + note)


def _cell(evaluation: EvaluationRecord, name: str, best: float, num_rows: int) -> str:
    value, spread = evaluation.figures.get(name), spread_of(evaluation.figures, name)
    if value is None:
        return "--"
    text = f"${figure(value)}$" if spread is None else f"${figure(value)} \\pm {spread:.2g}$"
    return f"\\textbf{{{text}}}" if value == best and num_rows > 1 else text


def _footnote(protocol: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in protocol.items() if key not in NOT_IN_FOOTNOTES}
    return "; ".join(f"{escaped(key)} {escaped(value)}" for key, value in flat(kept).items())


def _logged(name: str, lines: Sequence[FigureLine]) -> str:
    body = [[escaped(line.label), count(line.x[-1]), f"${figure(line.y[-1])}$"] for line in lines]
    return _tabular(["Run", "Images", escaped(name)], body, f"{escaped(name)}: the last value in the log of each run.")


def _tabular(head: Sequence[str], body: Sequence[Sequence[str]], note: str) -> str:
    def lines() -> Iterator[str]:
        yield f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}"
        yield "\\toprule"
        yield " & ".join(head) + r" \\"
        yield "\\midrule"
        yield from (" & ".join(row) + r" \\" for row in body)
        yield "\\bottomrule"
        yield f"\\multicolumn{{{len(head)}}}{{p{{0.95\\linewidth}}}}{{\\footnotesize {note}}} \\\\"
        yield "\\end{tabular}"

    return "\n".join(lines()) + "\n"
