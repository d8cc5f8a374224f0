"""One subject under one protocol: its figures, over one seed of its images or the mean over several.

Axes: N images.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Any

from torch import Tensor

from bigtrain.engine import faults
from bigtrain.evaluation.subjects import Drawing, Subject
from bigtrain.metrics.evaluation import Evaluator, Generate, Labels
from bigtrain.recipe.errors import UsageError

SPREAD = "_seeds_std"  # of a figure over seeds


@dataclass(frozen=True)
class Judgement:
    """The figures of one subject, and the protocol that they share with whatever they may be compared with."""

    label: str
    images_seen: int | None
    figures: dict[str, float]
    protocol: dict[str, Any]
    protocol_name: str
    by_seed: tuple[dict[str, float], ...] = ()
    """Figures of each seed, where there are several."""
    details: dict[str, Any] = field(default_factory=dict)
    """By figure, what is too long for figures, such as distances by class; of the first seed."""

    def record(self) -> dict[str, Any]:
        """Return it as JSON values."""
        more: dict[str, Any] = {"by_seed": list(self.by_seed)} if self.by_seed else {}
        if self.details:
            more["details"] = self.details
        return {
            "what": self.label,
            "images_seen": self.images_seen,
            "figures": self.figures,
            "protocol": self.protocol,
            "protocol_name": self.protocol_name,
            **more,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any], label: str) -> "Judgement":
        """Return what `record`, or an evaluation while training, has written.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        protocol = dict(record["protocol"])
        if "named" in protocol:
            named = protocol["named"]
            protocol["named"] = {**named, **{key: str(named[key]) for key in ("name", "source", "reference")}}
            protocol["named"]["differences"] = list(named["differences"])
        return cls(
            str(record.get("what", label)),
            record["images_seen"],
            {str(name): float(value) for name, value in record["figures"].items()},
            protocol,
            str(record.get("protocol_name", label)),
            tuple(record.get("by_seed", ())),
            dict(record.get("details", {})),
        )


def judge(
    subject: Subject,
    evaluator: Evaluator,
    drawing: Drawing,
    num_seeds: int = 1,
    moved: Callable[[int], object] = lambda num_images: None,
) -> Judgement:
    """Evaluate a subject; all ranks together get the same figures.

    Args:
        subject: what is judged.
        evaluator: the real images and the metrics.
        drawing: how its images are drawn; further seeds follow `drawing.seed`.
        num_seeds: over how many sets of images the figures are averaged; the real images stay as they are.
        moved: told how many images this rank has made since it was last told.

    Raises:
        UsageError: the subject cannot be drawn like this.
    """
    sampling = sampling_of(subject, drawing, num_seeds)
    num_images = evaluator.settings.num_images
    if num_seeds > 1 and subject.num_images == num_images:
        raise UsageError(
            f"all {num_images} images of {subject.label} are judged, so every seed gets the same figures; leave "
            "--seeds out, or ask for fewer with --num"
        )

    def needed(of_seed: Drawing) -> Labels | None:
        return subject.labels(of_seed, num_images) if evaluator.tells_classes else None

    evaluations = [
        evaluator.evaluate(_watched(subject.generate(of_seed, num_images), moved), sampling, needed(of_seed))
        for of_seed in (replace(drawing, seed=seed) for seed in _seeds(drawing, num_seeds))
    ]
    by_seed = tuple(evaluation.figures for evaluation in evaluations)
    figures = by_seed[0] if num_seeds == 1 else over_seeds(by_seed)
    first = evaluations[0]
    return Judgement(
        subject.label, subject.images_seen, figures, first.protocol, first.protocol_name,
        by_seed if num_seeds > 1 else (), first.details,
    )  # fmt: skip


def sampling_of(subject: Subject, drawing: Drawing, num_seeds: int) -> dict[str, Any]:
    """Return what of the drawing belongs to the protocol."""
    return subject.sampling(drawing) | ({"seeds": _seeds(drawing, num_seeds)} if num_seeds > 1 else {})


def _seeds(drawing: Drawing, num_seeds: int) -> list[int]:
    return [drawing.seed + number for number in range(num_seeds)]


def over_seeds(by_seed: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each figure under its name, and its standard deviation (divisor n - 1) under a name of its
    own."""
    found: dict[str, float] = {}
    for name in by_seed[0]:
        values = [figures[name] for figures in by_seed]
        is_finite = all(map(math.isfinite, values))
        found |= {name: fmean(values), f"{name}{SPREAD}": stdev(values) if is_finite else math.nan}
    return found


def _watched(generate: Generate, moved: Callable[[int], object]) -> Generate:
    def watched(index_N: Tensor) -> Tensor:  # noqa: N803 (axis)
        faults.reach("evaluate")
        image_NCHW = generate(index_N)
        moved(len(index_N))
        return image_NCHW

    return watched
