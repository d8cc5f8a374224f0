"""Projections of the log to TensorBoard and Weights & Biases through Accelerate's trackers. The log stays the truth."""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from bigtrain.draws import seed_of
from bigtrain.recipe.errors import UsageError


def _tensorboard(run_name: str, folder: Path, resumed_images: int) -> GeneralTracker:
    # What an earlier start wrote past its last checkpoint is played again, so its points are taken back.
    return TensorBoardTracker("tensorboard", folder, purge_step=resumed_images + 1)


def _wandb(run_name: str, folder: Path, resumed_images: int) -> GeneralTracker:
    identity = f"{seed_of(str(folder.resolve())):x}"  # the same run folder is the same W&B run after a restart
    return WandBTracker("bigtrain", name=run_name, dir=str(folder), id=identity, resume="allow")


TRACKERS: dict[str, Callable[[str, Path, int], GeneralTracker]] = {"tensorboard": _tensorboard, "wandb": _wandb}
"""Name of a key of the recipe's `log` section (and of the package behind it) -> tracker."""


def check_installed(names: tuple[str, ...]) -> None:
    """Raise a UsageError for a tracker whose package is missing, before anything is trained."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"log.{name}: true needs the package {name}, which is not installed; pip install 'bigtrain[{name}]'"
            )


class Trackers:
    """Hands figures to the trackers that a recipe asks for, on the main process; none is fine."""

    def __init__(
        self, accelerator: Accelerator, names: tuple[str, ...], run_name: str, folder: Path, resumed_images: int
    ) -> None:
        self._accelerator = accelerator
        if names:
            accelerator.log_with = [TRACKERS[name](run_name, folder, resumed_images) for name in names]
            accelerator.init_trackers("bigtrain")

    def log(self, figures: Mapping[str, float], images_seen: int) -> list[str]:
        """Send scalars; the axis is images seen. Return what went wrong: a tracker that fails gets nothing more."""
        return self._each(lambda tracker: tracker.log(dict(figures), step=images_seen))

    def close(self) -> list[str]:
        """Flush and end every tracker, and return what went wrong: it costs a projection, not the run."""
        failures = self._each(lambda tracker: tracker.finish())  # not end_training, which leaves the process group too
        self._accelerator.trackers = []  # nor may that end them again
        return failures

    def _each(self, action: Callable[[GeneralTracker], object]) -> list[str]:
        failures = []
        for tracker in list(self._accelerator.trackers):
            try:
                action(tracker)
            except Exception as error:  # a tracker is another's program: whatever it raises
                self._accelerator.trackers.remove(tracker)
                failures.append(f"{tracker.name} failed and is left out from now on ({type(error).__name__}: {error})")
        return failures
