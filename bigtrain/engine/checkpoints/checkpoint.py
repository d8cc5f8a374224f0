"""Checkpoints of a run: saved by all ranks together, all or nothing; the newest good one is what a start goes on from.

Training waits only until its tensors are copied into staging buffers; a thread of each rank hashes and writes them. A
save writes aside, fsyncs, and commits with one rename; only then are older checkpoints removed, so at no instant does a
kill, a full disk or a power cut leave fewer loadable checkpoints than before. Every rank holds the same tensors and
writes a share of them; every rank reads them all, so any number of ranks can go on. There is no "latest" file: the
folder's listing, verified, is the truth. Nothing here unpickles.
"""

import contextlib
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from bigtrain.engine import faults
from bigtrain.engine.checkpoints import disk
from bigtrain.engine.checkpoints.background import Background
from bigtrain.engine.checkpoints.disk import FileFacts
from bigtrain.engine.checkpoints.files import (
    BAD_PREFIX,
    DTYPE_NAMES,
    Checkpoint,
    part_chunks,
    part_name,
    read_checkpoint,
    try_to_read,
)
from bigtrain.engine.checkpoints.folder import CheckpointFolder
from bigtrain.engine.checkpoints.staging import Staged, Staging
from bigtrain.engine.heartbeat import whereabouts
from bigtrain.engine.ranks import FailedElsewhere, Ranks
from bigtrain.recipe.errors import EXIT_BUG, CheckpointError, RanksDriftedError

__all__ = ["Checkpoint", "Checkpoints", "NotFiniteError", "SaveFailedError", "Saved", "deal", "read_checkpoint"]

MIN_KEEP_LAST = 2  # the newest may turn out damaged
DISK_WAY_OUT = "make room there, or choose another run_dir"
NOTE_S = 1.0  # between looks at how far a save has come
CLOSE_WAIT_S = 30.0  # for a save in flight when a run ends by an error; another rank may never answer again

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class SaveFailedError(CheckpointError):
    """A checkpoint could not be written; the earlier ones are as they were."""


class NotFiniteError(SaveFailedError):
    """A tensor that was to be saved holds NaN or infinity: nothing is wrong with the disk."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is complete on disk."""

    path: Path
    images: int
    stall_s: float
    """How long training waited for the copies of this rank's share."""
    save_s: float
    """From the call to the end of pruning."""


@dataclass(frozen=True)
class _Share:
    """What one rank brings to a save, fixed at the moment it began."""

    images: int
    staged: Staged
    form: str
    """Hash of the names, dtypes and shapes of all tensors, which all ranks must agree on."""
    record: bytes
    first: Callable[[], object]
    began_s: float
    stall_s: float


def deal(tensors: Mapping[str, Tensor], world: int) -> list[list[str]]:
    """Return the names of the tensors that each rank writes: largest first, each to the rank with the least so far."""
    shares: list[list[str]] = [[] for _ in range(world)]
    loads = [0] * world
    for name in sorted(tensors, key=lambda name: (-tensors[name].nbytes, name)):
        rank = loads.index(min(loads))
        shares[rank].append(name)
        loads[rank] += tensors[name].nbytes
    return shares


class Checkpoints(CheckpointFolder):
    """The checkpoints folder of a run, as all its ranks use it.

    Every method that is not inherited is called by all ranks together, by the thread that trains; so is the making of
    this object. One save is in flight at a time.
    """

    def __init__(self, folder: Path, ranks: Ranks, keep_last: int = MIN_KEEP_LAST) -> None:
        """Look after a checkpoints folder; nothing is read or written yet.

        Args:
            folder: such as RUN/checkpoints, seen by all ranks; made by the first save.
            ranks: the ranks of the run; any number may go on where any other stopped.
            keep_last: how many of the newest to keep, at least 2; pinned ones stay besides.
        """
        assert keep_last >= MIN_KEEP_LAST, f"keep_last is {keep_last}, but the only checkpoint may turn out damaged"
        super().__init__(folder, keep_last)
        self._ranks = ranks
        self._savers = ranks.for_another_thread()  # only the thread of a save speaks over it
        self._staging = Staging()
        self._in_flight: Background[Saved] | None = None
        self._own_part_written = threading.Event()

    def save(self, images: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> Path:
        """Write a checkpoint and return its folder once it is complete on disk: `begin` and `finish`."""
        self.begin(images, tensors, record)
        saved = self.finish()
        assert saved is not None
        return saved.path

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the memory for this rank's copies now, so that no save has to wait for it."""
        self._staging.reserve(self._own(tensors))

    def begin(
        self,
        images: int,
        tensors: Mapping[str, Tensor],
        record: Mapping[str, Any],
        first: Callable[[], object] = lambda: None,
    ) -> None:
        """Copy this rank's share of the tensors as they are now, and write the checkpoint in the background.

        Args:
            images: images seen, the checkpoint's name; a good one that is there is kept.
            tensors: the same names, shapes and values on every rank; any dtype of DTYPE_NAMES, on any device. Only the
                share that `deal` gives to this rank is read: for the others a tensor on `meta` will do.
            record: JSON; rank 0's is written.
            first: what each rank's thread does before it writes anything.
        """
        assert self._in_flight is None, "a save is in flight; finish it first"
        unknown = {name: tensor.dtype for name, tensor in tensors.items() if tensor.dtype not in DTYPE_NAMES}
        assert not unknown, f"tensors of these dtypes are not saved: {unknown}"
        began_s = time.monotonic()
        form = repr(sorted((name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items()))
        staged = self._staging.copy(self._own(tensors))
        text = json.dumps(record).encode()
        digest = hashlib.sha256(form.encode()).hexdigest()
        share = _Share(images, staged, digest, text, first, began_s, time.monotonic() - began_s)
        self._own_part_written.clear()
        self._in_flight = Background(lambda: self._write(share), name=f"checkpoint after {images} images")

    def is_over(self) -> bool:
        """Tell all ranks whether a save is in flight that every rank has done with, so that `finish` will not wait."""
        return self._in_flight is not None and self._ranks.all_true(self._in_flight.is_over)

    def finish(self) -> Saved | None:
        """Wait for the save in flight and return what it wrote; None where none is in flight.

        Raises:
            SaveFailedError: the disk is full or broken, on any rank; raised on all. Earlier checkpoints are untouched.
            NotFiniteError: one of these too: a tensor of any rank's share is not finite.
            RanksDriftedError: ranks hold other tensors by name, shape or dtype; nothing was written.
        """
        save, self._in_flight = self._in_flight, None
        if save is None:
            return None
        self._wait_for_own_part(save)
        with whereabouts.waiting():
            return save.result()

    def _wait_for_own_part(self, save: Background[Saved]) -> None:
        """Wait until this rank's part is written, noting that it comes on: a slow disk is not a rank that hangs."""
        written = -1
        while not (self._own_part_written.is_set() or save.wait(NOTE_S)):
            if disk.written_bytes() != written:
                written = disk.written_bytes()
                whereabouts.note("writing a checkpoint")

    def close(self) -> None:
        """Give a save in flight the time to end, when the run ends by an error; what became of it is only logged."""
        save, self._in_flight = self._in_flight, None
        if save is None:
            return
        if not save.wait(CLOSE_WAIT_S):
            log.warning("the %s was given up: not over after %g s", save.name, CLOSE_WAIT_S)
        elif save.failure is not None:
            log.warning("the %s was not saved: %s", save.name, save.failure)

    def load_newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that verifies on every rank, or None where the run never saved one.

        One that is damaged for any rank is renamed to `.bad-<images>`, and the one before it is tried. A save in flight
        is waited for.

        Raises:
            CheckpointError: there are checkpoints and none verifies: never a silent fresh start. Or one cannot be used
                for a reason that is no damage: a format of another version, or no permission to read it.
        """
        if self._in_flight is not None:
            self._in_flight.wait()
        faults.reach("load")
        found = self._ranks.broadcast_object(self.saved() if self._ranks.is_main else [])
        reasons: list[str] = []
        for images in found:
            checkpoint, problem, is_damage = try_to_read(self.place(images), images)
            reasons = self._ranks.gather_problems(problem)
            if not reasons:
                return checkpoint
            if self._ranks.any_true(problem is not None and not is_damage):
                raise CheckpointError("; ".join(reasons))
            problem = self._try_to_set_aside(images, reasons) if self._ranks.is_main else None
            if stuck := self._ranks.gather_problems(problem):
                raise CheckpointError(f"{'; '.join(reasons)}; {'; '.join(stuck)}; make {self.folder} writable")
        has_any = bool(found) or any(self.folder.glob(f"{BAD_PREFIX}*"))
        if self._ranks.any_true(has_any):
            why = f" ({reasons[0]})" if reasons else ""
            raise CheckpointError(
                f"{self.folder} holds checkpoints and none of them verifies{why}; put a good copy back, or move the "
                "folder away to start from the beginning"
            )
        return None

    def _own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensors[name] for name in deal(tensors, self._ranks.world)[self._ranks.rank]}

    def _write(self, share: _Share) -> Saved:
        """Write a checkpoint, in the thread of a save; the parts that can fail are agreed on one by one."""
        ranks, images = self._savers, share.images
        self._check_same_form(share)
        self._agree(images, None, lambda: self._prepare(share))
        aside = self._agree(images, None, lambda: self.open_aside(images) if ranks.is_main else None)
        aside = ranks.broadcast_object(aside)
        if aside is not None:
            facts = self._agree(images, aside, lambda: self._write_part(aside, share))
            parts = {part_name(rank, ranks.world): part for rank, part in enumerate(ranks.gather_objects(facts))}
            if ranks.is_main:
                self._agree(images, aside, lambda: self.commit(images, aside, parts, share.record))
                self.prune(images)
            else:
                self._agree(images, aside, lambda: None)
        return Saved(self.place(images), images, share.stall_s, time.monotonic() - share.began_s)

    def _check_same_form(self, share: _Share) -> None:
        forms = self._savers.gather_objects(share.form)
        other = next((rank for rank, form in enumerate(forms) if form != forms[0]), None)
        if other is not None:
            raise RanksDriftedError(
                f"rank {other} holds other tensors than rank 0 (by name, shape or dtype), so nothing was saved to "
                f"{self.folder}; start again from the checkpoint before"
            )

    def _prepare(self, share: _Share) -> None:
        share.first()
        _refuse_not_finite(share.staged.wait())

    def _write_part(self, aside: Path, share: _Share) -> FileFacts:
        name = part_name(self._savers.rank, self._savers.world)
        facts = disk.write_file(aside / name, part_chunks(share.staged.wait()))
        self._own_part_written.set()
        return facts

    def _agree(self, images: int, aside: Path | None, action: Callable[[], Result]) -> Result:
        """Do a part of a save on every rank; raise on all if it fails on any, after removing what was written so far:
        it may need the room.
        """
        failure: Exception | None = None
        try:
            result = action()
        except Exception as error:
            failure = error
        problems = self._savers.gather_problems(None if failure is None else str(failure))
        if not problems:
            return result
        is_bug = self._savers.any_true(failure is not None and not isinstance(failure, (OSError, CheckpointError)))
        is_diverged = self._savers.any_true(isinstance(failure, NotFiniteError))
        if self._savers.is_main and aside is not None:
            with contextlib.suppress(OSError):
                disk.remove_tree(aside)
        if is_bug:
            raise failure if failure is not None else FailedElsewhere("; ".join(problems), EXIT_BUG)
        way_out = "lower the learning rate, or use precision: fp32" if is_diverged else DISK_WAY_OUT
        raise (NotFiniteError if is_diverged else SaveFailedError)(
            f"the checkpoint after {images:,} images was not saved to {self.folder} ({'; '.join(problems)}); earlier "
            f"ones are untouched; {way_out}"
        ) from failure

    def _try_to_set_aside(self, images: int, reasons: Sequence[str]) -> str | None:
        try:
            self.set_aside(images, reasons)
        except CheckpointError as error:
            return str(error)
        return None


def _refuse_not_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise NotFiniteError if a tensor holds NaN or infinity: what training cannot go on from must not replace what it
    can.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        if not all(limit.isfinite() for limit in tensor.aminmax()):  # NaN passes through to both; takes no memory
            number = int((~tensor.isfinite()).sum())
            raise NotFiniteError(f"{name} holds {number} of {tensor.numel()} values that are not finite")
