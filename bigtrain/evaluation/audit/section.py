"""A part of an audit: a verdict in a sentence, its figures, its pictures; and what all parts start from.

Axes: N generated images, R real ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bigtrain.evaluation.audit.look import Looker, Looks
from bigtrain.evaluation.audit.subject import Subject
from bigtrain.recipe.settings import PositiveCount, Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Passes batches on and may show how far it is: batches, what they are, how many there are."""


class AuditSettings(Settings):
    """How much is looked at."""

    num_images: PositiveCount = 10_000
    """Generated images, and real ones at most of which more is asked than whether they are near."""
    num_neighbours: PositiveCount = 4
    """Nearest training images that are shown of an image."""
    shown_images: PositiveCount = 8
    """Rows of a picture."""
    seed: int = 0
    """Seed of the images picked and of the clusters."""


@dataclass(frozen=True)
class Picture:
    """A picture that is to become a file."""

    title: str
    name: str
    """Short and fit for a file name."""
    draw: Callable[[], "Figure"]
    """Called when the picture is written; until then no image is held for it."""


@dataclass(frozen=True)
class Section:
    """What one question of an audit came to."""

    suspicious: bool | None
    """None: not to be judged here; the verdict says why."""
    verdict: str
    """One sentence, which says on how many images it stands."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """JSON values."""
    pictures: Sequence[Picture] = ()

    def record(self) -> dict[str, Any]:
        """Return the section as JSON values."""
        return {"suspicious": self.suspicious, "verdict": self.verdict, **self.figures}


@dataclass(frozen=True)
class Gathered:
    """All that was looked at."""

    subject: Subject
    settings: AuditSettings
    looker: Looker
    generated: Looks
    training: Looks
    """Of the training images at `training_places`, at most `num_images`, picked at random."""
    training_places: Tensor
    held_out: Looks | None
    """Of held-out images, at most `num_images`, picked at random; None where there are none."""
    watch: Watch

    def generated_images(self, numbers: Sequence[int]) -> Tensor:
        """Draw images again; uint8 [N, C, H, W]."""
        return self.subject.generate(torch.tensor(list(numbers))).image_NCHW

    def training_images(self, places: Sequence[int]) -> Tensor:
        """Read training images again; uint8 [R, C, H, W]."""
        return self.subject.training.load(places).image_NCHW


def gather(subject: Subject, settings: AuditSettings, looker: Looker, watch: Watch) -> Gathered:
    """Look at generated, held-out and some training images."""
    size, most = looker.batch_images, settings.num_images

    def look(batches: Iterable[Any], what: str, num_images: int) -> Looks:
        return looker.look(iter(watch(batches, what, -(-num_images // size))))

    training = subject.training.picked(most, settings.seed)
    held_out = subject.held_out.picked(most, settings.seed)
    return Gathered(
        subject=subject,
        settings=settings,
        looker=looker,
        generated=look(subject.generated(most, size), "generated", most),
        training=look(subject.training.batches(training, size), "training", len(training)),
        training_places=training,
        held_out=look(subject.held_out.batches(held_out, size), "held out", len(held_out)) if len(held_out) else None,
        watch=watch,
    )


def percent(share: float) -> str:
    """Write a share: 0%, 0.5%, 12%."""
    return f"{share:.1%}" if 0 < abs(share) < 0.1 else f"{share:.0%}"
