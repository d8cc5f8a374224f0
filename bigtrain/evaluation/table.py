"""Figures as text: one table for each protocol, so that no column holds figures that do not compare."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bigtrain.evaluation.judge import SPREAD, Judgement

APART = ("versions", "named")  # of a protocol: what the figures do not follow from
SHORT_HASH = 12


def tables(judgements: Sequence[Judgement]) -> Iterator[str]:
    """Yield the lines of the tables: figures that share a protocol in one, and what tells the protocols apart."""
    groups: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        groups.setdefault(json.dumps(compared(judgement.protocol), sort_keys=True), []).append(judgement)
    flat = [_flat(compared(group[0].protocol)) for group in groups.values()]
    if len(groups) > 1:
        yield f"{len(groups)} protocols: figures of different tables do not compare"
        yield ""
    for number, group in enumerate(groups.values()):
        if number:
            yield ""
        if len(groups) > 1:
            yield f"protocol {number + 1}: {_apart(flat, number)}"
        yield from _figures(group)


def protocol_lines(protocol: Mapping[str, Any]) -> Iterator[str]:
    """Yield a protocol as lines `key: value`, nested keys joined by dots; hashes are cut short."""
    for key, value in _flat({name: value for name, value in protocol.items() if name != "named"}).items():
        yield f"  {key}: {_short(value)}"
    named = protocol.get("named")
    if named:
        yield f"  protocol {named['name']}, of {named['source']}; reference there: {named['reference']}"
        yield from (f"    differs: {difference}" for difference in named["differences"])


def compared(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a protocol that figures must share to be compared."""
    return {key: value for key, value in protocol.items() if key not in APART}


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows with their columns aligned: words left, everything after the first column right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def number(value: float | None) -> str:
    """Write a figure with four digits that count."""
    return "" if value is None else f"{value:.4g}"


def _figures(group: Sequence[Judgement]) -> Iterator[str]:
    """One subject: a figure a line. Several: a subject a line."""
    names = list(dict.fromkeys(name for each in group for name in each.figures if not name.endswith(SPREAD)))
    if len(group) == 1:
        yield group[0].label
        yield from ("  " + line for line in aligned([(name, _value(group[0], name)) for name in names]))
        return
    yield from aligned([("", *names), *([each.label, *(_value(each, name) for name in names)] for each in group)])


def _value(judgement: Judgement, name: str) -> str:
    spread = judgement.figures.get(f"{name}{SPREAD}")
    value = number(judgement.figures.get(name))
    return value if spread is None else f"{value} +- {number(spread)}"


def _apart(flat: Sequence[Mapping[str, Any]], own: int) -> str:
    """Return the keys in which a protocol differs from any of the others, with its values."""
    keys = [key for key in dict.fromkeys(key for each in flat for key in each)]
    different = [key for key in keys if len({json.dumps(each.get(key)) for each in flat}) > 1]
    return ", ".join(f"{key} {_short(flat[own].get(key))}" for key in different)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, entry in value.items():
        found |= _flat(entry, f"{prefix}{key}.") if isinstance(entry, dict) else {f"{prefix}{key}": entry}
    return found


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    is_hash = len(text) >= 32 and all(digit in "0123456789abcdef" for digit in text)
    return text[:SHORT_HASH] if is_hash else text
