"""Numbers with a suffix: counts (`64k`, `25M`, `1G`), durations (`30s`, `10min`, `2h`, `1d`) and shares (`5%`)."""

import re
from decimal import Decimal

COUNT_SUFFIXES = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}  # decimal: 64k = 64,000
DURATION_SUFFIXES_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z%]*)\s*")


def _split(text: str) -> tuple[Decimal, str] | None:
    # Decimal, because 1.001 * 1_000_000 is no whole number in binary floating point.
    match = _NUMBER.fullmatch(text)
    return (Decimal(match[1].replace("_", "")), match[2]) if match else None


def parse_count(value: object) -> object:
    """Read "64k" as 64,000; anything that is not text passes through unchanged.

    Raises:
        ValueError: the text is no whole number with a suffix of k, M or G.
    """
    if not isinstance(value, str):
        return value
    parts = _split(value)
    if parts is None or parts[1] not in COUNT_SUFFIXES or (parts[0] * COUNT_SUFFIXES[parts[1]]) % 1:
        raise ValueError("not a whole count; write a number with an optional decimal suffix k, M or G, such as 64k")
    return int(parts[0] * COUNT_SUFFIXES[parts[1]])


def parse_duration_s(value: object) -> object:
    """Read "10min" as 600.0 seconds; numbers pass through as seconds.

    Raises:
        ValueError: the text has no number or no known unit.
    """
    if not isinstance(value, str):
        return value
    parts = _split(value)
    if parts is None or parts[1] not in DURATION_SUFFIXES_S:
        raise ValueError("not a duration; write a number with a unit s, min, h or d, such as 10min")
    return float(parts[0]) * DURATION_SUFFIXES_S[parts[1]]


def parse_share(value: object) -> object:
    """Read "5%" as 0.05; numbers pass through.

    Raises:
        ValueError: the text is no percentage.
    """
    if not isinstance(value, str):
        return value
    parts = _split(value)
    if parts is None or parts[1] not in ("", "%"):
        raise ValueError("not a share; write a percentage such as 5% or a number from 0 to 1")
    return float(parts[0] / 100 if parts[1] == "%" else parts[0])


def format_count(count: int) -> str:
    """Write a count with the largest decimal suffix that keeps it exact to three digits: 64,000 -> "64k"."""
    for suffix in ("G", "M", "k"):
        size = COUNT_SUFFIXES[suffix]
        if count >= size:
            return f"{count / size:.4g}{suffix}"
    return str(count)
