"""One training run in one process: its parts by name, and the few things they do together."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bigtrain.data.batch import Batch
from bigtrain.data.feed import Feed
from bigtrain.data.shards import ShardSet
from bigtrain.engine import faults
from bigtrain.engine.checkpoint import Checkpoints
from bigtrain.engine.ema import WeightAverages
from bigtrain.engine.engine import Engine, Outcome, Played
from bigtrain.engine.launch import Launch
from bigtrain.engine.preemption import Preemption
from bigtrain.engine.stats import PeriodMeans
from bigtrain.engine.trackers import Trackers
from bigtrain.games.base import DataFacts, Game, Turn
from bigtrain.recipe.errors import DivergenceError
from bigtrain.recipe.progress import Progress
from bigtrain.training.log import RunLog
from bigtrain.training.schema import Recipe

MAX_SKIPPED_IN_A_ROW = 5  # turns without a finite loss before the run stops


class Hook(Protocol):
    """Something done between steps when a period of images was crossed; every rank calls every hook."""

    def due(self, run: "Run") -> bool:
        """Tell whether the step just made calls for this hook; the same answer on every rank."""
        ...

    def run(self, run: "Run") -> None:
        """Do it."""
        ...


@dataclass(frozen=True)
class UnreadTurn:
    """A turn that was played and whose figures have not been read yet."""

    turn: Turn
    played: Played
    batches: tuple[Batch | None, ...]
    progress: Progress
    """Where the run stood when it was played."""


@dataclass
class Run:
    """The parts of a run; what changes while it trains stands below `trackers`."""

    recipe: Recipe
    facts: DataFacts
    launch: Launch
    game: Game
    engine: Engine
    averages: WeightAverages
    shards: ShardSet
    feed: Feed
    log: RunLog
    checkpoints: Checkpoints
    preemption: Preemption
    hooks: list[Hook]
    trackers: Trackers | None = None
    means: PeriodMeans = field(default_factory=PeriodMeans)
    progress: Progress = field(default_factory=Progress)
    batches: tuple[Batch | None, ...] = ()
    unread: deque[UnreadTurn] = field(default_factory=deque)
    skipped_in_a_row: dict[str, int] = field(default_factory=dict)
    saved_images: int | None = None
    failed_saves: int = 0
    save_s: float = 0.0  # what the last save took

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.recipe.run_folder

    @property
    def is_done(self) -> bool:
        """Whether all images that the recipe asks for were seen."""
        return self.progress.steps >= self.recipe.num_steps

    @property
    def images_before_step(self) -> int:
        """Images seen before the step that was just made."""
        return self.progress.images_seen - self.recipe.batch_images

    def read(self, turn: Turn) -> tuple[Batch | None, ...]:
        """Return this rank's micro-batches for a turn, and count real images as taken where it reads new ones."""
        if turn.reads == "next":
            faults.reach("data")
            self.batches = self.feed.read(self.progress.position)
            self.progress = self.progress.after_read(self.recipe.batch_images)
        return self.batches if turn.reads != "none" else (None,) * self.engine.layout.accumulation

    def play(self, number: int, turn: Turn) -> None:
        """Play one turn of a step; what it did is read after the next step, or when `settle` is called."""
        if number == 0:
            faults.reach("step")
        batches = self.read(turn)
        played = self.engine.play(turn, number, batches, self.progress)
        self.unread.append(UnreadTurn(turn, played, batches, self.progress))

    def end_step(self) -> None:
        """Move the averages and the clock after all turns of a step, and read what the turns of the step before did."""
        self.averages.update(self.recipe.batch_images, self.progress.images_seen)
        self._read_turns(before_step=self.progress.steps)
        self.progress = self.progress.after_step(self.recipe.batch_images)

    def settle(self) -> None:
        """Read what all turns so far did: their figures, and the counters of turns made and skipped.

        Raises:
            DivergenceError: several turns in a row had a non-finite loss or gradient.
        """
        self._read_turns(before_step=self.progress.steps + 1)

    def _read_turns(self, before_step: int) -> None:
        while self.unread and self.unread[0].progress.steps < before_step:
            unread = self.unread.popleft()
            self._count(unread, unread.played.read())

    def _count(self, unread: UnreadTurn, outcome: Outcome) -> None:
        """Keep a turn's figures for the next status line, and count it as made or skipped."""
        name = unread.turn.name
        self.means.add(outcome.figures)
        if outcome.stepped:
            self.progress, self.skipped_in_a_row[name] = self.progress.after_turn(name), 0
            return
        self.progress = self.progress.after_turn(f"{name}/skipped")
        self._report_skip(unread)
        if outcome.is_rescaled:
            return
        skipped = self.skipped_in_a_row.get(name, 0) + 1
        self.skipped_in_a_row[name] = skipped
        if skipped >= MAX_SKIPPED_IN_A_ROW:
            raise DivergenceError(
                f"{name} at step {unread.progress.steps} had a non-finite loss or gradient for the {skipped}th time in "
                f"a row ({outcome.figures}); lower the learning rate, or use precision: fp32, and start again"
            )

    def _report_skip(self, unread: UnreadTurn) -> None:
        own = [batch.sample_N.tolist() for batch in unread.batches if batch is not None]
        samples = self.launch.ranks.gather_objects(own)  # a skip is agreed, so every rank comes here
        reason = "non-finite loss or gradient: turn skipped"
        self.log.event("alarm", unread.progress, reason=reason, turn=unread.turn.name, samples_by_rank=samples)

    def write_aside(self, what: str, action: Callable[[], object]) -> None:
        """Do an action of the main process that writes a file which training can do without; collective.

        A disk that is full or away costs the file, not the run: the log says so. Other errors end the run on all ranks.
        """

        def write() -> None:
            try:
                action()
            except OSError as error:
                self.log.event("alarm", self.progress, reason=f"{what} could not be written: {error}")

        self.launch.ranks.on_main(write)

    def project(self, figures: Mapping[str, float]) -> None:
        """Send figures of the log to the trackers as well."""
        if self.trackers is not None:
            self.trackers.log(figures, self.progress.images_seen)

    def close(self) -> None:
        """Stop workers, give signals back, put the log on disk."""
        if self.trackers is not None:
            self.trackers.close()
        self.preemption.close()
        self.feed.close()
        self.log.close()
