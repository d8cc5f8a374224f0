"""Everything that a page or a plot shows of one run, read once from its folder, with a note for each part that is
missing or damaged."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigtrain.engine.checkpoints.rollbacks import without_abandoned
from bigtrain.metrics.records import EVALUATIONS, EvaluationRecord
from bigtrain.recipe.errors import UsageError
from bigtrain.reports.evaluations import read_evaluations
from bigtrain.reports.overview import Overview, is_run, overview
from bigtrain.reports.reading import (
    LOG_FILE,
    Event,
    is_number,
    numbers,
    read_events,
    read_object,
    read_recipe,
    read_starts,
)

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
FOLDERS_OF_PICTURES = ("figures", "projections")


@dataclass(frozen=True)
class Curve:
    """Figures over thresholds of truncation: one file of RUN/curves/."""

    images_seen: int
    salt: int
    law: str
    points: list[tuple[float, dict[str, float]]]
    """Threshold and figures, by threshold."""
    protocol: dict[str, Any]
    protocol_name: str


@dataclass(frozen=True)
class Audit:
    """One file of RUN/audits/."""

    images_seen: int
    salt: int
    record: dict[str, Any]
    pictures: dict[str, Path]
    """Title -> file."""


@dataclass(frozen=True)
class RunRecord:
    """One run, read."""

    folder: Path
    label: str
    """Its name; with its folder where another run of the same page has the same name."""
    overview: Overview
    recipe: dict[str, Any]
    events: list[Event]
    starts: list[dict[str, Any]]
    evaluations: list[EvaluationRecord]
    curves: list[Curve]
    audits: list[Audit]
    samples: list[tuple[int, Path]]
    """Images seen and grid, in that order."""
    pictures: dict[str, list[Path]]
    """Folder -> pictures in it."""
    others: list[Path]
    """Files beside the pictures, which no page holds: films."""
    notes: list[str] = field(default_factory=list)
    """What is missing or damaged, a sentence each."""

    @property
    def status_lines(self) -> list[Event]:
        """The log's status lines."""
        return [event for event in self.events if event["event"] == "status"]


def read_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """Return the runs in some folders, in this order; names that are there twice are told apart by their folders.

    Raises:
        UsageError: one of them is not a run's folder.
    """
    for folder in folders:
        if not folder.is_dir() or not is_run(folder):
            raise UsageError(f"{folder} is not a run's folder; name one with a log.jsonl, as `bigtrain ls` lists them")
    names = [
        str(read_recipe(folder / "recipe.yaml", ["name"]).get("name") or folder.resolve().name) for folder in folders
    ]
    labels = [
        name if names.count(name) == 1 else f"{name} ({folder})" for name, folder in zip(names, folders, strict=True)
    ]
    return [read_run(folder, label) for folder, label in zip(folders, labels, strict=True)]


def read_run(folder: Path, label: str) -> RunRecord:
    """Return a run; what cannot be read is left out, and noted."""
    recipe = read_recipe(folder / "recipe.yaml")
    events, num_torn = read_events(folder / LOG_FILE)
    evaluations, notes = read_evaluations(folder)
    all_curves, damaged_curves = _read_curves(folder / "curves")
    all_audits, damaged_audits = _read_audits(folder / "audits")
    curves, audits = without_abandoned(folder, all_curves), without_abandoned(folder, all_audits)
    samples = _read_samples(folder / "samples")
    found = _pictures(folder)
    record = RunRecord(
        folder=folder,
        label=label,
        overview=overview(folder, recipe, events, evaluations),
        recipe=recipe,
        events=events,
        starts=read_starts(folder),
        evaluations=evaluations,
        curves=curves,
        audits=audits,
        samples=samples,
        pictures={name: [path for path in paths if path.suffix.lower() in PICTURES] for name, paths in found.items()},
        others=[path for paths in found.values() for path in paths if path.suffix.lower() not in PICTURES],
    )
    if num_torn:
        record.notes.append(f"{num_torn} line(s) of {LOG_FILE} could not be read, and are left out.")
    record.notes.extend(notes)
    for num_left, what in (
        (len(all_curves) - len(curves), "truncation curve(s) measured"),
        (len(all_audits) - len(audits), "audit(s) examined"),
    ):
        if num_left:
            record.notes.append(f"The run went back from what {num_left} {what}: left out.")
    for name in (*damaged_curves, *damaged_audits):
        record.notes.append(f"{name} could not be read, and is left out.")
    record.notes.extend(_missing(record))
    return record


def _missing(record: RunRecord) -> list[str]:
    there = {
        "recipe.yaml is missing or cannot be read: no recipe.": record.recipe,
        f"{LOG_FILE} is missing or empty: no curves and no events.": record.events,
        "There are no status lines yet: no curves.": record.status_lines or not record.events,
        "samples/ is missing or empty: no time-lapse.": record.samples,
        "evaluations/ is missing or empty: no figures.": _has_records(record.folder / EVALUATIONS),
        "curves/ is missing or empty: no truncation curve.": _has_records(record.folder / "curves"),
        "audits/ is missing or empty: no audit.": _has_records(record.folder / "audits"),
    }
    return [sentence for sentence, found in there.items() if not found]


def _has_records(folder: Path) -> bool:
    return any(folder.glob("*.json"))


def _read_curves(folder: Path) -> tuple[list[Curve], list[str]]:
    found, damaged = [], []
    for path in sorted(folder.glob("*.json")):
        record = read_object(path)
        listed = record.get("points")
        points = [
            (float(point["threshold"]), numbers(point.get("figures")))
            for point in (listed if isinstance(listed, list) else [])
            if isinstance(point, dict) and is_number(point.get("threshold")) and numbers(point.get("figures"))
        ]
        if not points or not is_number(record.get("images_seen")):
            damaged.append(path.name)
            continue
        protocol = record.get("protocol")
        found.append(
            Curve(
                images_seen=int(record["images_seen"]),
                salt=_salt_of(record),
                law=str(record.get("law", "truncation")),
                points=sorted(points, key=lambda point: point[0]),
                protocol=protocol if isinstance(protocol, dict) else {},
                protocol_name=path.stem.partition("-")[2] or "unnamed",
            )
        )
    return found, damaged


def _read_audits(folder: Path) -> tuple[list[Audit], list[str]]:
    found, damaged = [], []
    for path in sorted(folder.glob("*.json")):
        record = read_object(path)
        if not record:
            damaged.append(path.name)
            continue
        images, named = record.get("images_seen"), record.get("pictures")
        pictures = {
            str(title): folder / Path(str(name)).name  # never a file elsewhere
            for title, name in (named.items() if isinstance(named, dict) else ())
        }
        found.append(Audit(int(images) if is_number(images) else 0, _salt_of(record), record, pictures))
    return found, damaged


def _salt_of(record: dict[str, Any]) -> int:
    salt = record.get("salt")
    return int(salt) if is_number(salt) else 0


def _read_samples(folder: Path) -> list[tuple[int, Path]]:
    return sorted((int(path.stem), path) for path in folder.glob("*.png") if path.stem.isdigit())


def _pictures(folder: Path) -> dict[str, list[Path]]:
    return {
        name: sorted(path for path in (folder / name).rglob("*") if path.is_file() and not path.name.startswith("."))
        for name in FOLDERS_OF_PICTURES
    }
