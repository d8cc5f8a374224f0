"""Feature extractors: functions from 8-bit images to vectors, in whose space sets of images are compared.

The table EXTRACTORS holds one settings class for each; its `build` makes the extractor. Features of one extractor have
nothing to do with those of another, so every figure is named after its extractor: `fid` is Inception's alone.

Axes: N images, C channels, H height, W width, D features, K classes of the extractor.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bigtrain.metrics.exchange import Ranks
from bigtrain.metrics.reference import RealMoments
from bigtrain.metrics.weights import WeightStore
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.registry import Registry

EXTRACTORS = Registry("feature extractor")


class RealSet(Protocol):
    """What extractors ask of real images."""

    @property
    def image(self) -> ImageSpec:
        """What every image is."""
        ...


@dataclass(frozen=True)
class RealImages:
    """The real images of a run, as metrics see them: sample numbers in, pixels and labels out."""

    image: ImageSpec
    num_images: int
    content_hash: str
    """Equal for equal images in equal order; the key of everything that is cached."""
    load: Callable[[Sequence[int]], tuple[Tensor, Tensor]]
    """Sample numbers (0..num_images-1) -> images, uint8 [N, C, H, W], and labels, int64 [N]; may raise DataError."""
    between: Callable[[], None] = lambda: None
    """Called between parts of long work on them; may raise to end it."""
    known: RealMoments | None = None
    """Mean and covariance, of more images than these, that Frechet distances are taken to in features of as many
    dimensions; None: these images are all that there is."""


class ExtractorSettings(Protocol):
    """What EXTRACTORS holds."""

    kind: str

    def build(
        self, real: RealSet, cache: Path, device: torch.device, ranks: Ranks, weights: WeightStore | None = None
    ) -> "Extractor":
        """Return the extractor on `device`; all ranks call it together, before training starts.

        Args:
            real: the images that it will be shown.
            cache: folder for what it trains.
            device: where it computes.
            ranks: the processes.
            weights: where published weights are looked for; None: where the environment says.

        Raises:
            WeightsError: a weight file is missing or damaged.
            RecipeError: this extractor cannot read such images.
        """
        ...


@dataclass(frozen=True)
class Layers:
    """What an extractor says of some images, in one pass."""

    feature_ND: Tensor
    """float32."""
    logit_NK: Tensor | None = None
    """float32; None: the extractor tells no classes apart."""

    def __len__(self) -> int:
        return len(self.feature_ND)

    def __getitem__(self, some: slice | Tensor) -> "Layers":
        """Return those of some of the images."""
        return Layers(self.feature_ND[some], None if self.logit_NK is None else self.logit_NK[some])


@dataclass(frozen=True)
class Extractor:
    """A frozen network that maps pixels to features."""

    network: nn.Module
    """uint8 [N, C, H, W] -> float32 features [N, D], or a pair of these and logits [N, K]."""
    name: str
    """Recorded with every figure; extractors that torch-fidelity knows have the name that its registry has."""
    figure_prefix: str
    """Name of the Frechet distance in these features: `fid`, `fd_classifier`."""
    kernel_prefix: str
    """Name of the kernel distance in these features: `kid`, `kd_classifier`."""
    dims: int
    """D."""
    fingerprint: str
    """sha256 of the weights; part of the protocol of every figure."""
    facts: Mapping[str, Any]
    """What else a reader of the figures should know, as JSON values."""
    device: torch.device
    num_logits: int = 0
    """K; 0 where the network returns features alone."""
    score_prefix: str = ""
    """Name of the score of these logits: `inception_score`, `is_classifier`; empty where there are none."""

    def __call__(self, image_NCHW: Tensor) -> Tensor:
        """Return features, float32 [N, D], on the extractor's device.

        Args:
            image_NCHW: uint8, any device.
        """
        return self.layers(image_NCHW).feature_ND

    @torch.no_grad()
    def layers(self, image_NCHW: Tensor) -> Layers:
        """Return features and, where the network has them, logits, on the extractor's device.

        Args:
            image_NCHW: uint8, any device.
        """
        assert image_NCHW.dtype == torch.uint8, f"extractors read uint8 pixels, got {image_NCHW.dtype}"
        with full_float32(self.device):
            answer = self.network(image_NCHW.to(self.device))
        feature_ND, logit_NK = answer if self.num_logits else (answer, None)
        assert feature_ND.shape == (len(image_NCHW), self.dims), f"{self.name}: {tuple(feature_ND.shape)}"
        return Layers(feature_ND.float(), None if logit_NK is None else logit_NK.float())

    def padded(self, image_NCHW: Tensor, batch_images: int) -> Tensor:
        """Return features of any number of images, run in batches of exactly `batch_images`."""
        return self.padded_layers(image_NCHW, batch_images).feature_ND

    def padded_layers(self, image_NCHW: Tensor, batch_images: int) -> Layers:
        """Return the layers of any number of images, run in batches of exactly `batch_images`.

        The last batch is filled up with its last image: float32 kernels are chosen by shape, so one shape gives one
        answer however the images were dealt.
        """
        parts = [self._padded_batch(part, batch_images) for part in torch.split(image_NCHW, batch_images)]
        logits = [part.logit_NK for part in parts if part.logit_NK is not None]
        return Layers(torch.cat([part.feature_ND for part in parts]), torch.cat(logits) if logits else None)

    def _padded_batch(self, image_NCHW: Tensor, batch_images: int) -> Layers:
        missing = batch_images - len(image_NCHW)
        filled_NCHW = torch.cat([image_NCHW, image_NCHW[-1:].expand(missing, -1, -1, -1)]) if missing else image_NCHW
        return self.layers(filled_NCHW)[: len(image_NCHW)]


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Compute in plain float32 inside, whatever the run trains in: no autocast, no TensorFloat-32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def require_gray_or_rgb(image: ImageSpec, kind: str) -> None:
    """Refuse images that an extractor of three channels cannot read.

    Raises:
        RecipeError: they have an alpha channel.
    """
    if image.channels not in (1, 3):
        raise RecipeError(
            f"evaluate.extractor.kind: {kind} reads gray or RGB images, and the shards have {image.channels} channels; "
            "use the classifier extractor"
        )


def with_channels(image_NCHW: Tensor, channels: int) -> Tensor:
    """Return images with 1 or 3 channels from images with 1 or 3: gray is repeated, colour is averaged.

    Gray images survive both ways unchanged. Any other change of channels is refused.
    """
    have = image_NCHW.shape[1]
    if have == channels:
        return image_NCHW
    assert {have, channels} == {1, 3}, f"cannot turn {have} channels into {channels}"
    if channels == 3:
        return image_NCHW.expand(-1, 3, -1, -1)
    return image_NCHW.float().mean(1, keepdim=True)
