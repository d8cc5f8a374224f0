"""Numbers as people read them: images, durations, figures."""

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
NOTHING = "-"


def count(value: float | None) -> str:
    """Write a count in full, with separators."""
    return NOTHING if value is None else f"{value:,.0f}"


def figure(value: float | None) -> str:
    """Write a figure with four significant digits."""
    return NOTHING if value is None else f"{value:.4g}"


def rate(value: float | None) -> str:
    """Write images a second with three significant digits, without an exponent."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def hours(value: float | None) -> str:
    """Write hours with two significant digits or one decimal."""
    if value is None:
        return NOTHING
    return f"{value:,.1f}" if value >= 1 else f"{value:.2g}"


def duration(seconds: float | None) -> str:
    """Write a duration in its two largest units."""
    if seconds is None:
        return NOTHING
    if seconds < MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < HOUR_S:
        return f"{seconds / MINUTE_S:.0f} min"
    if seconds < DAY_S:
        return f"{seconds // HOUR_S:.0f} h {seconds % HOUR_S // MINUTE_S:.0f} min"
    return f"{seconds // DAY_S:,.0f} d {seconds % DAY_S // HOUR_S:.0f} h"
