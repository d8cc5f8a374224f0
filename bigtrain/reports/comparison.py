"""What differs between runs, and between protocols."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = "absent"
NOT_OF_THE_SCIENCE = ("run_dir", "name")  # differ between any two runs
SHOWN_LENGTH = 200
HASH, SHORT_HASH = re.compile("[0-9a-f]{64}"), 12  # of sha256, and how many digits of it are shown


@dataclass(frozen=True)
class Row:
    """One key with its value in each recipe or protocol."""

    key: str
    values: list[str]
    differs: bool


def flat(tree: Any, prefix: str = "") -> dict[str, str]:
    """Return the leaves of nested mappings and lists by their dotted keys, as text; lists of values are leaves."""
    if isinstance(tree, Mapping) and tree:
        pairs = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, list) and tree and any(isinstance(value, Mapping | list) for value in tree):
        pairs = [(str(number), value) for number, value in enumerate(tree)]
    else:
        return {prefix: _text(tree)}
    found: dict[str, str] = {}
    for key, value in pairs:
        found.update(flat(value, f"{prefix}.{key}" if prefix else key))
    return found


def rows(trees: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return all keys of some recipes or protocols, in the order in which they come."""
    tables = [flat(tree) if tree else {} for tree in trees]
    keys = _merged([list(table) for table in tables])
    return [
        Row(key, values, differs=len(set(values)) > 1 and key not in NOT_OF_THE_SCIENCE)
        for key in keys
        for values in [[table.get(key, ABSENT) for table in tables]]
    ]


def _merged(lists: Sequence[Sequence[str]]) -> list[str]:
    """Return all keys once; those that the first list lacks stand behind the key that they follow in theirs."""
    merged: list[str] = []
    for keys in lists:
        there, place = set(merged), 0
        for key in keys:
            if key in there:
                place = merged.index(key) + 1
            else:
                merged.insert(place, key)
                place += 1
    return merged


def differing(trees: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the keys that differ; versions of packages among them."""
    return [row for row in rows(trees) if row.differs]


def _text(value: Any) -> str:
    if value is None:
        return "off"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"[:SHOWN_LENGTH]
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    text = str(value)
    return f"{text[:SHORT_HASH]}..." if HASH.fullmatch(text) else text[:SHOWN_LENGTH]
