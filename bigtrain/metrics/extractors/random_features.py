"""An extractor without labels, training or downloads: statistics of one fixed, randomly drawn convolutional network.

Random filters are known to carry what textures are made of (Ustyuzhaninov et al. 2016, arXiv:1606.00021) and to tell
sets of images apart where Inception's features mean little (Naeem et al. 2020, arXiv:2002.09797). What is measured here
is colours, contrasts, and textures at all scales, and roughly where colours are. It says nothing about objects, and its
figures are not comparable with FID, nor with those of images of another size.

The network, for images of at least 8 px at their shorter side, gray ones repeated to three channels, pixels in -1..1:

* layout: colours averaged over a 4x4 grid, divided by 4, so that the squared distance of two images is that of their
  coarse pictures a grid cell; 48 features;
* levels: the image and its 2x2 averages, down to the last one of at least 8 px. On each of them the same two layers,
  24 filters 3x3 and a ReLU without bias or padding, the second on the output of the first; of each layer the mean and
  the standard deviation of every channel over the positions; 96 features a level.

All features are multiplied by `GAIN`. Filters are rows of uniform numbers in (-1/2, 1/2) of `draws` (seed, stream
"random features 1" and "... 2", image index = filter), made orthogonal in float64 to the constants of each input
channel and to one another by Gram and Schmidt, twice for accuracy, with exactly rounded sums, then of squared norm 2
(He et al. 2015, arXiv:1502.01852) and rounded to float32. No step of this depends on a library's order of summation, so
the weights are the same bits everywhere. Being orthogonal to constants, filters see contrasts alone; the 24 of the
first layer are a basis of all of them in a 3x3 patch of colour.

Departs from the papers: they match textures by Gram matrices or judge by a random VGG; means and deviations of two
shallow layers at every scale are fewer numbers.

Axes: N images, C channels, H height, W width, D features, F filters.
"""

import hashlib
import math
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d, relu

from bigtrain.draws import Draws
from bigtrain.metrics.exchange import Ranks
from bigtrain.metrics.features import EXTRACTORS, Extractor, RealSet, with_channels
from bigtrain.metrics.weights import WeightStore
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.settings import Settings

NAME = "bigtrain-random"
VERSION = 1  # raise when the network changes: figures are then another protocol's
COLOURS = 3
LAYOUT_SIDE = 4
SMALLEST_LEVEL = 8  # pixels: the second layer's map is then 4x4
KERNEL_SIDE = 3
FILTERS = (KERNEL_SIDE**2 - 1) * COLOURS  # as many as there are contrasts in a patch of colour
FILTER_NORM = math.sqrt(2.0)
GAIN = 8.0  # gives natural photographs a mean square near 1, where the cubic kernel distance sees more than means
HALF_RANGE = 127.5  # 0..255 -> -1..1

Rows = list[list[float]]


@EXTRACTORS.add("random")
class RandomSettings(Settings):
    """Colours and textures in the features of a fixed random network: `fd_random` and `kd_random`; for images without
    labels."""

    kind: Literal["random"] = "random"
    """Which extractor."""
    seed: int = 0
    """Seed of the network; figures of two seeds are not comparable."""

    def build(
        self, real: RealSet, cache: Path, device: torch.device, ranks: Ranks, weights: WeightStore | None = None
    ) -> Extractor:
        """Return the extractor; `cache`, `ranks` and `weights` are not used.

        Raises:
            RecipeError: images with an alpha channel, or under 8 px.
        """
        side = min(real.image.size)
        if real.image.channels not in (1, COLOURS) or side < SMALLEST_LEVEL:
            raise RecipeError(
                f"evaluate.extractor.kind: random reads gray or RGB images of at least {SMALLEST_LEVEL} px, and the "
                f"shards have {real.image.channels} channels and {side} px; use the classifier extractor"
            )
        network = RandomNetwork(self.seed)
        return Extractor(
            network=network.to(device).eval(),
            name=NAME,
            figure_prefix="fd_random",
            kernel_prefix="kd_random",
            dims=num_dims(real.image),
            fingerprint=network.fingerprint(),
            facts={
                "version": VERSION,
                "levels": num_levels(side),
                "measures": "colours, contrasts and textures; says nothing about objects; not comparable with FID",
            },
            device=device,
        )


class RandomNetwork(nn.Module):
    """Pixels of any size to features, by weights that are drawn once and never trained."""

    first: Tensor
    second: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.register_buffer("first", draw_filters(seed, "random features 1", COLOURS))
        self.register_buffer("second", draw_filters(seed, "random features 2", FILTERS))

    def fingerprint(self) -> str:
        """Return the sha256 of version and weights, as little-endian float32."""
        digest = hashlib.sha256(f"{NAME} {VERSION}\n".encode())
        for weight in (self.first, self.second):
            digest.update(weight.cpu().numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Map uint8 [N, 1 or 3, H, W] to float32 [N, D]."""
        level_NCHW = with_channels(image_NCHW, COLOURS).to(torch.float32) / HALF_RANGE - 1
        parts = [adaptive_avg_pool2d(level_NCHW, LAYOUT_SIDE).flatten(1) / LAYOUT_SIDE]
        for _ in range(num_levels(min(level_NCHW.shape[2:]))):
            hidden_NFHW = level_NCHW
            for weight in (self.first, self.second):
                hidden_NFHW = relu(conv2d(hidden_NFHW, weight))
                mean_NF11 = hidden_NFHW.mean((2, 3), keepdim=True)
                # Two passes: torch.var_mean takes four times as long on a CPU.
                deviation_NF = (hidden_NFHW - mean_NF11).square().mean((2, 3)).sqrt()
                parts += [mean_NF11.flatten(1), deviation_NF]
            level_NCHW = avg_pool2d(level_NCHW, 2)
        return GAIN * torch.cat(parts, dim=1)


def num_levels(side: int) -> int:
    """Return how often an image can be looked at when its side is halved in between: 2 at 16 px, 4 at 64 px."""
    return side.bit_length() - SMALLEST_LEVEL.bit_length() + 1


def num_dims(image: ImageSpec) -> int:
    """Return the number of features of such images: 240 at 16 px, 432 at 64 px."""
    return COLOURS * LAYOUT_SIDE**2 + num_levels(min(image.size)) * 2 * 2 * FILTERS


def draw_filters(seed: int, stream: str, channels: int) -> Tensor:
    """Return `FILTERS` orthogonal filters of squared norm 2, each with sum 0 on every channel.

    Returns:
        float32 [FILTERS, channels, 3, 3], equal in every bit on every machine.
    """
    area = KERNEL_SIDE**2
    size = channels * area
    # Always on the CPU, whatever torch's default device is.
    draws = Draws(seed=seed, salt=0, step=0, turn=0, index_N=torch.arange(FILTERS, device="cpu"))
    drawn: Rows = (draws.uniform(stream, size) - 0.5).tolist()
    constants = [[float(place // area == channel) for place in range(size)] for channel in range(channels)]
    filters = orthonormal(constants + drawn)[channels:]
    weight = torch.tensor(filters, dtype=torch.float64, device="cpu") * FILTER_NORM
    return weight.view(FILTERS, channels, KERNEL_SIDE, KERNEL_SIDE).float()


def orthonormal(rows: Rows) -> Rows:
    """Return orthonormal rows whose first n span what the first n given ones span (Gram and Schmidt, each row twice).

    Sums are rounded once (`math.fsum`), so equal rows give equal bits whatever the machine.
    """
    found: Rows = []
    for given in rows:
        row = given
        for other in found * 2:
            share = _dot(row, other)
            row = [value - share * along for value, along in zip(row, other, strict=True)]
        norm = math.sqrt(_dot(row, row))
        found.append([value / norm for value in row])
    return found


def _dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))
