"""Means of a period's statistics, kept as float64 sums so that a resume in the middle of a period logs the same
line."""

import math
from collections.abc import Mapping
from typing import Any


class PeriodMeans:
    """Sums and counts by name since the last `take`."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, figures: Mapping[str, float]) -> None:
        """Count one turn's figures; non-finite ones are counted under "<name>_nonfinite" instead of poisoning the
        mean."""
        for name, value in figures.items():
            key, term = (name, value) if math.isfinite(value) else (f"{name}_nonfinite", 1.0)
            self._sums[key] = self._sums.get(key, 0.0) + term
            self._counts[key] = self._counts.get(key, 0) + 1

    def now(self) -> dict[str, float]:
        """Return the means so far (for non-finite values: how many)."""
        return {
            name: total if name.endswith("_nonfinite") else total / self._counts[name]
            for name, total in self._sums.items()
        }

    def take(self) -> dict[str, float]:
        """Return the means (for non-finite values: how many) and start a new period."""
        means = self.now()
        self._sums, self._counts = {}, {}
        return means

    def record(self) -> dict[str, Any]:
        """Return the running sums as JSON; float64 survives its decimal form exactly."""
        return {"sums": self._sums, "counts": self._counts}

    def load_record(self, record: Mapping[str, Any]) -> None:
        """Put back what `record` returned."""
        self._sums, self._counts = dict(record["sums"]), dict(record["counts"])
