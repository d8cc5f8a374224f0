"""A picture of a data set: random samples with their classes, and how many samples each class has.

Axes: K classes.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bigtrain.data.disk import write_aside
from bigtrain.data.index import NO_LABEL, add_histograms
from bigtrain.data.pixels import Size
from bigtrain.data.shards import ShardSet
from bigtrain.data.shuffle import permutation
from bigtrain.recipe.errors import DataError

GRID = 8  # samples a side
SMALLEST_TILE, LARGEST_TILE = 64, 128  # pixels; smaller images are enlarged by whole numbers, larger ones reduced
GAP, TEXT, BAR = 8, 14, 18  # pixels between tiles, of a line of text, of a bar and its gap
LISTED_CLASSES = 40  # bars; further classes are counted in one line
NAME_WIDTH, BAR_WIDTH, COUNT_WIDTH = 160, 320, 80  # pixels, of names at most
INK, FAINT, FILL, BAD = "#202020", "#707070", "#4477aa", "#cc3311"


def draw_overview(folder: Path, path: Path, seed: int = 0) -> None:
    """Draw samples and the class histogram of a folder of shards as a PNG.

    Args:
        folder: with `index.json`; samples that are damaged are drawn as crosses.
        path: the picture, replaced in one step.
        seed: which samples are drawn.

    Raises:
        DataError: the index is missing or damaged, or the picture cannot be written.
    """
    shards = ShardSet.open(folder)
    grid = _grid(shards, seed)
    bars = _bars(shards)
    sheet = Image.new("RGB", (grid.width + bars.width, max(grid.height, bars.height)), "white")
    sheet.paste(grid, (0, 0))
    sheet.paste(bars, (grid.width, 0))
    try:
        with write_aside(path) as stream:
            sheet.save(stream, format="PNG")
    except OSError as error:
        raise DataError(f"the picture {path} cannot be written ({error.strerror}); name another file") from error


def _grid(shards: ShardSet, seed: int) -> Image.Image:
    chosen = permutation(shards.num_samples, "overview", seed)[: GRID * GRID]
    tile_height, tile_width = _tile(shards.spec.size)
    tile_width *= shards.images_each
    columns = min(GRID, len(chosen))
    rows = -(-len(chosen) // columns)
    sheet = Image.new("RGB", (GAP + columns * (tile_width + GAP), GAP + rows * (tile_height + TEXT + GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for at, number in enumerate(chosen.tolist()):
        left = GAP + at % columns * (tile_width + GAP)
        top = GAP + at // columns * (tile_height + TEXT + GAP)
        try:
            image, label = _sample(shards, number)
            sheet.paste(image, (left, top))
            name = _name(shards, label)
        except DataError:
            box = (left, top, left + tile_width, top + tile_height)
            draw.rectangle(box, outline=BAD)
            draw.line(box, fill=BAD)
            name = "damaged"
        draw.text((left, top + tile_height), _cut(name, tile_width, font), fill=INK, font=font)
    return sheet


def _name(shards: ShardSet, label: int) -> str:
    """Return what stands below a sample: its class, where it has one."""
    if not shards.class_names:
        return ""
    return "no label" if label == NO_LABEL else shards.class_names[label]


def _tile(size: Size) -> Size:
    """Return the height and width in which images are drawn; their longer side decides."""
    longest = max(size)
    if longest < SMALLEST_TILE:
        times = -(-SMALLEST_TILE // longest)
        return size[0] * times, size[1] * times
    scale = min(longest, LARGEST_TILE) / longest
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _sample(shards: ShardSet, number: int) -> tuple[Image.Image, int]:
    """Return the picture of a sample, of a pair with the second image beside the first, and its label."""
    batch, (height, width) = shards.load([number]), _tile(shards.spec.size)
    images = [image_NCHW[0] for image_NCHW in (batch.image_NCHW, batch.image_b_NCHW) if image_NCHW is not None]
    sheet = Image.new("RGB", (width * len(images), height))
    for at, image_CHW in enumerate(images):
        sheet.paste(_picture(image_CHW, (height, width)), (width * at, 0))
    return sheet, int(batch.label_N[0])


def _picture(image_CHW: Tensor, tile: Size) -> Image.Image:
    pixels_HWC = image_CHW.permute(1, 2, 0).numpy()
    image = Image.fromarray(np.ascontiguousarray(pixels_HWC if pixels_HWC.shape[2] > 1 else pixels_HWC[..., 0]))
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    height, width = tile
    resample = Image.Resampling.NEAREST if image.width <= width else Image.Resampling.BOX
    return image.convert("RGB").resize((width, height), resample)


def _bars(shards: ShardSet) -> Image.Image:
    counts = add_histograms([entry.class_histogram for entry in shards.index.shards])
    names = shards.class_names
    count_K = [counts.get(label, 0) for label in range(len(names))]
    shown, font = count_K[:LISTED_CLASSES], ImageFont.load_default(12)
    cut = [_cut(name, NAME_WIDTH, font) for name in names[:LISTED_CLASSES]]
    start = 2 * GAP + math.ceil(max((font.getlength(name) for name in cut), default=0))
    sheet = Image.new("RGB", (start + BAR_WIDTH + COUNT_WIDTH, 3 * BAR + BAR * (len(shown) + 1)), "white")
    draw = ImageDraw.Draw(sheet)
    things = "images" if shards.images_each == 1 else "pairs of images"
    heading = f"{shards.index.num_samples} {things} of {shards.index.resolution[1]}x{shards.index.resolution[0]}"
    draw.text((GAP, GAP), f"{heading}, {len(names)} classes" if names else f"{heading}, no labels", fill=INK, font=font)
    if count_K:
        spread = (
            f"samples a class: {min(count_K)} to {max(count_K)}, {sum(not count for count in count_K)} classes empty"
        )
        draw.text((GAP, GAP + BAR), spread, fill=FAINT, font=font)
    for at, count in enumerate(shown):
        top = GAP + BAR * (at + 2)
        draw.text((GAP, top), cut[at], fill=INK, font=font)
        width = round(BAR_WIDTH * count / max(1, *count_K))
        if count:
            draw.rectangle((start, top, start + max(1, width), top + BAR - 5), fill=FILL)
        draw.text((start + width + GAP, top), str(count), fill=INK, font=font)
    more = [f"and {len(count_K) - LISTED_CLASSES} more classes"] if len(count_K) > LISTED_CLASSES else []
    if shards.index.num_unlabelled:
        more.append(f"{shards.index.num_unlabelled} samples without a label")
    draw.text((GAP, GAP + BAR * (len(shown) + 2)), "; ".join(more), fill=FAINT, font=font)
    return sheet


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return the start of a text that fits into `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
