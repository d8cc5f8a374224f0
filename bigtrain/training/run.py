"""One training run in one process: its parts by name, and the few things they do together."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bigtrain.data.batch import Batch
from bigtrain.data.feed import Feed
from bigtrain.data.shards import ShardSet
from bigtrain.data.stream.shards import StreamSet
from bigtrain.engine import faults
from bigtrain.engine.checkpoints.checkpoint import Checkpoints
from bigtrain.engine.ema import WeightAverages
from bigtrain.engine.engine import Engine, Outcome, Played
from bigtrain.engine.heartbeat import whereabouts
from bigtrain.engine.processes.launch import Launch
from bigtrain.engine.processes.preemption import Preemption
from bigtrain.engine.stats import PeriodMeans
from bigtrain.engine.trackers import Trackers
from bigtrain.games.base import DataFacts, Game, Turn
from bigtrain.recipe.errors import StoppedError
from bigtrain.recipe.progress import Progress
from bigtrain.training.damage import Damage, tell_of
from bigtrain.training.health.watch import Watch
from bigtrain.training.health.webhook import Webhook
from bigtrain.training.log import RunLog
from bigtrain.training.retention import WatchedRetention
from bigtrain.training.schema import Recipe


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
    shards: ShardSet | StreamSet
    feed: Feed
    log: RunLog
    checkpoints: Checkpoints
    preemption: Preemption
    hooks: list[Hook]
    watch: Watch
    damage: Damage
    watched: WatchedRetention | None = None
    webhook: Webhook | None = None
    trackers: Trackers | None = None
    means: PeriodMeans = field(default_factory=PeriodMeans)
    progress: Progress = field(default_factory=Progress)
    batches: tuple[Batch | None, ...] = ()
    ahead: deque[tuple[Batch, ...]] = field(default_factory=deque)
    """What the turns of this step have yet to take, in order."""
    signs_of_life: int = 0
    """Of the shards' copying, when the run last looked."""
    unread: deque[UnreadTurn] = field(default_factory=deque)
    being_saved: Progress | None = None
    saved_images: int | None = None
    failed_saves: int = 0
    save_s: float = 0.0
    """What the last save took."""
    owes_evaluation: bool = False
    """Whether this step's evaluation was cut short by a stop, in this start or in the one before."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.recipe.run_folder

    @property
    def is_done(self) -> bool:
        """Whether all images that the recipe asks for were seen."""
        return self.progress.steps >= self.recipe.num_steps

    @property
    def is_complete(self) -> bool:
        """Whether the run is done and owes nothing."""
        return self.is_done and not self.owes_evaluation

    @property
    def images_before_step(self) -> int:
        """Images seen before the step that was just made."""
        return self.progress.images_seen - self.recipe.batch_images

    def begin_step(self) -> bool:
        """Wait for all real images of the next step; return whether to play it: False where any rank was asked to stop.

        A stop ends the wait: nothing of the step was played yet, and what was read is read again after a resume. All
        ranks call it before each step, and meet here once they have their images or give way.

        Raises:
            DataError: a sample is bad.
        """
        whereabouts.note("waiting for data", steps=self.progress.steps)
        self.engine.pace.begin_step()
        has_given_way = False
        try:
            self._read_ahead()
        except StoppedError:
            has_given_way = True
        return not self.preemption.requested(has_given_way)

    def _read_ahead(self) -> None:
        self.ahead.clear()
        position = self.progress.position
        for turn in self.game.turns(self.progress):
            if turn.reads == "next":
                faults.reach("data")
                self.ahead.append(self.feed.read(position, self.wait_on))
                self.damage.note(position, self.ahead[-1])
                position += self.recipe.batch_images

    def wait_on(self) -> None:
        """Be called while data is waited for: give way to a stop, and note that shards still come where they do.

        Raises:
            StoppedError: a stop is asked for.
        """
        signs = self.shards.signs_of_life
        if signs != self.signs_of_life:
            self.signs_of_life = signs
            whereabouts.note("waiting for shards", steps=self.progress.steps)
        self.preemption.give_way()

    def read(self, turn: Turn) -> tuple[Batch | None, ...]:
        """Return this rank's micro-batches for a turn, and count real images as taken where it reads new ones."""
        if turn.reads == "next":
            self.batches = self.ahead.popleft() if self.ahead else self.feed.read(self.progress.position)
            self.progress = self.progress.after_read(self.recipe.batch_images)
        return self.batches if turn.reads != "none" else (None,) * self.engine.layout.accumulation

    def play(self, number: int, turn: Turn) -> None:
        """Play one turn of a step; what it did is read after the next step, or when `settle` is called."""
        if number == 0:
            whereabouts.note("the step", steps=self.progress.steps)
            faults.reach("step")
        batches = self.read(turn)
        whereabouts.note(f"turn {turn.name}")
        played = self.engine.play(turn, number, batches, self.progress)
        self.unread.append(UnreadTurn(turn, played, batches, self.progress))

    def end_step(self) -> None:
        """Move the averages and the clock after all turns of a step, and read what the turns of the step before did."""
        self.averages.update(self.recipe.batch_images, self.progress.images_seen)
        self._read_turns(before_step=self.progress.steps)
        self.progress = self.progress.after_step(self.recipe.batch_images)
        self.engine.pace.end_step()
        whereabouts.note("between steps", is_under_way=True)

    def settle(self) -> None:
        """Read what all turns so far did: their figures, and the counters of turns made and skipped.

        Raises:
            DivergedError: too many turns had a non-finite loss or gradient.
            DataError: too many samples were damaged.
        """
        self._read_turns(before_step=self.progress.steps + 1)
        if self.recipe.data.on_error == "skip":
            told = self.damage.agree(self.launch.ranks, self.progress.position)
            self.write_aside("the list of bad samples", lambda: tell_of(told, self.folder))
            self.damage.refuse()

    def _read_turns(self, before_step: int) -> None:
        while self.unread and self.unread[0].progress.steps < before_step:
            unread = self.unread.popleft()
            self._count(unread, unread.played.read())

    def _count(self, unread: UnreadTurn, outcome: Outcome) -> None:
        """Keep a turn's figures for the next status line, and count it as made or skipped."""
        name = unread.turn.name
        self.means.add(outcome.figures)
        if outcome.stepped:
            self.progress = self.progress.after_turn(name)
            self.watch.skips.made(name, self._played(name))
            return
        self.progress = self.progress.after_turn(f"{name}/skipped")
        self._report_skip(unread)
        if not outcome.is_rescaled:
            self.watch.skips.skipped(name, self._played(name), unread.progress.images_seen)

    def _played(self, name: str) -> int:
        """Return how many turns of a kind were played and read, made or skipped."""
        return self.progress.turns.get(name, 0) + self.progress.turns.get(f"{name}/skipped", 0)

    def _report_skip(self, unread: UnreadTurn) -> None:
        own = [batch.sample_N.tolist() for batch in unread.batches if batch is not None]
        samples = self.launch.ranks.gather_objects(own)  # a skip is agreed, so every rank comes here
        reason = "non-finite loss or gradient: turn skipped"
        figures = {"turn": unread.turn.name, "salt": unread.progress.salt, "samples_by_rank": samples}
        self.log.event("alarm", unread.progress, reason=reason, **figures)

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
        for failure in self.trackers.log(figures, self.progress.images_seen) if self.trackers is not None else []:
            self.log.event("alarm", self.progress, reason=failure)

    def close(self) -> None:
        """Let a save in flight end, stop workers, give signals back, put the log on disk."""
        self.checkpoints.close()
        failures = self.trackers.close() if self.trackers is not None else []
        failures += self.webhook.close() if self.webhook is not None else []
        for failure in failures:
            self.log.event("alarm", self.progress, reason=failure)
        self.preemption.close()
        self.feed.close()
        self.log.close()
