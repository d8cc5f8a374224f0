"""Evaluating beside a run: each new checkpoint or snapshot once, every moving average, one file each.

A watcher writes RUN/evaluations and its lease and nothing else; the log has one writer, the training. What is evaluated
is what is on disk: a watcher that was killed goes on where it was, and several with different protocols do not disturb
each other. While its lease lives, retention keeps what it has yet to evaluate (`training/retention.py`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bigtrain.engine.processes.lease import Lease
from bigtrain.engine.processes.preemption import Preemption
from bigtrain.engine.ranks import Ranks
from bigtrain.evaluation.sources import Kind, Source, is_present, sources, state_of
from bigtrain.evaluation.watch_starts import WatchStarts
from bigtrain.metrics.records import WATCH, EvaluationRecord, read_record, record_path
from bigtrain.recipe.errors import (
    EXIT_DONE,
    EXIT_REQUEUE,
    BigtrainError,
    CheckpointError,
    DataError,
    DivergenceError,
    UsageError,
)
from bigtrain.training.judging import write_record
from bigtrain.training.loaded import LoadedModel

COMPLETE = "complete"  # in status.json
POLL_S = 10.0


class Judgement(Protocol):
    """Figures under a protocol; a `metrics.evaluation.Evaluation` is one."""

    @property
    def figures(self) -> dict[str, float]:
        """By name."""
        ...

    @property
    def protocol(self) -> dict[str, Any]:
        """What they must share to be compared."""
        ...


class Judge(Protocol):
    """Gives figures to models of one run; all ranks call it together."""

    def protocol_name(self, model: LoadedModel) -> str:
        """Return under which name this model's figures are kept; it differs by average and by nothing else."""
        ...

    def judge(self, model: LoadedModel, between: Callable[[], None]) -> Judgement:
        """Return the figures; `between` is called between batches and may raise."""
        ...


@dataclass(frozen=True)
class WatchOptions:
    """How a run is watched."""

    once: bool = False
    """End when all that is there is evaluated, whether or not the run is complete."""
    kind: Kind = "both"
    """What is evaluated."""
    poll_s: float = POLL_S
    """Seconds between looks at the folder."""
    average: str | None = None
    """Name of the moving average to evaluate; None: all."""


class Watcher:
    """Evaluates what a run saves until it is complete; every rank makes one and calls `run`."""

    def __init__(
        self,
        run_folder: Path,
        options: WatchOptions,
        prepare: Callable[[LoadedModel], Judge],
        preemption: Preemption,
        ranks: Ranks,
        say: Callable[[str], None],
    ) -> None:
        """Name what to watch; `run` does it.

        Args:
            run_folder: of the run; it may not be there yet.
            options: how.
            prepare: makes the judge from the first model there is: real images and extractor are read then, when the
                training has cached its own.
            preemption: polite stops, agreed across ranks.
            ranks: that evaluate together.
            say: tells the user; called on the main process alone.
        """
        self._folder, self._options, self._prepare = run_folder, options, prepare
        self._preemption, self._ranks, self._tell = preemption, ranks, say
        self._judge: Judge | None = None
        self._names: list[str] = []
        self._given_up: list[int] = []
        self._evaluated = 0
        self._starts = WatchStarts(run_folder)
        self._lease: Lease | None = None
        self._last_words = ""

    def run(self) -> int:
        """Evaluate until the run is complete and nothing is left, or a stop is asked for; return the exit status.

        Raises:
            UsageError: `once`, and there is nothing to evaluate.
            CheckpointError: what was saved could not be evaluated, all else was.
            NoProgressError: a SLURM job has started three times without an evaluation.
        """
        self._ranks.on_main(lambda: self._starts.check(is_over=False))
        try:
            while not self._preemption.requested():
                look = self._ranks.together(lambda: self._look() if self._ranks.is_main else (None, False))
                source, is_over = self._ranks.broadcast_object(look)
                if is_over:
                    self._end()
                    return EXIT_DONE
                if source is not None:
                    self._evaluate(source)
                    continue
                self._wait()
        except BigtrainError as error:
            if error.exit_status != EXIT_REQUEUE:  # a stop, of this rank or another
                raise
        finally:
            if self._lease is not None:
                self._lease.__exit__(None, None, None)
        self._ranks.on_main(lambda: self._starts.check(is_over=True))
        self._say(f"{self._folder}: stopped by {self._preemption.reason or 'a signal'}; start it again to go on")
        return EXIT_REQUEUE

    def _look(self) -> tuple[Source | None, bool]:
        """Return the oldest source that is not evaluated, and whether all is done."""
        state = state_of(self._folder)  # before the listing: a run that is complete by now saves no more
        if self._folder.is_dir() and self._lease is None:
            self._lease = self._take_lease()
        there = sources(self._folder, self._options.kind)
        source = next((each for each in there if not self._is_done(each)), None)
        if source is not None or not (self._options.once or state == COMPLETE):
            return source, False
        if not there and self._options.once:
            raise UsageError(
                f"{self._folder} holds no checkpoint and no snapshot to evaluate; leave --once out to wait"
            )
        return None, True

    def _take_lease(self) -> Lease:
        lease = Lease(self._folder, {"protocols": None, "checkpoints": self._options.kind != "snapshots"})
        try:
            return lease.__enter__()
        except OSError as error:
            raise UsageError(
                f"{self._folder} cannot be written ({error.strerror}), where figures would go; make it writable"
            ) from error

    def _is_done(self, source: Source) -> bool:
        if source.images_seen in self._given_up:
            return True
        return bool(self._names) and all(self._is_written(source.images_seen, name) for name in self._names)

    def _is_written(self, images: int, name: str) -> bool:
        record = read_record(record_path(self._folder, images, name))
        return record is not None and is_present(self._folder, images, record.salt)

    def _evaluate(self, source: Source) -> None:
        """Judge every average of a source that is not judged yet, and write each as soon as it is."""
        models = self._read(source)
        if models is None:
            return
        if self._judge is None:
            self._say(f"{self._folder}: preparing the evaluation")
            self._judge = self._prepare(models[0])
            self._names = [self._judge.protocol_name(model) for model in models]
            if self._lease is not None:
                self._lease.say(protocols=self._names)
        for model, name in zip(models, self._names, strict=True):
            if not self._ranks.broadcast_object(self._ranks.is_main and self._is_written(model.images_seen, name)):
                self._judge_one(self._judge, model, name)

    def _read(self, source: Source) -> list[LoadedModel] | None:
        """Return a source's models, or None where a rank cannot read it; then it is given up, unless it has gone."""
        models: list[LoadedModel] = []
        problem = None
        try:
            models = source.read(self._options.average)
            if models[0].images_seen != source.images_seen:
                raise CheckpointError(f"{source.path} holds the weights after {models[0].images_seen:,} images")
        except (CheckpointError, OSError) as error:
            problem = str(error)
        problems = self._ranks.gather_problems(problem)
        if not problems:
            return models
        if self._ranks.broadcast_object(source.has_gone()):
            self._say(f"{self._folder}: after {source.images_seen:,} images: removed before it was evaluated")
        else:
            self._give_up(source.images_seen, problems)
        return None

    def _judge_one(self, judge: Judge, model: LoadedModel, name: str) -> None:
        began_s = time.monotonic()
        try:
            judgement = judge.judge(model, self._preemption.give_way)
        except BigtrainError as error:  # on all ranks
            if error.exit_status != DivergenceError.exit_status:
                raise
            self._give_up(model.images_seen, [str(error)])
            return
        self._ranks.on_main(lambda: self._write(model, name, judgement))
        shown = ", ".join(f"{figure} {value:.4g}" for figure, value in list(judgement.figures.items())[:1])
        took_s = time.monotonic() - began_s
        self._say(f"{self._folder}: after {model.images_seen:,} images: {model.average}: {shown} ({took_s:.0f} s)")

    def _write(self, model: LoadedModel, name: str, judgement: Judgement) -> None:
        """Write an evaluation, unless the run has gone back from these weights or somebody has written the same.

        Raises:
            DataError: the disk refuses.
        """
        path = record_path(self._folder, model.images_seen, name)
        if not is_present(self._folder, model.images_seen, model.salt) or self._is_written(model.images_seen, name):
            return
        record = EvaluationRecord(
            path=path,
            images_seen=model.images_seen,
            figures=judgement.figures,
            protocol=judgement.protocol,
            average=model.average,
            salt=model.salt,
            by=WATCH,
        )
        try:
            write_record(record)
        except OSError as error:
            raise DataError(f"{path} cannot be written ({error.strerror}); make room and start again") from error
        self._evaluated += 1
        self._starts.note()

    def _give_up(self, images: int, reasons: Sequence[str]) -> None:
        if images not in self._given_up:
            self._given_up.append(images)
        if self._lease is not None:
            self._lease.say(given_up=self._given_up)
        self._say(f"{self._folder}: after {images:,} images: cannot be evaluated: {'; '.join(reasons)}")

    def _wait(self) -> None:
        state = state_of(self._folder) if self._ranks.is_main else ""
        if not self._folder.is_dir():
            words = "is not there yet"
        else:
            words = f"nothing new to evaluate; the run is {state}" if state else "has not begun"
        if words != self._last_words:
            self._say(f"{self._folder}: waiting: {words}")
            self._last_words = words
        until_s = time.monotonic() + self._options.poll_s
        while not self._preemption.pending and (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.2))

    def _end(self) -> None:
        self._ranks.on_main(self._starts.done)
        self._say(f"{self._folder}: all is evaluated, {self._evaluated} of it by this watcher")
        if self._given_up:
            raise CheckpointError(
                f"{self._folder}: could not be evaluated after {', '.join(f'{each:,}' for each in self._given_up)} "
                "images; the reasons stand above"
            )

    def _say(self, words: str) -> None:
        if self._ranks.is_main:
            self._tell(words)
