"""Real digits in three parts, and made-up generators whose audit has a known answer."""

from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from bigtrain.data.batch import Batch
from bigtrain.evaluation.audit.subject import Part, Subject
from bigtrain.recipe.image import ImageSpec

NUM_TRAINING, NUM_HELD_OUT = 1000, 300  # and 497 that neither training nor the held-out part has
SIDE = 16
FIRST_FRESH = NUM_TRAINING + NUM_HELD_OUT


def digits() -> tuple[Tensor, Tensor]:
    """Return all 1,797 digits, uint8 [N, 1, 16, 16], and their classes, in a random order."""
    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    small = torch.tensor(bunch.images, dtype=torch.float32)[order, None] * (255 / 16)
    image = torch.nn.functional.interpolate(small, size=(SIDE, SIDE), mode="bilinear").round().to(torch.uint8)
    return image, torch.tensor(bunch.target)[order]


IMAGES, LABELS = digits()


def noisy(image_NCHW: Tensor, index_N: Tensor, strength: float = 3.0) -> Tensor:
    """Return images with a little noise, which depends on their numbers alone."""
    noise = torch.stack(
        [torch.randn(image_NCHW.shape[1:], generator=torch.Generator().manual_seed(int(i))) for i in index_N]
    )
    return (image_NCHW.float() + strength * noise).round().clamp(0, 255).to(torch.uint8)


def part(first: int, num_images: int) -> Part:
    """Return a stretch of the digits as a part."""

    def load(places: object) -> Batch:
        number_N = torch.tensor(list(places)) + first  # type: ignore[call-overload]
        return Batch(IMAGES[number_N], LABELS[number_N], number_N)

    return Part(num_images, load)


def copying(index_N: Tensor) -> Batch:
    """Draw training images with slight noise."""
    number_N = index_N % NUM_TRAINING
    return Batch(noisy(IMAGES[number_N], index_N), LABELS[number_N], index_N)


def fresh(index_N: Tensor) -> Batch:
    """Draw real digits that nobody has seen: the best generator there is."""
    number_N = FIRST_FRESH + index_N % (len(IMAGES) - FIRST_FRESH)
    return Batch(IMAGES[number_N], LABELS[number_N], index_N)


def subject(generate: Callable[[Tensor], Batch], **changes: object) -> Subject:
    """Return a generator with the digits it is held against."""
    facts: dict[str, object] = {
        "image": ImageSpec(SIDE, 1, 10),
        "images_seen": 1000,
        "class_names": tuple(str(digit) for digit in range(10)),
        "training": part(0, NUM_TRAINING),
        "held_out": part(NUM_TRAINING, NUM_HELD_OUT),
        "content_hash": "made-up digits",
        "mirror": False,
        "discriminator": None,
    }
    return Subject(generate=generate, **(facts | changes))  # type: ignore[arg-type]
