"""What is audited: images that a run's generator makes, the images it was trained on, those kept from it, and its
discriminator.

Axes: N images, C channels, H height, W width, L images that have a logit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigtrain.data.batch import Batch
from bigtrain.data.shards import ShardSet
from bigtrain.draws import seed_of
from bigtrain.engine.checkpoints.files import read_checkpoint
from bigtrain.evaluation.audit.discriminator import Discriminator
from bigtrain.evaluation.run_folders import run_of
from bigtrain.evaluation.which import NEWEST, find_model
from bigtrain.metrics.features import RealImages
from bigtrain.recipe.errors import UsageError
from bigtrain.recipe.image import ImageSpec
from bigtrain.sampling.truncation import Truncation, sample_draws
from bigtrain.training.loaded import LoadedModel, load
from bigtrain.training.sampler import StandingSettings
from bigtrain.training.snapshot import read_snapshot

NO_LABEL = -1


@dataclass(frozen=True)
class Part:
    """Real images by their place, 0..num_images-1."""

    num_images: int
    load: Callable[[Sequence[int]], Batch]
    """Places -> uint8 images, labels (-1 where there are none), numbers in the data set."""

    def picked(self, most: int, seed: int) -> Tensor:
        """Return the places of at most so many images, picked at random, in order; int64."""
        if most >= self.num_images:
            return torch.arange(self.num_images)
        generator = torch.Generator().manual_seed(seed_of(seed, "audit"))
        return torch.randperm(self.num_images, generator=generator)[:most].sort().values

    def batches(self, places: Tensor, batch_images: int) -> Iterator[Batch]:
        """Yield the images at these places, so many at a time."""
        for part in torch.split(places, batch_images):
            yield self.load(part.tolist())


@dataclass(frozen=True)
class Subject:
    """A generator and what it is held against."""

    image: ImageSpec
    images_seen: int
    class_names: tuple[str, ...]
    training: Part
    held_out: Part
    content_hash: str
    """Of the training part."""
    mirror: bool
    """Whether training mirrored images: then a mirrored copy is a copy."""
    generate: Callable[[Tensor], Batch]
    """Image numbers, int64 -> uint8 images and the labels they were drawn for."""
    discriminator: Discriminator | None
    """None where it was not saved: snapshots hold averaged weights only."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """How images are drawn, and from which weights; part of the protocol, as JSON values."""
    salt: int = 0
    """Of the draws that the weights were trained with: it tells a part that the run went back from."""

    def generated(self, num_images: int, batch_images: int) -> Iterator[Batch]:
        """Yield generated images number 0..num_images-1."""
        for index_N in torch.split(torch.arange(num_images), batch_images):
            yield self.generate(index_N)

    def real_images(self) -> RealImages:
        """Return the training part as extractors take it."""

        def pair(places: Sequence[int]) -> tuple[Tensor, Tensor]:
            batch = self.training.load(places)
            return batch.image_NCHW, batch.label_N

        return RealImages(self.image, self.training.num_images, self.content_hash, pair)


@dataclass(frozen=True)
class Drawing:
    """Which images of a generator are audited."""

    truncation: Truncation = Truncation()
    checkpoint: str = NEWEST
    """Which of a run's: newest, best, or images seen."""
    average: str | None = None
    """Name of the moving average; None: the recipe's first."""
    seed: int = 0
    standing: StandingSettings = StandingSettings()
    """How BatchNorm's statistics are recomputed."""


@dataclass(frozen=True)
class OpenedRun:
    """A run's subject and where the run lies."""

    subject: Subject
    model: LoadedModel
    folder: Path | None
    """The run folder; None for a checkpoint or snapshot that lies elsewhere."""


def open_run(path: Path, shards: str | None, drawing: Drawing) -> OpenedRun:
    """Open a run's checkpoint, a checkpoint or a snapshot, and the shards it was trained on.

    Args:
        path: RUN, RUN/checkpoints/<images> or RUN/snapshots/<images>.safetensors.
        shards: folder of the shards; None: where the recipe says they are.
        drawing: which images.

    Raises:
        UsageError: the shards are no folder, or not those of the run; an unknown average.
        CheckpointError: there is nothing usable at the path.
        DataError: the shards are damaged.
    """
    model = load(find_model(path, drawing.checkpoint, average=drawing.average), drawing.average)
    record, discriminator = _saved(model)
    real = _open_shards(model, shards, record["data_hash"])
    subject = Subject(
        image=model.image,
        images_seen=model.images_seen,
        salt=model.salt,
        class_names=model.class_names,
        training=_part(real.training()),
        held_out=_part(real.holdout()),
        content_hash=real.content_hash,
        mirror=model.recipe.data.mirror,
        generate=lambda index_N: _generate(model, drawing, index_N),
        discriminator=discriminator,
        facts={
            "truncation": str(drawing.truncation),
            "average": model.average,
            "label_law": getattr(model.recipe.game, "fake_labels", "none") if model.image.num_classes else "none",
            "seed": drawing.seed,
            "standing": asdict(drawing.standing),
        },
    )
    return OpenedRun(subject, model, run_of(model.path))


def _saved(model: LoadedModel) -> tuple[Mapping[str, Any], Discriminator | None]:
    if model.path.is_file():
        return read_snapshot(model.path)[1], None
    checkpoint = read_checkpoint(model.path)
    return checkpoint.record, Discriminator.load(model.game, model.recipe, checkpoint.tensors)


def _open_shards(model: LoadedModel, shards: str | None, data_hash: str) -> ShardSet:
    data = model.recipe.data
    if data.mode == "stream":
        raise UsageError(
            f"{model.path} was trained with data.mode: stream, so nothing says which images it saw; an audit needs a "
            "run on indexed shards"
        )
    where = data.shards if shards is None else shards
    if "://" not in where and not Path(where).expanduser().is_dir():
        raise UsageError(f"{where} is no folder of shards; name the shards of the run with --real")
    real = ShardSet.open(where, data.holdout, model.recipe.seed, data.max_pixels)
    if real.content_hash != data_hash:
        raise UsageError(
            f"{where} holds other images than those that {model.path} was trained on, which is what an audit compares "
            f"with; name those with --real (the recipe says {data.shards})"
        )
    return real


def _part(shards: ShardSet) -> Part:
    numbers = shards.numbers()
    return Part(shards.num_samples, lambda places: shards.load(numbers[list(places)]))


def _generate(model: LoadedModel, drawing: Drawing, index_N: Tensor) -> Batch:
    """Return the images that `bigtrain sample --index` draws for these numbers, and their labels."""
    image_NCHW = model.sample(
        index=index_N.tolist(), truncation=drawing.truncation, seed=drawing.seed, standing=drawing.standing
    )
    label_N = None
    if model.image.num_classes:
        game: Any = model.game
        device = next(game.networks[game.averaged[0]].parameters()).device
        label_N = game.fake_labels(sample_draws(seed_of(drawing.seed, "sample"), index_N.to(device)))
    return Batch(image_NCHW, torch.full_like(index_N, NO_LABEL) if label_N is None else label_N.cpu(), index_N)
