"""What somebody asks of an evaluation, and the settings that follow from it, from the run's recipe and from a protocol.

An option wins over the protocol's value only where they agree (else it is refused), and over the recipe's always.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bigtrain.evaluation.protocols import NamedProtocol
from bigtrain.evaluation.subjects import Choice, Drawing, Generator, Subject
from bigtrain.metrics.names import FRECHET, KERNEL, METRICS, PER_CLASS, PRDC, metric_name
from bigtrain.metrics.settings import FEWEST_IMAGES, EvaluationSettings
from bigtrain.metrics.weights import WeightStore
from bigtrain.recipe.errors import UsageError
from bigtrain.sampling.truncation import Truncation
from bigtrain.training.sampler import StandingSettings

DEFAULT_METRICS = ("fid", "kid")
DEFAULT_NUM_IMAGES = 50_000
INCEPTION = "inception"
DIVISORS = {"N - 1": "n-1", "N": "n"}  # of protocols, as settings have them

FIXED_SECTIONS = ("kernel", "score", "prdc")  # of settings; a protocol's where it has them, else defaults
SHORT_PRDC = "prdc"  # in the features of the first metric


@dataclass(frozen=True)
class Options:
    """What was asked for; None: not given."""

    real: str | None = None
    split: str | None = None
    metrics: tuple[str, ...] | None = None
    num_images: int | None = None
    batch_images: int | None = None
    truncation: Truncation | None = None
    seed: int | None = None
    num_seeds: int = 1
    standing: StandingSettings | None = None
    """How BatchNorm's statistics are recomputed; its seed is not read."""
    choice: Choice = field(default_factory=Choice)
    cache: Path | None = None
    protocol: NamedProtocol | None = None
    resize: str | None = None
    """How Inception's images come to their size."""
    per_class: bool = False
    """Whether the distance within each class is measured too."""
    weights: WeightStore = WeightStore()
    """Where published weights are looked for."""

    def __post_init__(self) -> None:
        if self.protocol is not None:
            given = {
                "metrics": self.metrics and metric_names(self.metrics),
                "num": self.num_images,
                "truncation": _text(self.truncation),
                "resize": self.resize,
            }
            self.protocol.require({name: value for name, value in given.items() if value is not None})

    def settings(self, subject: Subject) -> EvaluationSettings:
        """Return the settings of an evaluation of `subject`.

        Raises:
            UsageError: an option is out of its range, or more images are asked for than there are.
        """
        recipe = subject.model.recipe.evaluate if isinstance(subject, Generator) else None
        base: dict[str, Any] = {} if recipe is None else recipe.model_dump(mode="json")
        found = {"every_images": 1, **base, **self._metrics(base), "num_images": self._num_images(subject, base)}
        found |= self._inception(found)
        if self.protocol is not None:
            found["covariance_divisor"] = DIVISORS[self.protocol.covariance_divisor]
            found |= {section: dict(self.protocol.settings.get(section, {})) for section in FIXED_SECTIONS}
        if self.batch_images is not None:
            found["batch_images"] = self.batch_images
        if self.seed is not None:
            found["seed"] = self.seed
        if self.standing is not None:
            found["standing_batches"] = self.standing.num_batches
            found["standing_images"] = self.standing.batch_images
        try:
            return EvaluationSettings.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            if not first["loc"]:  # of settings that contradict each other; the sentence says which
                raise UsageError(f"{first['msg'].removeprefix('Value error, ')}") from error
            raise UsageError(
                f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}; correct that option"
            ) from error

    def drawing(self, settings: EvaluationSettings) -> Drawing:
        """Return how images are drawn."""
        return Drawing(
            truncation=self.truncation or Truncation(),
            seed=settings.seed,
            standing_batches=settings.standing_batches,
            standing_images=settings.standing_images,
            batch_images=settings.batch_images,
        )

    def _metrics(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that say what is measured; a pair that an extractor stands for is said by that alone, so
        that the protocol is the one of a recipe that says it so."""
        asked = self.metrics or (None if self.protocol is None else self.protocol.metrics)
        if asked is None and base and not self.per_class:
            return {}
        names = metric_names(asked or _measured(base) or DEFAULT_METRICS)
        if self.per_class:
            within = metric_name(PER_CLASS, METRICS.get(names[0]).extractor)
            names = names if within in names else (*names, within)
        kind = METRICS.get(names[0]).extractor
        if names == (metric_name(FRECHET, kind), metric_name(KERNEL, kind)):
            is_base = base.get("extractor", {}).get("kind") == kind
            return {"metrics": (), **({} if is_base else {"extractor": {"kind": kind}})}
        return {"metrics": names}

    def _inception(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that hold the resize that was asked for."""
        resize = self.resize or (None if self.protocol is None else self.protocol.resize)
        if resize is None:
            return {}
        own, others = found.get("extractor", {}), found.get("extractors", ())
        if own.get("kind") == INCEPTION:
            return {"extractor": {**own, "resize": resize}}
        given = next((each for each in others if each["kind"] == INCEPTION), {"kind": INCEPTION})
        return {"extractors": [*(each for each in others if each["kind"] != INCEPTION), {**given, "resize": resize}]}

    def _num_images(self, subject: Subject, base: Mapping[str, Any]) -> int:
        fixed = None if self.protocol is None else self.protocol.num_images
        there = subject.num_images
        known = (self.num_images, fixed, there, base.get("num_images"), DEFAULT_NUM_IMAGES)
        wanted = next(number for number in known if number is not None)
        if there is not None and there < max(wanted, FEWEST_IMAGES):
            needs = f"--protocol {self.protocol.name} needs {wanted}" if self.protocol is not None and fixed else ""
            needs = needs or f"{max(wanted, FEWEST_IMAGES)} are needed"
            raise UsageError(f"{subject.label} holds {there} images, and {needs}; add more, or ask for fewer")
        return int(wanted)


def metric_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the full names of metrics: `prdc` alone is in the features of the first one.

    Raises:
        RecipeError: there is no such metric; the sentence names the nearest one.
    """
    first = next((name for name in names if name != SHORT_PRDC), DEFAULT_METRICS[0])
    prdc = metric_name(PRDC, METRICS.get(first).extractor)
    found = tuple(prdc if name == SHORT_PRDC else name for name in names)
    for name in found:
        METRICS.get(name)
    return found


def _measured(base: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a recipe measures; nothing without one."""
    if not base:
        return ()
    measured = EvaluationSettings.model_validate(base).measured
    return tuple(metric_name(metric.measure, metric.extractor) for metric in measured)


def _text(truncation: Truncation | None) -> str | None:
    return None if truncation is None else str(truncation)
