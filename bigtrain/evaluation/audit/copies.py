"""Are generated images copies of training images? Their nearest training images, against those of real images.

Distances are Euclidean in the extractor's features. Where training mirrored images, an image is held against mirrored
training images too (by mirroring the image, which comes to the same).

Axes: N generated images, R real ones, K neighbours, D features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bigtrain.draws import seed_of
from bigtrain.evaluation.audit.look import Looks
from bigtrain.evaluation.audit.pictures import Rows, neighbours_picture
from bigtrain.evaluation.audit.section import Gathered, Picture, Section, percent
from bigtrain.metrics.audit.duplicates import (
    NEAREST_SHARE,
    NearThreshold,
    copying_test,
    near_duplicates,
    near_threshold,
)
from bigtrain.metrics.audit.neighbours import NO_NUMBER, NearestNeighbours
from bigtrain.metrics.audit.significance import SIGNIFICANCE

FEWEST_HELD_OUT = 100  # under it the nearest 1% of held-out images are no image at all
LISTED = 20  # of the most suspicious images, in the figures


@dataclass(frozen=True)
class Nearest:
    """Nearest training images of generated and of real images."""

    distance_NK: Tensor
    place_NK: Tensor
    """int64, places in the training part."""
    distance_R: Tensor
    """Of real images, to the nearest training image other than themselves."""
    real_name: str
    threshold: NearThreshold


def find_nearest(seen: Gathered) -> Nearest:
    """Read all training images once and find those nearest to generated and to real images.

    Real images are the held-out ones, where there are enough; else the training images that were picked, each against
    all others.
    """
    has_held_out = seen.held_out is not None and len(seen.held_out) >= FEWEST_HELD_OUT
    real = seen.held_out if has_held_out and seen.held_out is not None else seen.training
    own_R = torch.full((len(real),), NO_NUMBER) if has_held_out else seen.training_places
    queries = [_features(seen.generated), _features(real)]
    repeats = len(queries[0]) // len(seen.generated)
    own = torch.cat([torch.full((len(queries[0]),), NO_NUMBER), own_R.repeat(repeats)])
    num_neighbours = min(seen.settings.num_neighbours, seen.subject.training.num_images)
    search = NearestNeighbours(torch.cat(queries), num_neighbours, own)
    training, size = seen.subject.training, seen.looker.batch_images
    places = torch.arange(training.num_images)
    batches = seen.watch(training.batches(places, size), "neighbours", -(-len(places) // size))
    for part, batch in zip(torch.split(places, size), batches, strict=True):
        search.add(part, seen.looker.features(batch))
    split = len(queries[0])
    distance_NK, place_NK = _fold(search.distance_QK[:split].cpu(), search.number_QK[:split].cpu(), repeats)
    distance_RK, _ = _fold(search.distance_QK[split:].cpu(), search.number_QK[split:].cpu(), repeats)
    distance_R = distance_RK[:, 0]
    name = "held-out images" if has_held_out else "training images (from the others)"
    return Nearest(distance_NK, place_NK, distance_R, name, near_threshold(distance_R))


def _features(looks: Looks) -> Tensor:
    return looks.feature_ND if looks.mirrored_ND is None else torch.cat([looks.feature_ND, looks.mirrored_ND])


def _fold(distance_QK: Tensor, number_QK: Tensor, repeats: int) -> tuple[Tensor, Tensor]:
    """Merge the neighbours of images and of their mirror images; each training image once, at its smaller distance."""
    num_neighbours = distance_QK.shape[1]
    distance = torch.cat(torch.chunk(distance_QK, repeats), 1)
    distance, order = distance.sort(dim=1, stable=True)
    number = torch.cat(torch.chunk(number_QK, repeats), 1).gather(1, order)
    is_repeat = (number[:, :, None] == number[:, None, :]).tril(-1).any(2)
    distance, order = distance.masked_fill(is_repeat, torch.inf).sort(dim=1, stable=True)
    return distance[:, :num_neighbours], number.gather(1, order)[:, :num_neighbours]


def nearest_section(seen: Gathered, found: Nearest) -> Section:
    """Say whether generated images are nearer to training images than real ones are; show the nearest ones."""
    distance_N = found.distance_NK[:, 0]
    test = copying_test(distance_N, found.distance_R)
    suspicious = test.probability_below < SIGNIFICANCE
    images = f"{len(distance_N):,} images"
    pairs = f"in {percent(test.share_above)} of pairs a generated image is farther from its nearest training image than"
    whose = f"{found.real_name} (50% where they are alike)"
    if suspicious:
        verdict = f"{images} lie too near: {pairs} {whose}: copied, or less varied than real images"
    else:
        verdict = f"nothing suspicious in {images}: {pairs} {whose}"
    order = distance_N.argsort(stable=True)
    figures = {
        "farther_than_real_share": test.share_above,
        "farther_than_real_z": test.z,
        "probability_of_so_near": test.probability_below,
        "median_distance": float(distance_N.median()),
        "median_distance_real": float(found.distance_R.median()),
        "real_is": found.real_name,
        "nearest_images": order[:LISTED].tolist(),
        "nearest_training_places": found.place_NK[order[:LISTED], 0].tolist(),
        "nearest_distances": distance_N[order[:LISTED]].tolist(),
    }
    return Section(suspicious, verdict, figures, [_picture(seen, found, order)])


def _picture(seen: Gathered, found: Nearest, order: Tensor) -> Picture:
    title = "Nearest training images"
    threshold = found.threshold
    near = f"{threshold.rank} of {threshold.num_real} {found.real_name}"
    return Picture(
        title,
        "nearest",
        lambda: neighbours_picture(title, _panels(seen, found, order), threshold.distance, near),
    )


def _panels(seen: Gathered, found: Nearest, order: Tensor) -> dict[str, Rows]:
    shown = min(seen.settings.shown_images, len(order))
    generator = torch.Generator().manual_seed(seed_of(seen.settings.seed, "audit pictures"))
    at_random = torch.randperm(len(order), generator=generator)[:shown].sort().values
    panels: dict[str, Rows] = {}
    for title, picked in (("most suspicious first", order[:shown]), ("picked at random", at_random)):
        numbers = picked.tolist()
        places = found.place_NK[picked]
        training = seen.training_images(places.flatten().tolist()).unflatten(0, places.shape)
        panels[title] = (numbers, seen.generated_images(numbers), training, found.distance_NK[picked])
    return panels


def duplicates_section(found: Nearest) -> Section:
    """Say how many generated images are near-duplicates of training images."""
    threshold = found.threshold
    duplicates = near_duplicates(found.distance_NK[:, 0], threshold)
    suspicious = duplicates.probability < SIGNIFICANCE
    num_images = len(found.distance_NK)
    share, expected = percent(duplicates.share), percent(threshold.expected_share)
    if suspicious:
        verdict = (
            f"{share} of {num_images:,} images are near-duplicates of training images, where {expected} of real ones "
            "would be"
        )
    else:
        verdict = (
            f"nothing suspicious in {num_images:,} images: {share} are near-duplicates of training images, and "
            f"{expected} of real ones would be"
        )
    figures = {
        "share": duplicates.share,
        "num_near": duplicates.num_near,
        "expected_share": threshold.expected_share,
        "probability_of_so_many": duplicates.probability,
        "threshold": threshold.distance,
        "threshold_is": f"the distance up to which {threshold.rank} of {threshold.num_real} {found.real_name} have a "
        f"training image: the nearest {NEAREST_SHARE:.0%}, at least one",
    }
    return Section(suspicious, verdict, figures)
