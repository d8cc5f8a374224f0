"""A truncation curve: figures over a range of thresholds, the trade of variety for fidelity.

As in figure 17 of BigGAN (Brock et al. 2019, arXiv:1809.11096), where each point is one threshold and BatchNorm's
statistics are recomputed for it. Each point is written when it is done, so a curve that was cut short goes on.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bigtrain.evaluation.judge import judge, sampling_of
from bigtrain.evaluation.results import write_json
from bigtrain.evaluation.session import Question, Session
from bigtrain.evaluation.subjects import Generator
from bigtrain.evaluation.table import aligned, compared, number
from bigtrain.metrics.exchange import from_main
from bigtrain.recipe.errors import DataError, UsageError
from bigtrain.reports.evaluations import is_compared
from bigtrain.sampling.truncation import NO_TRUNCATION, Truncation

MOST_POINTS = 1000
DECIMALS = 10  # of thresholds: sums of 0.05 are not to show their rounding


@dataclass(frozen=True)
class Range:
    """Thresholds of one law, from the first to the last."""

    truncations: tuple[Truncation, ...]

    @classmethod
    def parse(cls, text: str) -> "Range":
        """Read LAW:FIRST:LAST:STEP, such as resample:0.05:2.0:0.05, or psi:FIRST:LAST:STEP:LAYERS.

        Raises:
            UsageError: it is no range.
            RecipeError: the law is unknown, or does not take such a threshold.
        """
        law, *words = text.split(":")
        try:
            first, last, step = map(float, words[:3])
            cutoff = int(words[3]) if words[3:] else None
        except ValueError as error:
            raise UsageError(
                f"--truncation-curve {text}: not LAW:FIRST:LAST:STEP; write for example resample:0.05:2.0:0.05"
            ) from error
        num_points = math.floor((last - first) / step + 1e-9) + 1 if step > 0 and math.isfinite(last - first) else 0
        if not 1 <= num_points <= MOST_POINTS or len(words) > 4 or law == NO_TRUNCATION:
            raise UsageError(
                f"--truncation-curve {text}: a law's thresholds go from the first up to the last in 1 to {MOST_POINTS} "
                "steps; write for example resample:0.05:2.0:0.05"
            )
        thresholds = (round(first + place * step, DECIMALS) for place in range(num_points))
        return cls(tuple(Truncation(law, threshold, cutoff) for threshold in thresholds))

    @property
    def law(self) -> str:
        """The law's name."""
        return self.truncations[0].law

    @property
    def shown(self) -> str:
        """The law as a protocol names it, without threshold: `resample:*`, `psi:*:8`."""
        cutoff = self.truncations[0].cutoff
        return f"{self.law}:*" + ("" if cutoff is None else f":{cutoff}")


class Curve:
    """The points of one subject under one protocol, and their file."""

    def __init__(self, path: Path, images_seen: int, salt: int, law: str, protocol: Mapping[str, Any]) -> None:
        self.path, self.images_seen, self.salt, self.law, self.protocol = path, images_seen, salt, law, dict(protocol)
        self.points: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        """Return the points that the file has, none if it is of another protocol, or of weights that the run went back
        from.

        Raises:
            DataError: the file is damaged.
        """
        if not self.path.exists():
            return []
        try:
            record = json.loads(self.path.read_text())
            is_same = compared(record["protocol"]) == compared(self.protocol) and record["law"] == self.law
            return list(record["points"]) if is_same and record.get("salt", 0) == self.salt else []
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path} is no truncation curve ({error}); remove it") from error

    def has(self, truncation: Truncation) -> bool:
        """Tell whether a point is there."""
        return any(point["truncation"] == str(truncation) for point in self.points)

    def add(self, truncation: Truncation, figures: Mapping[str, float]) -> None:
        """Add a point."""
        point = {"threshold": truncation.threshold, "truncation": str(truncation), "figures": dict(figures)}
        self.points = sorted([*self.points, point], key=lambda each: float(each["threshold"]))

    def write(self) -> None:
        """Replace the file.

        Raises:
            DataError: it cannot be written.
        """
        write_json(self.path, self.record())

    def record(self) -> dict[str, Any]:
        """Return the file's content."""
        facts = {"images_seen": self.images_seen, "salt": self.salt, "law": self.law}
        return {**facts, "points": self.points, "protocol": self.protocol}

    def lines(self) -> Iterator[str]:
        """Yield the points as a table."""
        names = list(dict.fromkeys(name for point in self.points for name in point["figures"] if is_compared(name)))
        rows = [[number(point["figures"].get(name)) for name in names] for point in self.points]
        yield from aligned(
            [("truncation", *names)]
            + [(point["truncation"], *row) for point, row in zip(self.points, rows, strict=True)]
        )


def curve_of(
    session: Session, question: Question, thresholds: Range, moved: Callable[[int], object] = lambda num_images: None
) -> Curve:
    """Judge a generator at every threshold that its curve does not have yet; all ranks together.

    Raises:
        UsageError: the subject is no generator, or its networks have no styles to truncate.
        DataError: the curve's file is damaged or cannot be written.
    """
    subject, ranks = question.subject, session.launch.ranks
    if not isinstance(subject, Generator):
        raise UsageError(f"{subject.label} is a set of images; a truncation curve needs a generator")
    curve = _empty(session, question, subject, thresholds)
    curve.points = from_main(ranks, curve.read)
    for truncation in thresholds.truncations:
        if curve.has(truncation):
            moved(question.settings.num_images * session.options.num_seeds)
            continue
        drawing = replace(session.options.drawing(question.settings), truncation=truncation)
        found = judge(subject, question.evaluator, drawing, session.options.num_seeds, moved)
        curve.add(truncation, found.figures)
        ranks.on_main(curve.write)
    return curve


def _empty(session: Session, question: Question, subject: Generator, thresholds: Range) -> Curve:
    """Return the curve without its points; its name follows from the protocol, which leaves the thresholds out."""
    options = session.options
    sampling = sampling_of(subject, options.drawing(question.settings), options.num_seeds)
    protocol = question.evaluator.protocol(sampling | {"truncation": thresholds.shown})
    name = f"{subject.images_seen:012d}-{question.evaluator.protocol_name(protocol)}.json"
    folder = subject.run_folder or subject.path.parent
    named = {} if options.protocol is None else {"named": options.protocol.record()}
    return Curve(
        folder / "curves" / name, subject.images_seen, subject.model.salt, thresholds.law, {**protocol, **named}
    )
