"""Monitors of collapse: each figure is compared with what it was lately.

When BigGAN collapses, top singular values explode and the discriminator's loss jumps up; a loss near 0 alone is normal
late in training (Brock et al. 2019, arXiv:1809.11096, section 4).

Plain arithmetic on figures; what is measured stands in `vitals.py`, what an alarm does in `alarms.py`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from bigtrain.training.health.watchdog import Monitor, WatchdogSettings

WINDOW = 20  # healthy values that say what is normal
FEWEST = 10  # values before a figure is judged at all: the first periods of a run change fast
MAD_TO_SIGMA = 1.4826  # of normal numbers: their standard deviation by their median absolute deviation
LEAST_SPREAD = 0.02  # of a loss, in its own unit, and as a share of it
LEAST_SHARE = 0.1


@dataclass(frozen=True)
class Finding:
    """A figure that is not what it was."""

    monitor: Monitor
    figure: str
    value: float
    reason: str


@dataclass(frozen=True)
class Rule:
    """When a figure is bad: it is compared with a limit that recent values and a factor of the recipe give."""

    monitor: Monitor
    limit: Callable[[list[float], float], float]
    """(recent healthy values, factor) -> limit."""
    words: str
    is_floor: bool = False
    fewest: int = FEWEST

    def factor(self, settings: WatchdogSettings) -> float:
        """Return the recipe's factor, the only setting that ends in `_above` or `_below` after the monitor's name."""
        ending = "below" if self.is_floor else "above"
        factor: float = getattr(settings, f"{self.monitor}_{ending}")
        return factor


def _spread(values: list[float]) -> float:
    middle = median(values)
    deviation = MAD_TO_SIGMA * median([abs(value - middle) for value in values])
    return max(deviation, LEAST_SHARE * abs(middle), LEAST_SPREAD)


RULES: dict[str, Rule] = {
    "diversity": Rule(
        "diversity", lambda recent, factor: factor * median(recent), "generated images differ less", is_floor=True
    ),
    "singular": Rule(
        "singular_values", lambda recent, factor: factor * median(recent), "a weight's singular value grew"
    ),
    "critic": Rule(
        "loss_jump",
        lambda recent, factor: median(recent) + factor * _spread(recent),
        "a discriminator's loss jumped up",
    ),
    "loss": Rule(
        "loss_explosion", lambda recent, factor: factor * (max(map(abs, recent)) + LEAST_SPREAD), "a loss exploded"
    ),
    "evaluation": Rule("evaluation", lambda recent, factor: factor * min(recent), "the evaluation got worse", fewest=1),
}
"""First part of a figure's name, up to the first slash -> what it is judged by."""


class Monitors:
    """Recent healthy values of every figure, and which figures are bad now; all of it is in the checkpoint."""

    def __init__(self, settings: WatchdogSettings) -> None:
        self._settings = settings
        self._recent: dict[str, list[float]] = {}
        self._bad: dict[str, int] = {}  # figure -> for how many values in a row

    def see(self, figures: Mapping[str, float]) -> list[Finding]:
        """Judge new values of figures named KIND/WHATEVER; return those that were healthy until now.

        A figure that stays bad is reported once. After WINDOW bad values in a row the new level counts as normal.
        """
        findings = []
        for figure, value in figures.items():
            finding = self._judge(figure, value)
            if finding is None:
                self._bad.pop(figure, None)
                self._recent[figure] = [*self._recent.get(figure, []), value][-WINDOW:]
                continue
            if figure not in self._bad:
                findings.append(finding)
            self._bad[figure] = self._bad.get(figure, 0) + 1
            if self._bad[figure] >= WINDOW:
                self._bad.pop(figure)
                self._recent.pop(figure, None)
        return findings

    def has_bad(self, figures: Mapping[str, float]) -> bool:
        """Tell whether one of these figures is bad now."""
        return any(figure in self._bad for figure in figures)

    def _judge(self, figure: str, value: float) -> Finding | None:
        rule, recent = RULES[figure.partition("/")[0]], self._recent.get(figure, [])
        if not math.isfinite(value):
            return Finding(rule.monitor, figure, value, f"{figure} is {value}")
        if len(recent) < rule.fewest:
            return None
        limit = rule.limit(recent, rule.factor(self._settings))
        # A loss explodes downwards too: Wasserstein's has no bound on either side.
        size = abs(value) if rule.monitor == "loss_explosion" else value
        if size >= limit if rule.is_floor else size <= limit:
            return None
        side = "below" if rule.is_floor else "above"
        words = f"{rule.words}: {figure} is {value:.4g}, {side} {limit:.4g} (lately {median(recent):.4g})"
        return Finding(rule.monitor, figure, value, words)

    def record(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        return {"recent": self._recent, "bad": self._bad}

    def load_record(self, record: Mapping[str, Any]) -> None:
        """Put back what `record` returned."""
        self._recent = {figure: list(values) for figure, values in record["recent"].items()}
        self._bad = dict(record["bad"])
