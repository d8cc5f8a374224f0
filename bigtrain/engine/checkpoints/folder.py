"""The checkpoints folder of a run as one process sees it: writing aside, committing, keeping, setting aside.

Nothing here speaks to other ranks. The thread that saves and the thread that trains may both use it.
"""

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from bigtrain.engine.checkpoints import disk
from bigtrain.engine.checkpoints.disk import FileFacts
from bigtrain.engine.checkpoints.files import (
    BAD_PREFIX,
    PINNED,
    RECORD,
    DamagedCheckpointError,
    Manifest,
    check_sizes,
    committed,
    verify,
)
from bigtrain.engine.checkpoints.names import MANIFEST, folder_name
from bigtrain.engine.processes.identity import ProcessStamp
from bigtrain.recipe.errors import CheckpointError

ASIDE_PREFIX = ".tmp-"
ASIDE_NAME = re.compile(r"\.tmp-\d+-(?P<host>.+)-(?P<pid>\d+)-(?P<start_ticks>\d+)(-pruned)?")

log = logging.getLogger(__name__)


class CheckpointFolder:
    """RUN/checkpoints; nothing is read or written before a method is called."""

    def __init__(self, folder: Path, keep_last: int) -> None:
        self.folder = folder
        self.keep_last = keep_last
        self.wanted: Callable[[Sequence[int]], Collection[int]] = lambda saved: ()
        """Which of the sound checkpoints, newest first, stay besides the newest and the pinned; asked before each
        pruning, by the thread that prunes."""
        self._stamp = ProcessStamp.own()
        self._retention = threading.Lock()  # so that a pin never lands in a folder that is on its way out

    def saved(self) -> list[int]:
        """Return the images of the checkpoints that are there, newest first; complete once, but not verified."""
        return committed(self.folder)

    def place(self, images: int) -> Path:
        """Return where the checkpoint after that many images is, or would be."""
        return self.folder / folder_name(images)

    def open_aside(self, images: int) -> Path | None:
        """Return an empty folder to write a checkpoint in, or None where a good one of these images is there already.

        A damaged one of these images is set aside, and leftovers of killed saves are removed.

        Raises:
            OSError, CheckpointError: the disk refuses.
        """
        disk.make_folder(self.folder)
        self._remove_leftovers()
        if self.place(images).exists():
            try:
                verify(self.place(images))
                return None
            except DamagedCheckpointError as error:
                self.set_aside(images, [str(error)])
        aside = self.folder / f"{ASIDE_PREFIX}{folder_name(images)}-{self._suffix}"
        disk.make_folder(aside)
        return aside

    def commit(self, images: int, aside: Path, parts: Mapping[str, FileFacts], record: bytes) -> None:
        """Make what was written aside the checkpoint; the rename is the one commit point.

        Raises:
            OSError, CheckpointError: the disk refuses, or a part is missing: not all nodes share this folder.
        """
        files = {**parts, RECORD: disk.write_file(aside / RECORD, [record])}
        disk.write_file(aside / MANIFEST, [Manifest(images, files).render()])
        check_sizes(aside)
        disk.sync_folder(aside)
        disk.rename(aside, self.place(images))

    def prune(self, saved: int) -> None:
        """Remove what is neither among the newest nor pinned nor just saved; a failure costs room, not a checkpoint."""
        try:
            sound = [images for images in self.saved() if self._is_sound(images)]
            wanted = self.wanted(sound)
            for images in sound[self.keep_last :]:
                trash = self.folder / f"{ASIDE_PREFIX}{folder_name(images)}-{self._suffix}-pruned"
                with self._retention:
                    is_kept = images == saved or images in wanted or (self.place(images) / PINNED).exists()
                    if not is_kept:
                        disk.rename(self.place(images), trash)
                if not is_kept:
                    disk.remove_tree(trash)
        except OSError as error:
            log.warning("old checkpoints of %s could not be removed: %s", self.folder, error)

    def set_aside(self, images: int, reasons: Sequence[str]) -> None:
        """Rename a damaged checkpoint, so that nobody uses it and a person can look at it.

        Raises:
            CheckpointError: the disk refuses.
        """
        bad = self.folder / f"{BAD_PREFIX}{folder_name(images)}"
        number = 2
        while bad.exists():
            bad = self.folder / f"{BAD_PREFIX}{folder_name(images)}.{number}"
            number += 1
        try:
            disk.rename(self.place(images), bad)
        except OSError as error:
            raise CheckpointError(f"damaged, and could not be set aside: {error}") from error
        log.error("checkpoint set aside as %s: %s", bad, "; ".join(reasons))

    def pin(self, images: int, reason: str) -> None:
        """Keep a checkpoint from being pruned, over restarts too, until `unpin`; only rank 0 calls it.

        Where there is no such checkpoint, or a pin already, nothing happens. A disk that refuses is only logged.
        """
        path = self.place(images)
        with self._retention:
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
            with self._retention, contextlib.suppress(FileNotFoundError):  # it was not pinned
                disk.remove_file(self.place(images) / PINNED)
        except OSError as error:
            log.warning("the checkpoint after %s images could not be unpinned: %s", images, error)

    def pinned(self) -> dict[int, str]:
        """Return why each pinned checkpoint is pinned, by images."""
        with self._retention:
            paths = {images: self.place(images) / PINNED for images in self.saved()}
            return {images: path.read_text().strip() for images, path in paths.items() if path.is_file()}

    def _is_sound(self, images: int) -> bool:
        """Tell whether a checkpoint's files are all there in full length; one that is not must not count as kept."""
        try:
            check_sizes(self.place(images))
        except DamagedCheckpointError as error:
            try:
                self.set_aside(images, [str(error)])
            except CheckpointError as stuck:
                log.warning("%s: %s", self.place(images), stuck)
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

    @property
    def _suffix(self) -> str:
        return f"{self._stamp.host}-{self._stamp.pid}-{self._stamp.start_ticks}"
