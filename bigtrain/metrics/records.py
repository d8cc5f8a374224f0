"""Evaluations on disk: RUN/evaluations/<images>-<protocol>.json, one file an evaluation of one moving average.

    {"images_seen": 64000, "average": "ema-3000", "salt": 0, "by": "training", "best_average": "ema-3000",
     "figures": {"fd_classifier": 0.74, ...}, "protocol": {...}}

The run writes some of them and watchers beside it the others, each by rename; so whoever reads takes the folder as it
is and leaves out what is no evaluation. `salt` is 0, or the number of rollbacks before: with the images it says which
weights were judged. Files without `average`, `salt` and `by` are from before there were watchers. Nothing here needs
torch.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigtrain.metrics.figures import badness, is_finite

EVALUATIONS = "evaluations"
TRAINING = "training"
WATCH = "watch"
ASKED = "evaluate"
NAME = re.compile(r"(?P<images>\d{12,})-(?P<protocol>.+)\.json")
NOT_SHARED = ("versions", "named")  # of a protocol: what figures need not share to be compared


@dataclass(frozen=True)
class EvaluationRecord:
    """One evaluation of one average, as its file says it."""

    path: Path
    images_seen: int
    figures: dict[str, float]
    """Those that are finite."""
    protocol: dict[str, Any]
    average: str
    salt: int = 0
    by: str = TRAINING
    """Who evaluated: the training itself, a watcher beside it, or somebody who asked."""
    best_average: str | None = None
    """Of the averages that were evaluated at the same moment, where there were several."""
    details: dict[str, Any] = field(default_factory=dict)
    """What is too long for figures: distances by class, or by number of images."""

    @property
    def protocol_name(self) -> str:
        """The protocol with its average, as the file's name has it."""
        return self.path.stem.partition("-")[2]

    @property
    def group(self) -> str:
        """A key of the protocol but for the average: figures of one group compare. It is in no file's name; what users
        read is `name_of`."""
        shared = {key: value for key, value in self.protocol.items() if key not in NOT_SHARED}
        sampling = {key: value for key, value in shared.get("sampling", {}).items() if key != "average"}
        text = json.dumps({**shared, "sampling": sampling}, sort_keys=True)
        return f"{self.protocol_name.rpartition('-')[0]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def render(self) -> bytes:
        """Return the file's bytes."""
        best = {} if self.best_average is None else {"best_average": self.best_average}
        facts = {"images_seen": self.images_seen, "average": self.average, "salt": self.salt, "by": self.by, **best}
        details = {"details": self.details} if self.details else {}
        content = {**facts, "figures": self.figures, **details, "protocol": self.protocol}
        return (json.dumps(content, indent=1) + "\n").encode()


def read_records(run_folder: Path) -> list[EvaluationRecord]:
    """Return the evaluations of a run by images seen and name; files that are none, or are damaged, are left out."""
    paths = sorted((run_folder / EVALUATIONS).glob("*.json"))
    return [record for path in paths if (record := read_record(path)) is not None]


def read_record(path: Path) -> EvaluationRecord | None:
    """Return what one file says; None where it is no evaluation, is damaged, or has gone meanwhile."""
    match = NAME.fullmatch(path.name)
    try:
        content = json.loads(path.read_text())
        images, figures, protocol = content["images_seen"], content["figures"], content["protocol"]
        average = content.get("average") or protocol["sampling"]["average"]
        if match is None or images != int(match["images"]) or not isinstance(protocol.get("sampling", {}), dict):
            return None
        return EvaluationRecord(
            path=path,
            images_seen=images,
            figures={name: float(value) for name, value in figures.items() if is_finite(value)},
            protocol=dict(protocol),
            average=str(average),
            salt=int(content.get("salt", 0)),
            by=str(content.get("by", TRAINING)),
            best_average=content.get("best_average"),
            details=dict(content.get("details", {})),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def record_path(run_folder: Path, images_seen: int, protocol_name: str) -> Path:
    """Return where the evaluation of one average after that many images is, or would be."""
    return run_folder / EVALUATIONS / f"{images_seen:012d}-{protocol_name}.json"


def best_record(records: Iterable[EvaluationRecord], figure: str) -> EvaluationRecord | None:
    """Return the evaluation that is best by a figure, of equal ones the earliest; None where none has it."""
    having = [record for record in records if figure in record.figures]
    return min(having, key=lambda each: (badness(figure, each.figures[figure]), each.images_seen), default=None)


def groups_of(records: Iterable[EvaluationRecord]) -> dict[str, list[EvaluationRecord]]:
    """Return evaluations by the protocol that they share, in their order; two of different groups do not compare."""
    found: dict[str, list[EvaluationRecord]] = {}
    for record in records:
        found.setdefault(record.group, []).append(record)
    return found


def name_of(group: Sequence[EvaluationRecord]) -> str:
    """Return the name of the protocol that evaluations share: that in the name of the first one's file.

    Each average of a protocol has a name of its own, because its hash is over the average too.
    """
    return group[0].protocol_name


def names_of(group: Iterable[EvaluationRecord]) -> dict[str, str]:
    """Return the names in files by which the averages of one protocol are found, by average."""
    return {record.average: record.protocol_name for record in group}


def best_name(figures: Mapping[str, Mapping[str, float]], figure: str) -> str | None:
    """Return which of several sets of figures, by name, is best by one; the first of equal ones, None without any."""
    having = {name: each[figure] for name, each in figures.items() if is_finite(each.get(figure))}
    return min(having, key=lambda name: badness(figure, having[name]), default=None)


def choose_group(records: Iterable[EvaluationRecord], figure: str) -> Iterator[EvaluationRecord]:
    """Yield the evaluations that a run is ranked by: those of one protocol that have the figure.

    Where the training itself gives the figure, its own newest protocol counts, else the newest of watchers: by images
    seen, and then by name. Who evaluated does not matter within a protocol.
    """
    having = [record for record in records if figure in record.figures]
    own = [record for record in having if record.by == TRAINING]
    newest = max(own or having, key=lambda each: (each.images_seen, each.path.name), default=None)
    group = None if newest is None else newest.group
    yield from (record for record in having if record.group == group)
