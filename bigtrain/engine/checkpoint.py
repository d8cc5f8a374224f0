"""Checkpoints of a run: saved by all ranks together, all or nothing; the newest good one is what a start goes on from.

A save writes aside, fsyncs, and commits with one rename; only then are older checkpoints removed, so at no instant does
a kill, a full disk or a power cut leave fewer loadable checkpoints than before. Every rank holds the same tensors and
writes a share of them; every rank reads them all, so any number of ranks can go on. There is no "latest" file: the
folder's listing, verified, is the truth. Nothing here unpickles.
"""

import contextlib
import hashlib
import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from bigtrain.engine import checkpoint_disk as disk
from bigtrain.engine import faults
from bigtrain.engine.checkpoint_disk import FileFacts
from bigtrain.engine.checkpoint_files import (
    BAD_PREFIX,
    DTYPE_NAMES,
    MANIFEST,
    PINNED,
    RECORD,
    Checkpoint,
    DamagedCheckpointError,
    Manifest,
    check_sizes,
    committed,
    folder_name,
    part_chunks,
    part_name,
    read_checkpoint,
    verify,
)
from bigtrain.engine.processes import ProcessStamp
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import CheckpointError, RanksDriftedError

__all__ = ["Checkpoint", "Checkpoints", "SaveFailedError", "deal", "read_checkpoint"]

MIN_KEEP_LAST = 2  # the newest may turn out damaged
ASIDE_PREFIX = ".tmp-"
ASIDE_NAME = re.compile(r"\.tmp-\d+-(?P<host>.+)-(?P<pid>\d+)-(?P<start_ticks>\d+)(-pruned)?")
READ_ATTEMPTS = 3
READ_PAUSE_S = 1.0

log = logging.getLogger(__name__)


class SaveFailedError(CheckpointError):
    """A checkpoint could not be written; the earlier ones are as they were."""


def deal(tensors: Mapping[str, Tensor], world: int) -> list[list[str]]:
    """Return the names of the tensors that each rank writes: largest first, each to the rank with the least so far."""
    shares: list[list[str]] = [[] for _ in range(world)]
    loads = [0] * world
    for name in sorted(tensors, key=lambda name: (-tensors[name].nbytes, name)):
        rank = loads.index(min(loads))
        shares[rank].append(name)
        loads[rank] += tensors[name].nbytes
    return shares


class Checkpoints:
    """The checkpoints folder of a run. `save` and `load_newest` are called by all ranks together."""

    def __init__(self, folder: Path, ranks: Ranks, keep_last: int = MIN_KEEP_LAST) -> None:
        """Look after a checkpoints folder; nothing is read or written yet.

        Args:
            folder: such as RUN/checkpoints, seen by all ranks; made by the first save.
            ranks: the ranks of the run; any number may go on where any other stopped.
            keep_last: how many of the newest to keep, at least 2; pinned ones stay besides.
        """
        assert keep_last >= MIN_KEEP_LAST, f"keep_last is {keep_last}, but the only checkpoint may turn out damaged"
        self.folder = folder
        self.keep_last = keep_last
        self._ranks = ranks
        self._stamp = ProcessStamp.own()

    def save(self, images: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> Path:
        """Write a checkpoint and return its folder once it is complete on disk; a good one that is there is kept.

        Args:
            images: images seen, the checkpoint's name.
            tensors: the same names, shapes and values on every rank; any dtype of DTYPE_NAMES, on any device.
            record: JSON; rank 0's is written.

        Raises:
            SaveFailedError: the disk is full or broken, on any rank; raised on all. Earlier checkpoints are untouched.
            RanksDriftedError: ranks hold other tensors by name, shape or dtype; nothing was written.
        """
        self._check_same_tensors(tensors)
        aside, problem = self._prepare(images) if self._ranks.is_main else (None, None)
        self._stop_on(problem, images, aside)
        aside = self._ranks.broadcast_object(aside)
        if aside is not None:
            facts, problem = self._write_share(aside, tensors)
            self._stop_on(problem, images, aside)
            shares = self._ranks.gather_objects(facts)
            problem = self._commit(images, aside, shares, record) if self._ranks.is_main else None
            self._stop_on(problem, images, aside)
            if self._ranks.is_main:
                self._prune(images)
        return self.folder / folder_name(images)

    def load_newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that verifies on every rank, or None where the run never saved one.

        One that is damaged for any rank is renamed to `.bad-<images>`, and the one before it is tried.

        Raises:
            CheckpointError: there are checkpoints and none verifies: never a silent fresh start. Or one cannot be used
                for a reason that is no damage: a format of another version, or no permission to read it.
        """
        faults.reach("load")
        found = self._ranks.broadcast_object(self.saved() if self._ranks.is_main else [])
        reasons: list[str] = []
        for images in found:
            checkpoint, problem, is_damage = _try_to_read(self.folder / folder_name(images), images)
            reasons = self._ranks.gather_problems(problem)
            if not reasons:
                return checkpoint
            if self._ranks.any_true(problem is not None and not is_damage):
                raise CheckpointError("; ".join(reasons))
            problem = self._set_aside(images, reasons) if self._ranks.is_main else None
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

    def saved(self) -> list[int]:
        """Return the images of the checkpoints that are there, newest first; complete once, but not verified."""
        return committed(self.folder)

    def pin(self, images: int, reason: str) -> None:
        """Keep a checkpoint from being pruned, over restarts too, until `unpin`; only rank 0 calls it.

        Where there is no such checkpoint, or a pin already, nothing happens. A disk that refuses is only logged.
        """
        path = self.folder / folder_name(images)
        if not path.is_dir() or (path / PINNED).exists():
            return
        try:
            disk.write_file(path / PINNED, [f"{reason}\n".encode()])
            disk.sync_folder(path)
        except OSError as error:
            log.warning("%s could not be pinned (%s): %s", path, reason, error)

    def unpin(self, images: int) -> None:
        """Let a checkpoint be pruned again; only rank 0 calls it. A disk that refuses is only logged."""
        try:
            with contextlib.suppress(FileNotFoundError):  # it was not pinned
                disk.remove_file(self.folder / folder_name(images) / PINNED)
        except OSError as error:
            log.warning("the checkpoint after %s images could not be unpinned: %s", images, error)

    def pinned(self) -> dict[int, str]:
        """Return why each pinned checkpoint is pinned, by images."""
        paths = {images: self.folder / folder_name(images) / PINNED for images in self.saved()}
        return {images: path.read_text().strip() for images, path in paths.items() if path.is_file()}

    def _check_same_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        unknown = {name: tensor.dtype for name, tensor in tensors.items() if tensor.dtype not in DTYPE_NAMES}
        assert not unknown, f"tensors of these dtypes are not saved: {unknown}"
        form = sorted((name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items())
        digests = self._ranks.gather_objects(hashlib.sha256(repr(form).encode()).hexdigest())
        other = next((rank for rank, digest in enumerate(digests) if digest != digests[0]), None)
        if other is not None:
            raise RanksDriftedError(
                f"rank {other} holds other tensors than rank 0 (by name, shape or dtype), so nothing was saved to "
                f"{self.folder}; start again from the checkpoint before"
            )

    def _stop_on(self, problem: str | None, images: int, aside: Path | None) -> None:
        """Raise on all ranks if any has a problem, after removing what was written so far: it may need the room."""
        problems = self._ranks.gather_problems(problem)
        if not problems:
            return
        if self._ranks.is_main and aside is not None:
            with contextlib.suppress(OSError):
                disk.remove_tree(aside)
        raise SaveFailedError(
            f"the checkpoint after {images:,} images was not saved to {self.folder} ({'; '.join(problems)}); earlier "
            "ones are untouched; make room there, or choose another run_dir"
        )

    def _prepare(self, images: int) -> tuple[Path | None, str | None]:
        """Return the folder to write aside in, or None where a good checkpoint is there already; or what went wrong."""
        path = self.folder / folder_name(images)
        aside = self.folder / f"{ASIDE_PREFIX}{path.name}-{self._suffix}"
        try:
            disk.make_folder(self.folder)
            self._remove_leftovers()
            if path.exists():
                try:
                    verify(path)
                    return None, None
                except DamagedCheckpointError as error:
                    problem = self._set_aside(images, [str(error)])
                    if problem is not None:
                        return None, problem
            disk.make_folder(aside)
        except (OSError, CheckpointError) as error:
            return None, str(error)
        return aside, None

    def _write_share(self, aside: Path, tensors: Mapping[str, Tensor]) -> tuple[FileFacts | None, str | None]:
        names = deal(tensors, self._ranks.world)[self._ranks.rank]
        path = aside / part_name(self._ranks.rank, self._ranks.world)
        try:
            return disk.write_file(path, part_chunks({name: tensors[name] for name in names})), None
        except OSError as error:
            return None, str(error)

    def _commit(
        self, images: int, aside: Path, shares: Sequence[FileFacts | None], record: Mapping[str, Any]
    ) -> str | None:
        """Make what was written aside the checkpoint; return what went wrong, or None."""
        files = {part_name(rank, len(shares)): facts for rank, facts in enumerate(shares) if facts is not None}
        try:
            files[RECORD] = disk.write_file(aside / RECORD, [json.dumps(record).encode()])
            disk.write_file(aside / MANIFEST, [Manifest(images, files).render()])
            check_sizes(aside)  # a part is missing where the folder is not one that all nodes share
            disk.sync_folder(aside)
            disk.rename(aside, self.folder / folder_name(images))
        except (OSError, CheckpointError) as error:
            return str(error)
        return None

    def _prune(self, saved: int) -> None:
        """Remove what is neither among the newest nor pinned nor just saved; a failure costs room, not a checkpoint."""
        try:
            sound = [images for images in self.saved() if self._is_sound(images)]
            for images in sound[self.keep_last :]:
                if images != saved and not (self.folder / folder_name(images) / PINNED).exists():
                    trash = self.folder / f"{ASIDE_PREFIX}{folder_name(images)}-{self._suffix}-pruned"
                    disk.rename(self.folder / folder_name(images), trash)
                    disk.remove_tree(trash)
        except OSError as error:
            log.warning("old checkpoints of %s could not be removed: %s", self.folder, error)

    def _is_sound(self, images: int) -> bool:
        """Tell whether a checkpoint's files are all there in full length; one that is not must not count as kept."""
        try:
            check_sizes(self.folder / folder_name(images))
        except DamagedCheckpointError as error:
            self._set_aside(images, [str(error)])
            return False
        except CheckpointError:  # of another format: not ours to judge
            return False
        return True

    def _remove_leftovers(self) -> None:
        """Remove what killed saves and prunes left; they were never checkpoints, or are none any more."""
        for path in self.folder.glob(f"{ASIDE_PREFIX}*"):
            match = ASIDE_NAME.fullmatch(path.name)
            owner = match and ProcessStamp(match["host"], int(match["pid"]), int(match["start_ticks"]))
            if not owner or owner == self._stamp or not owner.is_alive_here:
                disk.remove_tree(path)

    def _set_aside(self, images: int, reasons: Sequence[str]) -> str | None:
        """Rename a damaged checkpoint, so that nobody uses it and a person can look at it; return what went wrong."""
        bad = self.folder / f"{BAD_PREFIX}{folder_name(images)}"
        number = 2
        while bad.exists():
            bad = self.folder / f"{BAD_PREFIX}{folder_name(images)}.{number}"
            number += 1
        try:
            disk.rename(self.folder / folder_name(images), bad)
        except OSError as error:
            return f"damaged, and could not be set aside: {error}"
        log.error("checkpoint set aside as %s: %s", bad, "; ".join(reasons))
        return None

    @property
    def _suffix(self) -> str:
        return f"{self._stamp.host}-{self._stamp.pid}-{self._stamp.start_ticks}"


def _try_to_read(path: Path, images: int) -> tuple[Checkpoint | None, str | None, bool]:
    """Return a checkpoint, or what is wrong with it and whether that is damage (what a person must look at is not)."""
    for attempt in range(READ_ATTEMPTS):
        try:
            checkpoint = read_checkpoint(path)
            if checkpoint.images != images:
                raise DamagedCheckpointError(f"{path} holds the checkpoint after {checkpoint.images:,} images")
            return checkpoint, None, False
        except DamagedCheckpointError as error:
            return None, str(error), True
        except (CheckpointError, PermissionError) as error:
            return None, str(error), False
        except OSError as error:  # a network file system may only be away for a moment; a bad sector is bad for ever
            problem = f"{path} cannot be read: {error}"
            if attempt + 1 < READ_ATTEMPTS:
                time.sleep(READ_PAUSE_S)
    return None, problem, True
