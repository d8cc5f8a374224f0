"""The rollbacks of a run on disk: a small file beside the checkpoints, which no checkpoint and no log can say.

A checkpoint cannot know that the run later came back to it, and a resume cuts the log back. So this file, written
before the run goes on, is what keeps the number of rollbacks bounded over restarts, and what makes a restart draw other
noise than the trajectory that failed. Reading it does not import torch.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from bigtrain.engine.checkpoints.names import folder_name
from bigtrain.metrics.records import EvaluationRecord, read_records
from bigtrain.recipe.errors import CheckpointError

LEDGER = "rollbacks.json"


@dataclass(frozen=True)
class Rollback:
    """One rollback: from where to where, the salt of the draws since, and why."""

    from_images: int
    to_images: int
    salt: int
    reason: str


class Moment(Protocol):
    """What is of one moment of a run: an evaluation, a truncation curve, an audit."""

    @property
    def images_seen(self) -> int:
        """Of the weights that it is of."""
        ...

    @property
    def salt(self) -> int:
        """Of the draws that these were trained with; files that do not say it are of 0."""
        ...


Kept = TypeVar("Kept", bound=Moment)


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


def present_records(run_folder: Path) -> list[EvaluationRecord]:
    """Return a run's evaluations by images seen, but for those of parts that the run went back from."""
    return without_abandoned(run_folder, read_records(run_folder))


def without_abandoned(run_folder: Path, records: Iterable[Kept]) -> list[Kept]:
    """Return those of what was found out about a run that are not of parts that the run went back from."""
    try:
        rollbacks = read_rollbacks(run_folder / "checkpoints")
    except CheckpointError:  # damaged: a start says so
        rollbacks = []
    return [record for record in records if not is_abandoned(rollbacks, record.images_seen, record.salt)]


def note_rollback(folder: Path, entry: Rollback) -> None:
    """Add an entry; on disk when it returns, whole or not at all. Only rank 0 calls it."""
    from bigtrain.engine.checkpoints import disk  # here: these import torch, which readers do without
    from bigtrain.sampling.files import written_aside

    entries = [*read_rollbacks(folder), entry]
    with written_aside(folder / LEDGER) as stream:
        stream.write((json.dumps([asdict(each) for each in entries], indent=1) + "\n").encode())
    disk.sync_folder(folder)


def abandon_checkpoints(folder: Path, after_images: int) -> None:
    """Rename every checkpoint of more images, as damaged ones are, so that nothing resumes from it; rank 0 only."""
    from bigtrain.engine.checkpoints import disk
    from bigtrain.engine.checkpoints.files import BAD_PREFIX, committed

    for images in committed(folder):
        if images > after_images:
            name = f"{BAD_PREFIX}{folder_name(images)}"
            number = 2
            while (folder / name).exists():
                name, number = f"{BAD_PREFIX}{folder_name(images)}.{number}", number + 1
            disk.rename(folder / folder_name(images), folder / name)
