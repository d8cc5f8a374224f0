"""Trained models for use, in one process and without Accelerate: `bigtrain.load("RUN or checkpoint or
snapshot").sample(16)`.

Axes: N images, C channels, H height, W width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from bigtrain.draws import seed_of
from bigtrain.engine.checkpoints.files import newest_complete, read_checkpoint
from bigtrain.games.base import DataFacts, Game
from bigtrain.networks.layers.spectral import advance_power_iterations
from bigtrain.recipe.errors import CheckpointError, UsageError
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.registry import nearest
from bigtrain.sampling.grids import to_pixels
from bigtrain.sampling.interpolation import evenly
from bigtrain.sampling.truncation import Truncation, sample_draws
from bigtrain.training.codes import Codes, between, decode, encode, joined
from bigtrain.training.sampler import Sampler, StandingSettings, cycle_labels
from bigtrain.training.schema import Recipe
from bigtrain.training.snapshot import read_snapshot

SAMPLE_BATCH_IMAGES = 64
RENDER_BATCH_IMAGES = 16  # of codes


class LoadedModel:
    """A trained generator: its averaged weights, the game that draws from it, and what its classes are called."""

    def __init__(
        self, path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any], average: str | None
    ) -> None:
        self.path, self.images_seen = path, int(record["progress"]["images_seen"])
        self.salt = int(record["progress"].get("salt", 0))
        try:
            self.recipe = Recipe.model_validate(record["recipe"])
        except ValidationError as error:
            raise CheckpointError(
                f"{path} holds a recipe that this version cannot read ({error.error_count()} problems); use the "
                f"version that wrote it: {record['versions']}"
            ) from error
        self.class_names: tuple[str, ...] = tuple(record["class_names"])
        counts = record["label_counts"]
        self.image = ImageSpec(**record["image"])
        self.game: Game = self.recipe.game.build(DataFacts(self.image, None if counts is None else tuple(counts)))
        self.average = self._average(average)
        self._load_average(tensors)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        networks = {name: self.game.networks[name] for name in self.game.averaged}
        self._sampler = Sampler(self.game, networks, device, SAMPLE_BATCH_IMAGES)
        self._stands_for: tuple[str, StandingSettings] | None = None

    def _average(self, name: str | None) -> str:
        known = [each.name for each in self.recipe.ema]
        if name is not None and name not in known:
            raise UsageError(f"'{name}' is no moving average of {self.path}; it has {', '.join(known)}")
        return name or known[0]

    def _load_average(self, tensors: Mapping[str, Tensor]) -> None:
        for name in self.game.averaged:
            prefix = f"average/{self.average}/{name}/"
            state = {key[len(prefix) :]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            try:
                self.game.networks[name].load_state_dict(state)
            except RuntimeError as error:
                raise CheckpointError(
                    f"{self.path} does not fit the {name} of its own recipe ({error}); copy it again"
                ) from error
            advance_power_iterations(self.game.networks[name])

    def labels(self, labels: Sequence[int | str]) -> list[int]:
        """Return class numbers for class numbers or names.

        Raises:
            UsageError: a class does not exist; the sentence names the nearest, or the range.
        """
        return [self._label(label) for label in labels]

    def _label(self, label: int | str) -> int:
        if isinstance(label, str) and label in self.class_names:
            return self.class_names.index(label)
        if isinstance(label, str) and not label.lstrip("-").isdigit():
            close = nearest(label, list(self.class_names))
            raise UsageError(
                f"'{label}' is no class of {self.path}"
                + (f"; did you mean '{close}'?" if close else f"; classes are 0 to {self.image.num_classes - 1}")
            )
        if not 0 <= int(label) < self.image.num_classes:
            raise UsageError(
                f"label {label} is no class of {self.path}; classes are 0 to {self.image.num_classes - 1}"
                if self.image.num_classes
                else f"{self.path} was trained without labels; leave them out"
            )
        return int(label)

    def restand(self, truncation: Truncation, settings: StandingSettings) -> None:
        """Recompute BatchNorm's statistics at this truncation, unless they stand for it already."""
        if self._stands_for != (str(truncation), settings):
            self._sampler.restand(truncation, settings)
            self._stands_for = (str(truncation), settings)

    def sample(
        self,
        count: int | None = None,
        *,
        labels: Sequence[int | str] | None = None,
        truncation: str | Truncation = "none",
        seed: int = 0,
        index: Sequence[int] | None = None,
        standing: StandingSettings | None = None,
    ) -> Tensor:
        """Return generated images, uint8 [N, C, H, W] on the CPU; image i depends on (seed, i) and its label alone.

        Args:
            count: how many images; they have the numbers 0..count-1.
            labels: classes by number or name; image i has the one at i modulo their number. None: drawn by the law
                the model was trained with.
            truncation: such as "resample:0.5"; BatchNorm's statistics are recomputed for it.
            seed: which images.
            index: the numbers of the images wanted, instead of `count`.
            standing: how BatchNorm's statistics are recomputed; None: 16 batches of 256.

        Raises:
            UsageError: neither or both of count and index, or an unknown class.
            RecipeError: the truncation is unknown.
        """
        if (count is None) == (index is None) or (count is not None and count < 1):
            raise UsageError(
                f"sample needs a count of at least 1, or an index of image numbers, not both; got count={count} "
                f"and index={index}"
            )
        index_N = torch.arange(count or 0) if index is None else torch.tensor(list(index), dtype=torch.int64)
        law = truncation if isinstance(truncation, Truncation) else Truncation.parse(truncation)
        self.restand(law, standing or StandingSettings())
        label_N = self._labels_of(index_N, labels)
        return torch.cat(list(self._sampler.images(index_N, label_N, law, seed_of(seed, "sample"))))

    @torch.no_grad()
    def interpolate(
        self,
        ends: tuple[int, int],
        *,
        labels: tuple[int | str, int | str] | None = None,
        steps: int = 8,
        truncation: str | Truncation = "none",
        seed: int = 0,
        standing: StandingSettings | None = None,
    ) -> Tensor:
        """Return the way from image `ends[0]` to image `ends[1]` of `sample`, uint8 [steps, C, H, W], both ends
        included.

        Args:
            ends: numbers of two images; equal numbers keep the latent and change the class alone.
            labels: their classes; the way between two classes runs through the generator's shared embedding. Generators
                with styles go from one image's styles to the other's by the straight line.
            steps: images on the way, at least 2.
            truncation: as in `sample`.
            seed: as in `sample`.
            standing: as in `sample`.

        Raises:
            UsageError: fewer than 2 steps, no labels for a model with classes, or an unknown class.
            RecipeError: the truncation is unknown.
        """
        if steps < 2:
            raise UsageError(f"a way between two images has at least 2 steps, got {steps}; ask for 2 or more")
        if self.image.num_classes and labels is None:
            raise UsageError(f"{self.path} has classes; say between which two, such as labels (1, 7), or (3, 3)")
        law = truncation if isinstance(truncation, Truncation) else Truncation.parse(truncation)
        self.restand(law, standing or StandingSettings())
        ends_codes = self.codes(ends, labels=labels, truncation=law, seed=seed)
        return self.render(between(ends_codes[:1], ends_codes[1:], evenly(steps)))

    @torch.no_grad()
    def codes(
        self,
        index: Sequence[int],
        *,
        labels: Sequence[int | str] | None = None,
        truncation: str | Truncation = "none",
        seed: int = 0,
    ) -> Codes:
        """Return what the images of these numbers are made of; `render` makes them, after `restand` for the truncation.

        Args:
            index: numbers of images, as in `sample`.
            labels: one class for each of them; None: as in `sample`.
            truncation: as in `sample`.
            seed: as in `sample`.

        Raises:
            UsageError: an unknown class, or classes for a model without.
            RecipeError: the truncation is unknown, or asks for styles that the generator does not have.
        """
        assert labels is None or len(labels) == len(index), f"{len(labels or ())} labels for {len(index)} images"
        law = truncation if isinstance(truncation, Truncation) else Truncation.parse(truncation)
        index_N, of_seed = torch.tensor(list(index), device=self.device), seed_of(seed, "sample")
        label_N = None
        if labels is not None:
            label_N = torch.tensor(self.labels(labels), device=self.device)
        elif self.image.num_classes:
            label_N = self._sampler.labels(index_N, of_seed)
        draws = sample_draws(of_seed, index_N)
        return encode(self.generator, law.apply(draws, int(self.generator.latent_dim)), label_N, law)

    @torch.no_grad()
    def render(self, codes: Codes) -> Tensor:
        """Return the images of codes, uint8 [N, C, H, W] on the CPU, computed in batches of one shape."""
        images = []
        for first in range(0, len(codes), RENDER_BATCH_IMAGES):
            part = codes[first : first + RENDER_BATCH_IMAGES]
            wanted = len(part)
            filled = joined([part, part[[wanted - 1] * (RENDER_BATCH_IMAGES - wanted)]])
            images.append(to_pixels(decode(self.generator, filled)[:wanted]).cpu())
        return torch.cat(images)

    @property
    def generator(self) -> Any:
        """The averaged generator, in eval mode."""
        return self.game.networks[self.game.averaged[0]]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._sampler.device

    def _labels_of(self, index_N: Tensor, labels: Sequence[int | str] | None) -> Tensor | None:
        if labels is None:
            return None
        if not self.image.num_classes:
            raise UsageError(f"{self.path} was trained without labels; leave them out")
        return cycle_labels(self.labels(labels), index_N)


def load(path: str | Path, average: str | None = None) -> LoadedModel:
    """Load the generator of a run (its newest good checkpoint), of a checkpoint folder or of a snapshot file.

    Args:
        path: RUN, RUN/checkpoints/<images> or RUN/snapshots/<images>.safetensors.
        average: name of one of the run's moving averages, such as "ema-20000"; None: the recipe's first.

    Raises:
        CheckpointError: there is nothing usable at the path.
    """
    where = Path(path)
    if where.is_file():
        tensors, record = read_snapshot(where)
        return LoadedModel(where, tensors, record, average)
    folder = newest_complete(where / "checkpoints") if (where / "checkpoints").is_dir() else where
    if folder is None or not folder.is_dir():
        raise CheckpointError(
            f"{where} holds no usable checkpoint; name a run folder, RUN/checkpoints/IMAGES or RUN/snapshots/FILE"
        )
    checkpoint = read_checkpoint(folder)
    return LoadedModel(folder, checkpoint.tensors, checkpoint.record, average)
