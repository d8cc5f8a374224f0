"""StyleGAN2's generator (Karras et al. 2020, arXiv:1912.04958), with the conditions of arXiv:2006.06676.

Image sizes are `base` * 2^k. Departs from the papers: the running average of w is updated once per turn where the
policy says so. Convolutions are computed in another order than the paper's, see `layers/modulated.py`.
"""

# Axes: N images, C channels, H height, W width, Z latent, L layers (styles), W style (after L)

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bigtrain.networks.layers.fir import up
from bigtrain.networks.layers.latent_average import LatentAverage
from bigtrain.networks.layers.mapping import Mapping
from bigtrain.networks.layers.modulated import Noise, StyledConv2d, StyledOutput
from bigtrain.networks.layers.precision import at_least_float32, full_precision
from bigtrain.networks.layers.reduced import reduced_dtype
from bigtrain.networks.registry import GENERATORS
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.settings import Count, PositiveCount, Settings

LARGEST_SIDE = 1024  # the paper's; nothing larger has been tried


@GENERATORS.add("stylegan2")
class StyleGAN2GeneratorSettings(Settings):
    """StyleGAN2's skip generator."""

    kind: Literal["stylegan2"] = "stylegan2"
    channel_base: PositiveCount = 16384
    """Channels of an image times its shorter side, where `channel_max` allows."""
    channel_max: PositiveCount = 512
    """Largest number of channels."""
    latent_dim: PositiveCount = 512
    """Numbers in a latent."""
    style_dim: PositiveCount = 512
    """Numbers in a style (the papers' w) and in the class embedding."""
    mapping_layers: PositiveCount = 8
    """Linear maps from latent to style."""
    mapping_lr_multiplier: Annotated[float, Field(gt=0)] = 0.01
    """The mapping network learns this many times slower."""
    noise: Noise = "random"
    """Per-pixel noise in train mode: drawn anew, the constant one that eval mode uses, or none."""
    base: tuple[PositiveCount, PositiveCount] = (4, 4)
    """Height and width of the learned constant, in pixels; images are it times a power of two."""
    average_decay: Annotated[float, Field(ge=0, le=1)] = 0.995
    """Weight of the old average of styles when that of a new batch comes in."""
    conv_clamp: Annotated[float, Field(gt=0)] | None = None
    """Limit of what convolutions give out, for fp16 (256 there); None: none."""
    reduced_blocks: Count = 4
    """Blocks, from the largest image down, that run in the reduced precision of `precision`; the others in float32."""
    checkpoint_side: PositiveCount | None = 512
    """Blocks of at least this side, in pixels, recompute activations in the backward pass; None: none does."""

    def build(self, image: ImageSpec) -> "StyleGAN2Generator":
        """Return a generator with weights drawn from torch's generator, for such images.

        Raises:
            RecipeError: the images are not the base times a power of two.
        """
        return StyleGAN2Generator(self, image, block_sizes(image, self.base))


def block_sizes(image: ImageSpec, base: tuple[int, int]) -> list[tuple[int, int]]:
    """Return height and width of the images between the base and `image`, both ends included.

    Raises:
        RecipeError: there is no such sequence of doublings.
    """
    sizes = [base]
    while sizes[-1] < image.size and max(sizes[-1]) < LARGEST_SIDE:
        sizes.append((2 * sizes[-1][0], 2 * sizes[-1][1]))
    if sizes[-1] != image.size:
        height, width = image.size
        raise RecipeError(
            [
                f"images are {height}x{width} px, but stylegan2 with base {base[0]}x{base[1]} (both height x width) "
                f"makes that times a power of two, up to {LARGEST_SIDE} px; make shards of such a size, or choose "
                "another base"
            ]
        )
    return sizes


def block_channels(sizes: list[tuple[int, int]], channel_base: int, channel_max: int) -> list[int]:
    """Return the channels of the blocks of such sizes."""
    return [max(1, min(channel_base // min(size), channel_max)) for size in sizes]


class StyledMapping(Mapping):
    """Latents and labels to one style per layer; keeps the running average of styles, `average`."""

    def __init__(self, settings: StyleGAN2GeneratorSettings, num_classes: int, num_styles: int) -> None:
        super().__init__(
            settings.latent_dim,
            num_classes,
            settings.style_dim,
            settings.mapping_layers,
            settings.mapping_lr_multiplier,
        )
        self.num_styles = num_styles
        self.average = LatentAverage(settings.style_dim, settings.average_decay)

    def forward(self, latent_NZ: Tensor | None, label_N: Tensor | None = None) -> Tensor:
        """Return w_NLW, the same style for all layers, at least float32."""
        w_NW = self.average(super().forward(latent_NZ, label_N))
        w_NLW: Tensor = w_NW.unsqueeze(1).expand(-1, self.num_styles, -1)
        return w_NLW


class SynthesisBlock(nn.Module):
    """Doubles the side (all blocks but the first): one or two styled convolutions, and what they add to the image."""

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        size: tuple[int, int],
        image: ImageSpec,
        settings: StyleGAN2GeneratorSettings,
    ) -> None:
        super().__init__()
        style_dim, clamp = settings.style_dim, settings.conv_clamp
        self.conv0 = None
        if in_channels is not None:
            self.conv0 = StyledConv2d(in_channels, out_channels, style_dim, size, upsample=True, clamp=clamp)
        self.conv1 = StyledConv2d(out_channels, out_channels, style_dim, size, clamp=clamp)
        self.output = StyledOutput(out_channels, image.channels, style_dim, clamp=clamp)

    def forward(
        self, x_NCHW: Tensor, image_NCHW: Tensor | None, styles: tuple[Tensor, ...], noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Return the features in their own dtype, and the sum of images so far at this side, at least float32.

        Args:
            x_NCHW: features of the block before, in the dtype to compute in.
            image_NCHW: image of the block before; None in the first block.
            styles: [N, W] for each of the block's layers.
            noise: see `StyleGAN2Generator.synthesis`.
        """
        if self.conv0 is not None:
            x_NCHW = self.conv0(x_NCHW, styles[0], noise)
        x_NCHW = self.conv1(x_NCHW, styles[-2], noise)
        shown_NCHW = self.output(x_NCHW, styles[-1])
        return x_NCHW, shown_NCHW if image_NCHW is None else up(image_NCHW) + shown_NCHW


class StyleGAN2Generator(nn.Module):
    """generator(latent_NZ, label_N) -> image_NCHW, about -1..1, not bounded; made by StyleGAN2GeneratorSettings.build.

    Layer k of `num_styles` is a convolution for all but the last, which makes the image; a block's image output reads
    the style of the next block's first convolution.
    """

    def __init__(self, settings: StyleGAN2GeneratorSettings, image: ImageSpec, sizes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.settings = settings
        self.image = image
        self.latent_dim = settings.latent_dim
        self.num_styles = 2 * len(sizes)
        self.sizes = sizes
        channels = block_channels(sizes, settings.channel_base, settings.channel_max)
        self.mapping = StyledMapping(settings, image.num_classes, self.num_styles)
        self.const = nn.Parameter(torch.randn(channels[0], *sizes[0]))
        self.blocks = nn.ModuleList(
            SynthesisBlock(channels[index - 1] if index else None, channels[index], size, image, settings)
            for index, size in enumerate(sizes)
        )

    def forward(self, latent_NZ: Tensor, label_N: Tensor | None = None) -> Tensor:
        """Return images of the labels, with the settings' noise in train mode and the constant noise in eval mode.

        Args:
            latent_NZ: float, N(0, 1).
            label_N: int64, 0..K-1; None when the images have no classes.
        Returns:
            At least float32, [N, channels, height, width].
        """
        w_NLW = self.mapping(latent_NZ, label_N)
        return self.synthesis(w_NLW, self.settings.noise if self.training else "const")

    def synthesis(self, w_NLW: Tensor, noise: Noise = "random") -> Tensor:
        """Return images of styles.

        Args:
            w_NLW: a style for each of `num_styles` layers, as `mapping` returns.
            noise: "random" draws from torch's generator, "const" takes the buffers, "none" adds nothing.
        Returns:
            At least float32, [N, channels, height, width].
        """
        assert w_NLW.shape[1] == self.num_styles, f"{w_NLW.shape[1]} styles, not {self.num_styles}"
        reduced, full = reduced_dtype(self.const), self.const.dtype
        styles = at_least_float32(w_NLW).unbind(1)
        num_full = len(self.blocks) - self.settings.reduced_blocks
        with full_precision(self.const):
            x_NCHW = self.const.expand(w_NLW.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
            image_NCHW = None
            for index, block in enumerate(self.blocks):
                inputs = (
                    x_NCHW.to(full if index < num_full else reduced),
                    image_NCHW,
                    styles[max(0, 2 * index - 1) : 2 * index + 2],
                    noise,
                )
                if self._recomputes(index):
                    x_NCHW, image_NCHW = checkpoint(block, *inputs, use_reentrant=False)
                else:
                    x_NCHW, image_NCHW = block(*inputs)
        result_NCHW: Tensor | None = image_NCHW
        assert result_NCHW is not None
        return result_NCHW

    def _recomputes(self, index: int) -> bool:
        side = self.settings.checkpoint_side
        return side is not None and max(self.sizes[index]) >= side and torch.is_grad_enabled()

    def truncate(self, w_NLW: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """Return styles moved toward their average: mean + psi * (w - mean).

        Args:
            w_NLW: styles.
            psi: 1 changes nothing, 0 gives the average.
            cutoff: layers, from the first on, that are moved; None: all.
        """
        cutoff = self.num_styles if cutoff is None else cutoff
        near_NLW = torch.lerp(self.mapping.average.mean, w_NLW[:, :cutoff], psi)
        return torch.cat((near_NLW, w_NLW[:, cutoff:]), 1)
