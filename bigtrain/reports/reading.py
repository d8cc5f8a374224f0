"""The files of a run folder as they are: a file that is missing, half there or not what it should be costs its content,
never the page."""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

from bigtrain.recipe.document import read_document
from bigtrain.recipe.errors import RecipeError

Event = dict[str, Any]
"""One line of log.jsonl."""

LOG_FILE = "log.jsonl"
HEAD_BYTES = 4 * 1024  # holds the first start, with engine and number of processes
TAIL_BYTES = 48 * 1024  # some fifty status lines
PLACE = ("images_seen", "step", "time_s")


def read_json(path: Path) -> Any:
    """Return a JSON file's value; None where it is not there, being written, or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def read_object(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one where there is none."""
    found = read_json(path)
    return found if isinstance(found, dict) else {}


def read_events(path: Path) -> tuple[list[Event], int]:
    """Return all events of a log, oldest first, and how many lines were no events (torn by a kill, or not ours)."""
    try:
        return parse_events(path.read_bytes().splitlines())
    except OSError:
        return [], 0


def read_log_ends(path: Path) -> list[Event]:
    """Return the events in the first HEAD_BYTES and last TAIL_BYTES of a log, whatever its size."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            if size <= HEAD_BYTES + TAIL_BYTES:
                return parse_events(stream.read().splitlines())[0]
            head = stream.read(HEAD_BYTES).splitlines()[:-1]
            stream.seek(size - TAIL_BYTES)
            tail = stream.read().splitlines()[1:]
    except OSError:
        return []
    return parse_events([*head, *tail])[0]


def parse_events(lines: Iterable[bytes]) -> tuple[list[Event], int]:
    """Return the lines that are events with a place in the run, and how many others there are."""
    events, num_others = [], 0
    for line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and isinstance(found.get("event"), str) and is_number(found.get("images_seen")):
            events.append({**found, **{key: found[key] if is_number(found.get(key)) else None for key in PLACE}})
        elif line.strip():
            num_others += 1
    return events, num_others


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a JSON value is a finite number, and not an integer too large to be reckoned with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def numbers(found: object) -> dict[str, float]:
    """Return the members of a JSON object that are finite numbers."""
    return {str(key): value for key, value in found.items() if is_number(value)} if isinstance(found, dict) else {}


def read_recipe(path: Path, keys: Iterable[str] | None = None) -> dict[str, Any]:
    """Return a resolved recipe as plain values, of any version; an empty one where it cannot be read.

    Args:
        path: of the recipe.
        keys: read these alone of the highest level, which is much quicker; None: all.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if keys is not None:
            text = _only(text, set(keys))
        return read_document(text, str(path)).tree
    except (OSError, UnicodeDecodeError, RecipeError):
        return {}


def _only(text: str, keys: set[str]) -> str:
    """Return the lines of some keys of the highest level, with what is below them."""
    kept, keeps = [], False
    for line in text.splitlines():
        if line[:1] not in (" ", "-", "#", ""):
            keeps = line.partition(":")[0] in keys
        if keeps:
            kept.append(line)
    return "\n".join(kept) + "\n"


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """Return the starts of a run, oldest first."""
    found = read_json(folder / "starts.json")
    return [start for start in found if isinstance(start, dict)] if isinstance(found, list) else []
