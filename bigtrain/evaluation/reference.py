"""What is judged against: real images that are named, or those that a generator was trained on."""

from dataclasses import replace
from pathlib import Path

from bigtrain.data.index import INDEX_NAME
from bigtrain.data.shards import ShardSet
from bigtrain.evaluation.arrays import PIXELS, npz_arrays
from bigtrain.evaluation.images import ImageSet, Shards, as_real, open_images
from bigtrain.evaluation.subjects import Generator, Subject
from bigtrain.metrics.exchange import Ranks
from bigtrain.metrics.features import RealImages
from bigtrain.metrics.reference import RealMoments, holds_moments, read_moments
from bigtrain.recipe.errors import DataError, UsageError

TRAINING = "training"
SPLITS = {TRAINING: ShardSet.training, "held-out": ShardSet.holdout, "all": ShardSet.whole}
"""Parts of a run's own shards, by the name of the option."""


def open_real(real: str | None, split: str | None, subject: Subject, ranks: Ranks) -> RealImages | RealMoments:
    """Return the real images, or what a file of another tool says of them.

    Args:
        real: shards, a folder or zip of images, or an `.npz` of images or of moments (mu, sigma); None: those that the
            subject was trained on. Of a file with both, as ADM's, the moments are what Frechet distances are taken to,
            in features of as many dimensions, and the images are for all else.
        split: which part of the subject's own, a name of SPLITS, also where `real` says that these lie elsewhere now;
            None: training, or all that `real` names.
        subject: what is judged.
        ranks: the processes, which call this together.

    Raises:
        DataError: they are not there, damaged, or of another size than the subject's.
        UsageError: nothing says which.
    """
    moments = None
    if real is not None and holds_moments(Path(real)):
        moments = read_moments(Path(real), subject.image)
        if PIXELS not in npz_arrays(Path(real)):
            return moments
    if real is None or split is not None:
        images: ImageSet = _trained_on(subject, split or TRAINING, real)
    else:
        images = open_images(real)
    if images.image.size != subject.image.size or images.image.channels != subject.image.channels:
        ours, theirs = (f"{each.size[1]}x{each.size[0]}x{each.channels}" for each in (subject.image, images.image))
        raise DataError(
            f"images of {subject.label} are {ours} and those of {images.place} are {theirs}; bring both to one size "
            "and number of channels: `bigtrain shards folder` does"
        )
    return replace(as_real(images, ranks), known=moments)


def _trained_on(subject: Subject, split: str, elsewhere: str | None) -> Shards:
    if not isinstance(subject, Generator):
        raise UsageError(
            f"nothing says which images {subject.label} is judged against; name them with --real, and leave --split out"
        )
    recipe = subject.model.recipe
    place = elsewhere or recipe.data.shards
    if elsewhere is None and recipe.data.mode == "stream":
        raise DataError(
            f"{subject.label} was trained on streamed shards, of which nothing says what images they hold; name images "
            "with --real"
        )
    if not (Path(place).expanduser() / INDEX_NAME).is_file():
        raise DataError(
            f"{place}, which {subject.label} was trained on, holds no shards here; say with --real where they lie"
        )
    data = recipe.data.model_copy(update={"shards": place, "mode": "indexed"})
    shards = SPLITS[split](data.build(recipe.seed))
    if not shards.num_samples:
        raise DataError(f"the recipe of {subject.label} holds no image out of training; leave --split out")
    return Shards(f"{place} ({split})", shards)
