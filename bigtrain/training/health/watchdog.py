"""What a run counts as going wrong, and what it does then: settings, and the count of skipped turns."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from bigtrain.recipe.errors import DivergenceError
from bigtrain.recipe.settings import Count, PositiveCount, Settings

WINDOW_TURNS = 1000  # of one kind, over which `skipped_of_1000` counts

Monitor = Literal["diversity", "singular_values", "loss_jump", "loss_explosion", "evaluation"]


class WatchdogSettings(Settings):
    """When a run goes back to an earlier checkpoint, and what it raises an alarm for."""

    skipped_in_a_row: PositiveCount | None = 5
    """Skipped turns of one kind in a row (non-finite loss or gradient) after which the run rolls back; None: never."""
    skipped_of_1000: PositiveCount | None = 50
    """Skipped turns among the last 1,000 of one kind after which the run rolls back; None: never."""
    most_rollbacks: Count = 3
    """Rollbacks without getting past where the run failed, after which it ends with status 5; 0: it ends at once."""
    rollback_on: tuple[Monitor, ...] = ()
    """Alarms on which the run rolls back as well; the others only report."""
    diversity_images: Count = Field(default=32, le=1024)
    """Images that are generated once a log period to measure how much they differ; fewer than 2: none."""
    diversity_below: float = Field(default=0.2, gt=0, lt=1)
    """Alarm `diversity` when generated images differ by less than this share of what they did lately."""
    singular_layers: Count = 4
    """Largest weights of each network whose three top singular values are measured once a log period; 0: none."""
    singular_values_above: float = Field(default=4.0, gt=1)
    """Alarm `singular_values` when one of them is more than so many times what it was lately."""
    loss_jump_above: float = Field(default=12.0, gt=1)
    """Alarm `loss_jump` when a discriminator's loss rises above what it was lately by so many times its spread."""
    loss_explosion_above: float = Field(default=100.0, gt=1)
    """Alarm `loss_explosion` when a loss is so many times as large as it was lately."""
    evaluation_above: float = Field(default=2.0, gt=1)
    """Alarm `evaluation` when the Frechet distance is more than so many times its best."""
    check_ranks_every_images: Count = 0
    """Images between comparisons of all weights across ranks; 0: before every checkpoint only."""
    webhook: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """URL that gets a small JSON by POST for each of these alarms and each rollback; None: none."""


class DivergedError(DivergenceError):
    """The run went wrong, and may go on from a checkpoint of at most `onset_images`."""

    def __init__(self, reason: str, onset_images: int) -> None:
        super().__init__(reason)
        self.onset_images = onset_images


class Skips:
    """Skipped turns of each kind: how many in a row, and which of the last 1,000."""

    def __init__(self, settings: WatchdogSettings) -> None:
        self._settings = settings
        self._in_a_row: dict[str, int] = {}
        self._recent: dict[str, list[list[int]]] = {}  # [number of the turn, images seen when it was played]

    def made(self, name: str, number: int) -> None:
        """Count the `number`-th turn of a kind as made."""
        self._in_a_row.pop(name, None)
        self._forget(name, number)

    def skipped(self, name: str, number: int, images: int) -> None:
        """Count the `number`-th turn of a kind as skipped.

        Raises:
            DivergedError: that was one too many.
        """
        self._in_a_row[name] = in_a_row = self._in_a_row.get(name, 0) + 1
        recent = self._recent.setdefault(name, [])
        recent.append([number, images])
        self._forget(name, number)
        if self._settings.skipped_in_a_row is not None and in_a_row >= self._settings.skipped_in_a_row:
            onset = recent[-min(in_a_row, len(recent))][1]
            raise DivergedError(
                f"{name} had a non-finite loss or gradient for the {in_a_row}th time in a row, the first time after "
                f"{onset:,} images",
                onset,
            )
        if self._settings.skipped_of_1000 is not None and len(recent) >= self._settings.skipped_of_1000:
            onset = recent[0][1]
            raise DivergedError(
                f"{name} had a non-finite loss or gradient in {len(recent)} of its last {WINDOW_TURNS:,} turns, the "
                f"first time after {onset:,} images",
                onset,
            )

    def onset_images(self) -> int | None:
        """Return the images seen before the first skipped turn that still counts, of any kind; None: there is none."""
        return min((recent[0][1] for recent in self._recent.values()), default=None)

    def _forget(self, name: str, number: int) -> None:
        if name in self._recent:
            self._recent[name] = [each for each in self._recent[name] if each[0] > number - WINDOW_TURNS]
            if not self._recent[name]:
                del self._recent[name]

    def record(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        return {"in_a_row": self._in_a_row, "recent": self._recent}

    def load_record(self, record: Mapping[str, Any]) -> None:
        """Put back what `record` returned."""
        self._in_a_row = dict(record["in_a_row"])
        self._recent = {name: [list(each) for each in recent] for name, recent in record["recent"].items()}
