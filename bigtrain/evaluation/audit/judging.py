"""Has the discriminator learnt its training images by heart? Its output on them, on held-out and on generated images.

Axes: L images that have a logit.
"""

from typing import Any

from torch import Tensor

from bigtrain.evaluation.audit.look import Looks
from bigtrain.evaluation.audit.pictures import logits_picture
from bigtrain.evaluation.audit.section import Gathered, Picture, Section, percent
from bigtrain.metrics.audit.overfitting import above_generated, mean_sign, way_to_generated
from bigtrain.metrics.audit.significance import SIGNIFICANCE, rank_test

FEWEST = 2  # logits of a set


def discriminator_section(seen: Gathered) -> Section:
    """Say whether training images get larger outputs than held-out ones."""
    if seen.looker.discriminator is None:
        return Section(None, "a snapshot holds no discriminator; name a checkpoint or a run")
    sets = {"training": seen.training, "held_out": seen.held_out, "generated": seen.generated}
    known = {name: looks for name, looks in sets.items() if looks is not None and _num_logits(looks) >= FEWEST}
    figures: dict[str, Any] = {name: _of(looks) for name, looks in known.items()}
    if "generated" not in known or "training" not in known:
        return Section(None, "the discriminator compares more images at once than there are", figures)
    above = {name: _above(looks, seen.generated) for name, looks in known.items()}
    title = "The discriminator's output"
    has_classes = bool(seen.subject.image.num_classes)
    pictures = [Picture(title, "discriminator", lambda: logits_picture(title, above, has_classes))]
    if len(above.get("held_out", ())) < FEWEST:
        sentence = "no images were kept out of training to hold against the others; train with data.holdout"
        return Section(None, sentence, figures, pictures)
    suspicious, verdict, compared = _compare(above)
    return Section(suspicious, verdict, figures | compared, pictures)


def _compare(above: dict[str, Tensor]) -> tuple[bool, str, dict[str, Any]]:
    """Return whether the discriminator knows its training images, in a sentence, and figures."""
    training, held_out = above["training"], above["held_out"]
    test = rank_test(training, held_out)
    way = way_to_generated(training, held_out, above["generated"])
    suspicious = test.probability_above < SIGNIFICANCE
    counts = f"{len(training):,} training and {len(held_out):,} held-out images"
    larger = f"in {percent(test.share_above)} of pairs the training image gets the larger output"
    where = "" if way is None else f"; held-out ones lie {percent(way)} of the way from training to generated ones"
    if suspicious:
        verdict = f"it knows its training images: of {counts}, {larger}{where}"
    else:
        verdict = f"nothing suspicious in {counts}: {larger} (50% where they are alike)"
    figures = {
        "training_above_held_out_share": test.share_above,
        "training_above_held_out_z": test.z,
        "probability_of_so_far_above": test.probability_above,
        "way_to_generated": way,
    }
    return suspicious, verdict, figures


def _num_logits(looks: Looks) -> int:
    return 0 if looks.logit_L is None else len(looks.logit_L)


def _above(looks: Looks, generated: Looks) -> Tensor:
    """Return the outputs above the mean one on generated images of the same class."""
    assert looks.logit_L is not None, "there is a discriminator"
    assert generated.logit_L is not None, "there is a discriminator"
    label_L, label_G = (each.label_N[: _num_logits(each)] for each in (looks, generated))
    return above_generated(looks.logit_L, label_L, generated.logit_L, label_G)


def _of(looks: Looks) -> dict[str, float]:
    """Return figures of the outputs as they are."""
    logit_L = looks.logit_L
    assert logit_L is not None, "there is a discriminator"
    return {
        "num_images": len(logit_L),
        "mean": float(logit_L.double().mean()),
        "std": float(logit_L.double().std()),
        "mean_sign": mean_sign(logit_L),
        "share_positive": float((logit_L > 0).double().mean()),
    }
