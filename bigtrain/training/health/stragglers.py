"""Figures of every rank beside each other in the log, and ranks that hold the others up."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median_low
from typing import Any

from bigtrain.engine.pace import PaceFigures
from bigtrain.engine.ranks import Ranks

STRAGGLER_FACTOR = 1.5  # of the median rank's own time
FEWEST_STEPS = 10  # that a period must have to say something about a rank
DIGITS = 4  # significant ones, of which there are as many numbers as ranks


@dataclass(frozen=True)
class RankFigures:
    """What one rank says of a period."""

    host: str
    steps: int
    step_s: float
    """Mean time of a step; about equal on all ranks, which wait for each other."""
    compute_s: float
    """Mean own computing in a step (`pace`)."""
    data_wait_s: float
    """Waited for data in the period."""
    memory_gib: float

    @classmethod
    def of(cls, pace: PaceFigures, data_wait_s: float, memory_gib: float) -> "RankFigures":
        """Return this rank's figures."""
        steps = max(1, pace.steps)
        return cls(
            socket.gethostname(), pace.steps, pace.step_s / steps, pace.compute_s / steps, data_wait_s, memory_gib
        )

    @property
    def own_s(self) -> float:
        """What a step costs this rank itself: computing and waiting for data."""
        return self.compute_s + self.data_wait_s / max(1, self.steps)


def gather(ranks: Ranks, own: RankFigures) -> list[RankFigures]:
    """Return every rank's figures on all ranks; one gather."""
    return [RankFigures(**figures) for figures in ranks.gather_objects(asdict(own))]


def by_rank(figures: Sequence[RankFigures]) -> dict[str, list[float]]:
    """Return the figures as a status line has them, a list in the order of ranks each; none for one process."""
    if len(figures) == 1:
        return {}
    names = ("step_s", "compute_s", "data_wait_s", "memory_gib")
    return {f"{name}_by_rank": [float(f"{getattr(each, name):.{DIGITS}g}") for each in figures] for name in names}


def stragglers(figures: Sequence[RankFigures]) -> list[Mapping[str, Any]]:
    """Return what an alarm says of each rank whose own time is over STRAGGLER_FACTOR times the median rank's."""
    if len(figures) == 1 or figures[0].steps < FEWEST_STEPS:
        return []
    median_s = median_low(each.own_s for each in figures)
    return [
        {
            "reason": f"rank {rank} on {each.host} holds the others up: a step costs it {each.own_s:.4g} s of its own, "
            f"the median rank {median_s:.4g} s",
            "rank": rank,
            "host": each.host,
        }
        for rank, each in enumerate(figures)
        if each.own_s > STRAGGLER_FACTOR * median_s
    ]
