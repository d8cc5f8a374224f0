"""One line a run: where it stands, how quick it is, its best figure, what it has cost."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bigtrain.metrics.records import EvaluationRecord, best_record
from bigtrain.recipe.errors import EXIT_REQUEUE
from bigtrain.reports.evaluations import RANKING_KEYS, ranked, read_evaluations
from bigtrain.reports.reading import LOG_FILE, Event, is_number, read_log_ends, read_object, read_recipe, read_starts
from bigtrain.reports.state import State, state_of

BEGUN_FILES = (LOG_FILE, "status.json")  # of which a run has one once it was started
RECIPE_FILE = "recipe.yaml"  # alone it may be any folder's
MOST_LEVELS = 4  # below the folder that is listed: sweeps have folders of their own
RATE_LINES = 5  # status lines whose median is "images a second"
HEAD_KEYS = ("name", "total_images", *RANKING_KEYS)
STARTS = ("start", "resumed")
HOUR_S = 3600


@dataclass(frozen=True)
class Best:
    """The best value of the figure that a run is known by."""

    name: str
    value: float
    images_seen: int
    protocol: str
    """As in the name of its file, which each average has its own of."""
    group: str
    """Equal for figures that compare."""


@dataclass(frozen=True)
class Overview:
    """A run in a line."""

    name: str
    folder: Path
    state: State
    images_seen: int
    total_images: int | None
    images_per_s: float | None
    """Median of the newest status lines."""
    best: Best | None
    num_starts: int
    num_preempted: int
    """Starts that ended with "saved, start me again"."""
    device: str | None
    """cpu or cuda; None where no start was logged."""
    device_hours: float | None
    """Training time, times the processes it took; work that a kill has undone is not in it."""
    is_about: bool
    """Whether `device_hours` was reckoned from parts of the log, over several starts."""

    @property
    def left_s(self) -> float | None:
        """Time left at the newest rate; None where that is not known."""
        if self.total_images is None:
            return None
        left_images = max(0, self.total_images - self.images_seen)
        if not left_images:
            return 0.0
        return left_images / self.images_per_s if self.images_per_s else None

    @property
    def gpu_hours(self) -> float | None:
        """Device hours of a run on GPUs; None on a CPU."""
        return None if self.device in (None, "cpu") else self.device_hours

    def record(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        best = self.best and {
            "figure": self.best.name,
            "value": self.best.value,
            "images_seen": self.best.images_seen,
            "protocol": self.best.protocol,
        }
        return {
            "name": self.name,
            "run_dir": str(self.folder),
            "state": self.state.word,
            "sentence": self.state.sentence,
            "exit_status": self.state.exit_status,
            "images_seen": self.images_seen,
            "total_images": self.total_images,
            "images_per_s": self.images_per_s,
            "left_s": self.left_s,
            "best": best,
            "starts": self.num_starts,
            "preempted": self.num_preempted,
            "device": self.device,
            "device_hours": self.device_hours,
            "device_hours_are_about": self.is_about,
        }


def is_run(folder: Path) -> bool:
    """Whether a folder may be a run's: it has a log, a status, or at least a recipe."""
    return has_begun(folder) or (folder / RECIPE_FILE).is_file()


def has_begun(folder: Path) -> bool:
    """Whether a folder is that of a run which was started."""
    return any((folder / name).is_file() for name in BEGUN_FILES)


def find_runs(folder: Path, levels: int = MOST_LEVELS) -> Iterator[Path]:
    """Yield the folders of started runs in a folder, itself included, by name; runs hold no runs."""
    if has_begun(folder):
        yield folder
    elif levels:
        try:
            with os.scandir(folder) as entries:  # tells folders from files without asking for each
                names = sorted(each.name for each in entries if not each.name.startswith(".") and each.is_dir())
            inside = [folder / name for name in names]
        except OSError:
            return
        for each in inside:
            yield from find_runs(each, levels - 1)


def quick_overview(folder: Path, now_s: float | None = None) -> Overview:
    """Return a run in a line, from the ends of its log and the first keys of its recipe."""
    recipe = read_recipe(folder / RECIPE_FILE, HEAD_KEYS)
    evaluations, _ = read_evaluations(folder)
    return overview(folder, recipe, read_log_ends(folder / LOG_FILE), evaluations, now_s)


def overview(
    folder: Path,
    recipe: dict[str, Any],
    events: Sequence[Event],
    evaluations: Sequence[EvaluationRecord],
    now_s: float | None = None,
) -> Overview:
    """Return a run in a line, from what was read of it; whatever is missing is None.

    Args:
        folder: of the run.
        recipe: as `read_recipe` gives it.
        events: of the log, or of its ends.
        evaluations: of the run.
        now_s: seconds since 1970; None: now.
    """
    starts = read_starts(folder)
    total = recipe.get("total_images")
    rates = [event["images_per_s"] for event in events if is_number(event.get("images_per_s"))]
    begun = [event for event in events if event["event"] in STARTS]
    reached = read_object(folder / "status.json").get("images_seen")
    return Overview(
        name=str(recipe.get("name") or folder.resolve().name),
        folder=folder,
        state=state_of(folder, starts, now_s),
        images_seen=int(max([0, *(event["images_seen"] for event in events), reached if is_number(reached) else 0])),
        total_images=int(total) if is_number(total) else None,
        images_per_s=median(rates[-RATE_LINES:]) if rates else None,
        best=best_of(recipe, evaluations),
        num_starts=max(len(starts), len(begun)),
        num_preempted=sum(start.get("exit_status") == EXIT_REQUEUE for start in starts),
        device=str(begun[-1]["device"]).partition(":")[0] if begun and begun[-1].get("device") else None,
        device_hours=device_hours(events),
        is_about=len(starts) > 1 and len(begun) < len(starts),
    )


def best_of(recipe: dict[str, Any], evaluations: Sequence[EvaluationRecord]) -> Best | None:
    """Return the best value of the figure that a run is ranked by, which is what `bigtrain best` says first."""
    figure, having = ranked(recipe, evaluations)
    best = best_record(having, figure)
    if best is None:
        return None
    return Best(figure, best.figures[figure], best.images_seen, best.protocol_name, best.group)


def device_hours(events: Sequence[Event]) -> float | None:
    """Return training time times processes, summed over the starts; None where no start was logged."""
    total_s, world, since_s = 0.0, None, 0.0
    for event in events:
        time_s = event["time_s"]
        if time_s is not None:
            total_s += max(0.0, time_s - since_s) * (world or 1)
            since_s = max(since_s, time_s)
        if event["event"] in STARTS and is_number(event.get("world")):
            world = event["world"]
    return None if world is None else total_s / HOUR_S
