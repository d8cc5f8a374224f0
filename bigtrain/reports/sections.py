"""The tables of a page: runs, figures by protocol, truncation curves, audits, recipes, events."""

from collections.abc import Mapping, Sequence
from typing import Any

from bigtrain.metrics.figures import is_higher_better
from bigtrain.metrics.records import EvaluationRecord
from bigtrain.reports.comparison import Row, differing, flat, rows
from bigtrain.reports.evaluations import by_protocol, is_compared, spread_of
from bigtrain.reports.overview import STARTS
from bigtrain.reports.reading import Event, is_number
from bigtrain.reports.run import Audit, Curve, RunRecord
from bigtrain.reports.series import MOST_FIGURES, REAL, SAME_SIZE, place_of
from bigtrain.reports.units import NOTHING, count, duration, figure, hours, rate

MOST_ROWS = 500  # of a table of events; the newest
MOST_CURVES = 4  # of one run and protocol; the newest
LARGEST_MATRIX = 64  # rows or columns of a matrix that is shown as one
VERDICT = ("verdict", "suspicious")  # of a section of an audit: a sentence, and whether it is bad news
PLACE = ("event", "images_seen", "step", "time_s")


def run_rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return the cells of the table of runs."""
    found = []
    for record in records:
        seen = record.overview
        total, best = seen.total_images, seen.best
        spent = NOTHING if seen.device_hours is None else hours(seen.device_hours)
        events = [event["event"] for event in record.events]
        found.append(
            {
                "name": record.label,
                "folder": str(record.folder),
                "state": seen.state.word,
                "sentence": seen.state.sentence if seen.state.sentence != seen.state.word else "",
                "images": count(seen.images_seen),
                "total": count(total),
                "percent": min(100.0, 100 * seen.images_seen / total) if total else None,
                "rate": rate(seen.images_per_s),
                "left": duration(seen.left_s or None),
                "best": None if best is None else f"{best.name} {figure(best.value)}",
                "best_at": None if best is None else f"at {count(best.images_seen)} images, by {best.protocol}",
                "spent": f"{spent} CPU process hours" if seen.device == "cpu" else f"{spent} GPU hours",
                "starts": seen.num_starts,
                "preempted": seen.num_preempted,
                "alarms": events.count("alarm"),
                "rollbacks": events.count("rollback"),
            }
        )
    return found


def evaluation_tables(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Return a table for each protocol, and what differs between the protocols."""
    found: dict[str, list[tuple[int, EvaluationRecord]]] = {}
    for run, record in enumerate(records):
        for protocol, evaluations in by_protocol(record.evaluations).items():
            found.setdefault(protocol, []).extend((run, each) for each in evaluations)
    newest = {protocol: members[-1][1].protocol for protocol, members in found.items()}
    return {
        "tables": [_table(protocol, members) for protocol, members in found.items()],
        "protocols": list(newest),
        "differing": differing(list(newest.values())) if len(newest) > 1 else [],
    }


def _table(protocol: str, members: Sequence[tuple[int, EvaluationRecord]]) -> dict[str, Any]:
    all_names = list(dict.fromkeys(name for _, each in members for name in each.figures if is_compared(name)))
    names = all_names[:MOST_FIGURES]
    best = {
        name: (max if is_higher_better(name) else min)(
            each.figures[name] for _, each in members if name in each.figures
        )
        for name in names
    }
    newest = members[-1][1].figures
    real = {
        name: newest.get(name.removesuffix(SAME_SIZE) + REAL)
        for name in names
        if name.endswith(SAME_SIZE) or name + SAME_SIZE not in names
    }
    return {
        "protocol": protocol,
        "facts": rows([members[-1][1].protocol]),
        "num_more": len(all_names) - len(names),
        "columns": [{"name": name, "is_up": is_higher_better(name)} for name in names],
        "rows": [
            {"run": run, "images": count(each.images_seen), "cells": [_cell(each, name, best[name]) for name in names]}
            for run, each in members
        ],
        "real": [figure(real.get(name)) for name in names] if any(value is not None for value in real.values()) else [],
    }


def _cell(evaluation: EvaluationRecord, name: str, best: float) -> dict[str, Any]:
    value, spread = evaluation.figures.get(name), spread_of(evaluation.figures, name)
    text = figure(value) if spread is None else f"{figure(value)} ± {spread:.2g}"
    return {"text": text, "is_best": value == best}


def curve_sections(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return a section for each law and protocol of truncation curves, with the lines of all runs."""
    found: dict[tuple[str, str], list[tuple[int, Curve]]] = {}
    for run, record in enumerate(records):
        own: dict[tuple[str, str], list[tuple[int, Curve]]] = {}
        for curve in record.curves:
            own.setdefault((curve.law, curve.protocol_name), []).append((run, curve))
        for key, members in own.items():
            found.setdefault(key, []).extend(members[-MOST_CURVES:])
    return [
        {
            "law": law,
            "protocol": protocol,
            "facts": rows([members[-1][1].protocol]),
            "lines": [_curve_line(run, curve) for run, curve in members],
            "names": [name for name in _names(members) if is_compared(name) and not name.endswith(SAME_SIZE)][
                :MOST_FIGURES
            ],
            "higher": [name for name in _names(members) if is_higher_better(name)],
        }
        for (law, protocol), members in found.items()
    ]


def _names(members: Sequence[tuple[int, Curve]]) -> list[str]:
    return list(dict.fromkeys(name for _, curve in members for _, figures in curve.points for name in figures))


def _curve_line(run: int, curve: Curve) -> dict[str, Any]:
    names = dict.fromkeys(name for _, figures in curve.points for name in figures)
    return {
        "run": run,
        "images": curve.images_seen,
        "thresholds": [threshold for threshold, _ in curve.points],
        "figures": {name: [figures.get(name) for _, figures in curve.points] for name in names},
    }


def audit_sections(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return the newest audit of each run that has one."""
    return [
        {
            "run": run,
            "images": count(record.audits[-1].images_seen),
            "pictures": record.audits[-1].pictures,
            "parts": _parts(record.audits[-1]),
            "facts": rows([protocol]) if isinstance(protocol := record.audits[-1].record.get("protocol"), dict) else [],
        }
        for run, record in enumerate(records)
        if record.audits
    ]


def _parts(audit: Audit) -> list[dict[str, Any]]:
    found = []
    for title, value in audit.record.items():
        if title in ("images_seen", "protocol", "pictures"):
            continue
        matrices: dict[str, list[list[float]]] = {}
        said = value if isinstance(value, Mapping) else {}
        unsaid = {key: each for key, each in said.items() if key not in VERDICT} if said else value
        plain = _without_matrices(unsaid, "", matrices)
        found.append(
            {
                "title": title.replace("_", " "),
                "verdict": said.get("verdict"),
                "is_suspicious": bool(said.get("suspicious")),
                "rows": [(key or title, text) for key, text in flat(plain).items()] if plain not in ({}, None) else [],
                "matrices": [{"title": key or title, **_shaded(matrix)} for key, matrix in matrices.items()],
            }
        )
    return found


def _without_matrices(value: Any, key: str, matrices: dict[str, list[list[float]]]) -> Any:
    """Return nested values without the matrices among them, which go into `matrices` by their dotted keys."""
    if _is_matrix(value):
        matrices[key] = value
        return None
    if isinstance(value, Mapping):
        left = {name: _without_matrices(each, f"{key}.{name}".strip("."), matrices) for name, each in value.items()}
        return {name: each for name, each in left.items() if each is not None or value[name] is None}
    if isinstance(value, list):
        return [figure(each) if isinstance(each, float) else each for each in value]
    return figure(value) if isinstance(value, float) else value


def _is_matrix(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 2 <= len(value) <= LARGEST_MATRIX
        and all(isinstance(row, list) and 2 <= len(row) <= LARGEST_MATRIX for row in value)
        and len({len(row) for row in value}) == 1
        and all(is_number(cell) for row in value for cell in row)
    )


def _shaded(matrix: list[list[float]]) -> dict[str, Any]:
    """Return a matrix as text, each cell with its share of the largest magnitude in percent."""
    largest = max(abs(cell) for row in matrix for cell in row) or 1.0
    return {"cells": [[(figure(cell), round(100 * abs(cell) / largest)) for cell in row] for row in matrix]}


def recipe_sections(records: Sequence[RunRecord]) -> dict[str, list[Row]]:
    """Return the keys that differ, and all keys, of the recipes."""
    trees = [record.recipe for record in records]
    return {"differing": differing(trees) if len(trees) > 1 else [], "all": rows(trees)}


def event_rows(record: RunRecord) -> list[dict[str, Any]]:
    """Return the newest events of a run, oldest first, without status lines, evaluations and checkpoints."""
    quiet = ("status", "evaluation", "checkpoint")
    shown = [event for event in record.events if event["event"] not in quiet][-MOST_ROWS:]
    return [
        {
            "kind": event["event"],
            "images": count(event["images_seen"]),
            "hours": hours(place_of(event)["hours"]),
            "text": event_text(event),
        }
        for event in shown
    ]


def event_text(event: Event) -> str:
    """Return what an event says, in a line."""
    kind = event["event"]
    if kind in STARTS and "world" in event:
        return (
            f"{event['world']} process(es), engine {event.get('engine')}, {event.get('device')}, micro-batches of "
            f"{event.get('micro_images')}, accumulation {event.get('accumulation')}"
        )
    if kind == "checkpoint" and is_number(event.get("save_s")):
        return f"written in {figure(event['save_s'])} s; steps waited {figure(event.get('stall_s'))} s"
    if kind == "rollback":
        return f"{event.get('reason')}; went back from {event.get('from_images')} images, salt {event.get('salt')}"
    if "reason" in event:
        monitor = event.get("monitor")
        return f"{monitor}: {event['reason']}" if monitor else str(event["reason"])
    more = {key: value for key, value in event.items() if key not in PLACE and not isinstance(value, list | dict)}
    return ", ".join(f"{key} {value}" for key, value in more.items())
