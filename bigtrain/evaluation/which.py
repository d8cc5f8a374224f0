"""Which of a run's checkpoints and snapshots is meant by `newest`, `best` or a number of images seen."""

import math
from pathlib import Path

from bigtrain.engine.checkpoints.files import newest_complete
from bigtrain.recipe.errors import CheckpointError, UsageError
from bigtrain.recipe.registry import nearest
from bigtrain.recipe.units import parse_count
from bigtrain.reports.evaluations import newest_protocol, over_time, read_evaluations

NEWEST, BEST = "newest", "best"


def find_model(path: Path, checkpoint: str = NEWEST, by: str | None = None) -> Path:
    """Return the checkpoint folder or snapshot file that is meant.

    Args:
        path: a run folder; a checkpoint or snapshot is returned as it is.
        checkpoint: `newest`, `best`, or images seen, such as 64000 or 64k.
        by: the figure that makes the best one; None: the first of each evaluation.

    Raises:
        CheckpointError: there is no such checkpoint.
        UsageError: a choice among checkpoints where there is no run, or no number of images.
    """
    if not ((path / "checkpoints").is_dir() or (path / "recipe.yaml").is_file()):
        if checkpoint != NEWEST or by is not None:
            raise UsageError(f"{path} is no run, so nothing is to be chosen in it; leave --checkpoint and --by out")
        return path
    if by is not None and checkpoint != BEST:
        raise UsageError(f"--by {by} says which checkpoint is best; add --checkpoint best")
    if checkpoint == NEWEST:
        return _newest(path)
    return _best(path, by) if checkpoint == BEST else _of_images(path, checkpoint)


def _newest(run: Path) -> Path:
    folder = newest_complete(run / "checkpoints") if (run / "checkpoints").is_dir() else None
    if folder is not None:
        return folder
    snapshots = sorted((run / "snapshots").glob("*.safetensors"))
    if not snapshots:
        raise CheckpointError(f"{run} holds no usable checkpoint and no snapshot; train it, or name another run")
    return snapshots[-1]


def _of_images(run: Path, text: str) -> Path:
    try:
        images = int(str(parse_count(text)))
    except ValueError as error:
        raise UsageError(f"--checkpoint {text}: not newest, best or a number of images seen ({error})") from error
    found = _saved(run).get(images)
    if found is None:
        known = ", ".join(f"{each}" for each in sorted(_saved(run))) or "none"
        raise CheckpointError(f"{run} has no checkpoint and no snapshot of {images} images; it has: {known}")
    return found


def _saved(run: Path) -> dict[int, Path]:
    """Return what is there, by images seen; a checkpoint rather than a snapshot of the same images."""
    paths = [*(run / "snapshots").glob("*.safetensors"), *(run / "checkpoints").glob("*")]
    return {int(path.name.partition(".")[0]): path for path in paths if path.name.partition(".")[0].isdigit()}


def _best(run: Path, by: str | None) -> Path:
    """Return what evaluated best among what is there, under the newest protocol with this figure: figures of two
    protocols are never compared."""
    saved = _saved(run)
    found, _ = read_evaluations(run / "evaluations")
    known = sorted({name for each in found for name in each.figures})
    with_figure = [each for each in found if by is None or by in each.figures]
    if by is not None and found and not with_figure:
        close = nearest(by, known)
        hint = f"did you mean '{close}'?" if close else f"there are {', '.join(known)}"
        raise UsageError(f"no evaluation of {run} has a figure '{by}'; {hint}")
    protocol = newest_protocol(with_figure, None)
    comparable = [each for each in with_figure if each.protocol_name == protocol and each.images_seen in saved]
    if not comparable:
        raise CheckpointError(
            f"{run} has no checkpoint or snapshot that was evaluated; evaluate one first, or leave --checkpoint out"
        )
    figure = by or next(iter(comparable[0].figures))
    values = [(each.images_seen, each.figures[figure]) for each in comparable if math.isfinite(each.figures[figure])]
    return saved[over_time(values, figure).best_images]
