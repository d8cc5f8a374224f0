"""Snapshots: one safetensors file with the averaged networks and, as JSON in its metadata, all that is needed to
sample from them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from bigtrain.recipe.errors import CheckpointError
from bigtrain.sampling.files import written_aside
from bigtrain.training.retention import newest_winner
from bigtrain.training.state import facts_record

if TYPE_CHECKING:
    from bigtrain.training.run import Run

SNAPSHOT_FORMAT = "bigtrain-snapshot-1"


def write_snapshot(run: "Run") -> Path:
    """Write RUN/snapshots/<images>.safetensors and return its path."""
    path = run.folder / "snapshots" / f"{run.progress.images_seen:012d}.safetensors"
    winner = newest_winner(run.folder)
    record = {
        "progress": run.progress.record(),
        "recipe": run.recipe.model_dump(mode="json"),
        "best_average": None if winner is None else {"average": winner.average, "images_seen": winner.images_seen},
        **facts_record(run),
    }
    tensors = {f"average/{name}": tensor.contiguous() for name, tensor in run.averages.state().items()}
    with written_aside(path) as stream:
        stream.write(save(tensors, metadata={"format": SNAPSHOT_FORMAT, "record": json.dumps(record)}))
    return path


def snapshot_record(path: Path) -> dict[str, Any]:
    """Return a snapshot's record without its tensors.

    Raises:
        CheckpointError: the file is missing, cut short, or no snapshot.
    """
    return _read(path, with_tensors=False)[1]


def read_snapshot(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a snapshot's tensors and record.

    Raises:
        CheckpointError: the file is missing, cut short, or no snapshot.
    """
    return _read(path, with_tensors=True)


def _read(path: Path, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != SNAPSHOT_FORMAT:
                raise CheckpointError(
                    f"{path} is no snapshot of bigtrain (format {metadata.get('format')!r}); name a run, a "
                    f"checkpoint or a file of RUN/snapshots"
                )
            names = list(file.keys()) if with_tensors else []
            tensors = {name: file.get_tensor(name) for name in names}
        return tensors, json.loads(metadata["record"])
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a snapshot ({error}); copy it again, or name another one"
        ) from error
