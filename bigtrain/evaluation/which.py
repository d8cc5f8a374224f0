"""Which of a run's checkpoints and snapshots is meant by `newest`, `best` or a number of images seen."""

from pathlib import Path

from bigtrain.engine.checkpoints.files import newest_complete
from bigtrain.evaluation.best import kept_only, standings, weights_of
from bigtrain.evaluation.run_folders import is_run
from bigtrain.recipe.errors import BigtrainError, CheckpointError, UsageError
from bigtrain.recipe.load import load_recipe
from bigtrain.recipe.units import parse_count
from bigtrain.training.schema import Recipe

NEWEST, BEST = "newest", "best"
ALL_AVERAGES = "all"


def find_model(path: Path, checkpoint: str = NEWEST, by: str | None = None, average: str | None = None) -> Path:
    """Return the checkpoint folder or snapshot file that is meant.

    Args:
        path: a run folder; a checkpoint or snapshot is returned as it is.
        checkpoint: `newest`, `best`, or images seen, such as 64000 or 64k.
        by: the figure that makes the best one; None: the one that the run's recipe ranks by.
        average: the moving average that is to be loaded, whose evaluations say what is best; None: the recipe's first.
            ALL_AVERAGES: any.

    Raises:
        CheckpointError: there is no such checkpoint.
        UsageError: a choice among checkpoints where there is no run, no number of images, or nothing was evaluated.
    """
    if not is_run(path):
        if checkpoint != NEWEST or by is not None:
            raise UsageError(f"{path} is no run, so nothing is to be chosen in it; leave --checkpoint and --by out")
        return path
    if by is not None and checkpoint != BEST:
        raise UsageError(f"--by {by} says which checkpoint is best; add --checkpoint best")
    if checkpoint == NEWEST:
        return _newest(path)
    return _best(path, by, average) if checkpoint == BEST else _of_images(path, checkpoint)


def _first_average(run: Path) -> str | None:
    """Return the average that is loaded where none is named; None where the recipe cannot be read."""
    try:
        return load_recipe(run / "recipe.yaml", [], Recipe).ema[0].name
    except BigtrainError:
        return None


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


def _best(run: Path, by: str | None, average: str | None) -> Path:
    """Return what evaluated best among what is there, under the protocol that the run itself is ranked by."""
    average = None if average == ALL_AVERAGES else average or _first_average(run)
    found = kept_only(standings(run, by, average)[0])
    path = weights_of(run, found.best)
    assert path is not None, "kept_only leaves what is there"
    return path
