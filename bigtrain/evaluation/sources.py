"""What there is of a run to evaluate: its snapshots and checkpoints, oldest first, one of each number of images.

Read by a process beside the run: whatever is listed here may be pruned, set aside or replaced at any moment.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bigtrain.engine.checkpoints.files import committed, read_checkpoint
from bigtrain.engine.checkpoints.names import folder_name
from bigtrain.engine.checkpoints.rollbacks import Rollback, is_abandoned, read_rollbacks
from bigtrain.recipe.errors import CheckpointError
from bigtrain.training.loaded import LoadedModel
from bigtrain.training.snapshot import read_snapshot, snapshot_record

Kind = Literal["both", "checkpoints", "snapshots"]


@dataclass(frozen=True)
class Source:
    """Weights of one moment of a run."""

    images_seen: int
    path: Path

    def read(self, average: str | None = None) -> list[LoadedModel]:
        """Return a model for each moving average or for one, every byte verified where it is a checkpoint.

        Raises:
            CheckpointError: it is damaged, or has gone.
            UsageError: there is no such average.
        """
        if self.path.is_dir() or not self.path.suffix:
            checkpoint = read_checkpoint(self.path)
            tensors, record = checkpoint.tensors, checkpoint.record
        else:
            tensors, record = read_snapshot(self.path)
        first = LoadedModel(self.path, tensors, record, average)
        if average is not None:
            return [first]
        return [first, *(LoadedModel(self.path, tensors, record, each.name) for each in first.recipe.ema[1:])]

    def has_gone(self) -> bool:
        """Tell whether it was pruned or set aside meanwhile."""
        return not self.path.exists()


def sources(run_folder: Path, kind: Kind = "both") -> list[Source]:
    """Return what is there now; where there are both, the snapshot: it is small and stays."""
    found: dict[int, Source] = {}
    if kind != "snapshots":
        folder = run_folder / "checkpoints"
        found |= {images: Source(images, folder / folder_name(images)) for images in committed(folder)}
    if kind != "checkpoints":
        rollbacks = _rollbacks(run_folder)  # without any, nothing needs to be opened
        for path in (run_folder / "snapshots").glob("*.safetensors"):
            if path.stem.isdigit() and not (rollbacks and _is_stale(path, rollbacks)):
                found[int(path.stem)] = Source(int(path.stem), path)
    return [found[images] for images in sorted(found)]


def is_present(run_folder: Path, images: int, salt: int) -> bool:
    """Tell whether weights are of the run as it stands, not of a part that it went back from."""
    return not is_abandoned(_rollbacks(run_folder), images, salt)


def _is_stale(snapshot: Path, rollbacks: list[Rollback]) -> bool:
    """Tell whether a snapshot is of a part that the run went back from; one that cannot be read is left to be named."""
    try:
        return is_abandoned(rollbacks, int(snapshot.stem), int(snapshot_record(snapshot)["progress"]["salt"]))
    except (CheckpointError, KeyError, TypeError, ValueError):
        return False


def _rollbacks(run_folder: Path) -> list[Rollback]:
    try:
        return read_rollbacks(run_folder / "checkpoints")
    except CheckpointError:  # damaged: a start says so
        return []


def state_of(run_folder: Path) -> str:
    """Return how a run stands in the words of its status.json; empty before it has begun."""
    try:
        status: Any = json.loads((run_folder / "status.json").read_text())
        return str(status["state"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
