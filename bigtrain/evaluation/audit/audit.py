"""The audit, whole: look, search, judge, write.

Memory: images are let go batch by batch, and of the training set only a sample of at most `num_images` leaves features
behind. The search for nearest training images reads all of them once and holds Q (D + 2K) numbers for Q generated and
real images; so a million training images take time, not memory. One process: other ranks would add nothing but the
reading of images.

Axes: N images, D features.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bigtrain.evaluation.audit.copies import duplicates_section, find_nearest, nearest_section
from bigtrain.evaluation.audit.judging import discriminator_section
from bigtrain.evaluation.audit.leakage import leakage_section
from bigtrain.evaluation.audit.look import Looker
from bigtrain.evaluation.audit.section import AuditSettings, Gathered, Picture, Section, Watch, gather
from bigtrain.evaluation.audit.subject import Subject
from bigtrain.evaluation.audit.variety import variety_section
from bigtrain.metrics.audit.significance import SIGNIFICANCE
from bigtrain.metrics.exchange import ONE_PROCESS
from bigtrain.metrics.extractors.classifier import FEWEST_IMAGES, ClassifierSettings
from bigtrain.metrics.features import EXTRACTORS, ExtractorSettings
from bigtrain.metrics.settings import EvaluationSettings
from bigtrain.recipe.errors import UsageError
from bigtrain.sampling.files import written_aside


@dataclass(frozen=True)
class Audit:
    """What an audit came to."""

    images_seen: int
    salt: int
    protocol: Mapping[str, Any]
    sections: Mapping[str, Section]
    """`nearest`, `duplicates`, `modes`, `leakage`, `discriminator`."""

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, in the order of the sections."""
        return [picture for section in self.sections.values() for picture in section.pictures]

    def write(self, path: Path) -> list[Path]:
        """Write the record to `path` and the pictures beside it; return all paths, the record first.

        Raises:
            OSError: see `written_aside`.
        """
        files = {picture.title: f"{path.stem}-{picture.name}.png" for picture in self.pictures}
        for picture in self.pictures:
            with written_aside(path.with_name(files[picture.title])) as stream:
                picture.draw().savefig(stream, format="png")
        record = {
            "images_seen": self.images_seen,
            "salt": self.salt,
            "protocol": self.protocol,
            **{name: section.record() for name, section in self.sections.items()},
            "pictures": files,
        }
        text = json.dumps(record, indent=1, allow_nan=False) + "\n"
        with written_aside(path) as stream:
            stream.write(text.encode())
        return [path, *(path.with_name(name) for name in files.values())]


def extractor_settings(kind: str | None, subject: Subject, evaluation: EvaluationSettings | None) -> ExtractorSettings:
    """Return the settings of an extractor: the recipe's own where it evaluates in the same features.

    Args:
        kind: such as classifier; None: the classifier where there are labels, else random.
        subject: what is audited.
        evaluation: the recipe's section; None: it has none.

    Raises:
        RecipeError: there is no such extractor; the sentence names the nearest.
    """
    if kind is None:
        kind = "classifier" if _can_classify(subject) else "random"
    ours = () if evaluation is None else (evaluation.extractor, *evaluation.extractors)
    settings: ExtractorSettings = next((each for each in ours if each.kind == kind), None) or EXTRACTORS.get(kind)()
    return settings


def _can_classify(subject: Subject) -> bool:
    return subject.image.num_classes > 1 and subject.training.num_images >= FEWEST_IMAGES


def build_looker(subject: Subject, settings: ExtractorSettings, cache: Path, device: torch.device) -> Looker:
    """Return what images are looked at with: the extractor, a classifier where there are labels, the discriminator.

    Args:
        subject: what is audited.
        settings: of the extractor.
        cache: folder of trained classifiers, shared with training.
        device: where to extract.

    Raises:
        WeightsError: a weight file is missing or damaged.
        RecipeError: the extractor cannot read such images.
    """
    real = subject.real_images()
    extractor = settings.build(real, cache, device, ONE_PROCESS)
    classifier = None
    if isinstance(settings, ClassifierSettings):
        classifier = extractor
    elif _can_classify(subject):
        classifier = ClassifierSettings().build(real, cache, device, ONE_PROCESS)
    return Looker(extractor, classifier, subject.discriminator, subject.mirror)


def audit(subject: Subject, looker: Looker, settings: AuditSettings, watch: Watch) -> Audit:
    """Ask everything of a generator; the same subject and settings give the same answers on one machine.

    Raises:
        DataError: an image cannot be read.
        DivergenceError: generated images are not finite.
    """
    if subject.training.num_images < 2:
        raise UsageError(
            f"the shards hold {subject.training.num_images} training image, and an audit compares with others; write "
            "more"
        )
    seen = gather(subject, settings, looker, watch)
    nearest = find_nearest(seen)
    sections = {
        "nearest": nearest_section(seen, nearest),
        "duplicates": duplicates_section(nearest),
        "modes": variety_section(seen, nearest.threshold.distance),
        "leakage": leakage_section(seen),
        "discriminator": discriminator_section(seen),
    }
    return Audit(subject.images_seen, subject.salt, _protocol(seen), sections)


def _protocol(seen: Gathered) -> dict[str, Any]:
    extractor, subject = seen.looker.extractor, seen.subject
    num_held_out = 0 if seen.held_out is None else len(seen.held_out)
    return {
        "extractor": extractor.name,
        "extractor_sha256": extractor.fingerprint,
        "extractor_facts": dict(extractor.facts),
        "real_content": subject.content_hash,
        "num_generated": len(seen.generated),
        "num_training": subject.training.num_images,
        "num_held_out": subject.held_out.num_images,
        "subsampled": {
            "nearest and duplicates": "none of the training images is left out; distances of real images: see real_is",
            "training": f"{len(seen.training)} of {subject.training.num_images}, picked at random, for modes, pairs "
            "and the discriminator",
            "held_out": f"{num_held_out} of {subject.held_out.num_images}",
        },
        "mirrored": subject.mirror,
        "batch_images": seen.looker.batch_images,
        "discriminator": "weights of training (no average), no augmentation, batch statistics over "
        f"{1 if subject.discriminator is None else subject.discriminator.group_images} image(s) of one kind",
        "significance": SIGNIFICANCE,
        "settings": seen.settings.model_dump(mode="json"),
        "sampling": dict(subject.facts),
        "versions": {package: version(package) for package in ("torch", "scikit-learn", "numpy")},
    }
