"""Where a run stands: integers only, all saved, none derived from another."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Counters of a run.

    `steps`: optimizer steps of the game; `images_seen`: the clock of schedules, hooks and names; `position`: real
    images taken from the data order; `turns`: how often each kind of turn ("player/loss") was played; `salt`: changes
    all draws, never the data order, after a rollback.
    """

    steps: int = 0
    images_seen: int = 0
    position: int = 0
    turns: Mapping[str, int] = field(default_factory=dict)
    salt: int = 0

    def after_read(self, num_images: int) -> "Progress":
        """Count `num_images` real images as taken."""
        return replace(self, position=self.position + num_images)

    def after_turn(self, name: str) -> "Progress":
        """Count one turn of the kind `name`."""
        return replace(self, turns={**self.turns, name: self.turns.get(name, 0) + 1})

    def after_step(self, batch_images: int) -> "Progress":
        """Count one step of `batch_images` images."""
        return replace(self, steps=self.steps + 1, images_seen=self.images_seen + batch_images)

    def record(self) -> dict[str, Any]:
        """Return the counters as plain JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Progress":
        """Read what `record` wrote."""
        return cls(**record)


def crossed(period_images: int | None, before: int, after: int) -> bool:
    """Tell whether a multiple of the period lies in (before, after]; never when the period is None or 0."""
    return bool(period_images) and after // period_images > before // period_images  # type: ignore[operator]
