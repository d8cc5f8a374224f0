"""What resolutions a network is made for, and the widths that BigGAN and BigGAN-deep have at each.

The tables are those of the paper (Brock et al. 2019, arXiv:1809.11096, appendix B) for 128 to 512 px, and of the
released PyTorch code for 32 and 64 px. BigGAN-deep has the same widths; there a convolution makes the discriminator's
first one, where BigGAN has a block.
"""

from collections.abc import Collection
from typing import Annotated

from pydantic import Field

from bigtrain.recipe.image import ImageSpec

BASE_SIDE = 4  # side of the image that a generator's first linear map makes

# Output widths in multiples of `width`: the generator's linear map and then its resolutions; the discriminator's.
GENERATOR_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
DISCRIMINATOR_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
    512: (1, 1, 2, 4, 8, 8, 16, 16),
}
# How often a discriminator halves the side.
DISCRIMINATOR_HALVINGS = {32: 2, 64: 4, 128: 5, 256: 6, 512: 7}

AttentionSide = Annotated[int, Field(ge=4, le=512)]


def side_problems(kind: str, image: ImageSpec, sides: Collection[int]) -> list[str]:
    """Return one sentence if `kind` knows no such images, made for squares of these sides in pixels; else nothing."""
    if not image.is_square:
        height, width = image.size
        return [
            f"images are {height} px high and {width} px wide, but {kind} makes squares of {sorted(sides)} px; "
            "make square shards, or take a network for such images"
        ]
    if image.side not in sides:
        return [
            f"images have a side of {image.side} px, but {kind} is one of {sorted(sides)}; make shards of such a side"
        ]
    return []
