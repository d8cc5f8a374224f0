"""The rollbacks of a run on disk: a small file beside the checkpoints, which no checkpoint and no log can say.

A checkpoint cannot know that the run later came back to it, and a resume cuts the log back. So this file, written
before the run goes on, is what keeps the number of rollbacks bounded over restarts, and what makes a restart draw other
noise than the trajectory that failed.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from bigtrain.engine.checkpoints import disk
from bigtrain.engine.checkpoints.files import BAD_PREFIX, committed, folder_name
from bigtrain.recipe.errors import CheckpointError
from bigtrain.sampling.files import written_aside

LEDGER = "rollbacks.json"


@dataclass(frozen=True)
class Rollback:
    """One rollback: from where to where, the salt of the draws since, and why."""

    from_images: int
    to_images: int
    salt: int
    reason: str


def read_rollbacks(folder: Path) -> list[Rollback]:
    """Return the rollbacks noted in a checkpoints folder, oldest first.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / LEDGER
    if not path.is_file():
        return []
    try:
        return [Rollback(**entry) for entry in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not a list of rollbacks ({error}); remove it to go on with the draws of the newest checkpoint"
        ) from error


def is_abandoned(rollbacks: Iterable[Rollback], images: int, salt: int) -> bool:
    """Tell whether what the run was after that many images, under that salt, is of a part that it went back from."""
    return any(salt < entry.salt and images > entry.to_images for entry in rollbacks)


def note_rollback(folder: Path, entry: Rollback) -> None:
    """Add an entry; on disk when it returns, whole or not at all. Only rank 0 calls it."""
    entries = [*read_rollbacks(folder), entry]
    with written_aside(folder / LEDGER) as stream:
        stream.write((json.dumps([asdict(each) for each in entries], indent=1) + "\n").encode())
    disk.sync_folder(folder)


def abandon_checkpoints(folder: Path, after_images: int) -> None:
    """Rename every checkpoint of more images, as damaged ones are, so that nothing resumes from it; rank 0 only."""
    for images in committed(folder):
        if images > after_images:
            name = f"{BAD_PREFIX}{folder_name(images)}"
            number = 2
            while (folder / name).exists():
                name, number = f"{BAD_PREFIX}{folder_name(images)}.{number}", number + 1
            disk.rename(folder / folder_name(images), folder / name)
