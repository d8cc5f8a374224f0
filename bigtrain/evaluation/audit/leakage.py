"""Is an image of the class that was asked for? A classifier of the run's own images reads conditional samples.

Axes: N images, K classes.
"""

from collections.abc import Mapping
from typing import Any

from bigtrain.evaluation.audit.pictures import confusion_picture
from bigtrain.evaluation.audit.section import Gathered, Picture, Section, percent
from bigtrain.metrics.audit.confusion import accuracy, class_accuracies, confusion, largest_leaks, leaking_classes

LISTED = 10  # leaks, in the figures
NAMED = 5  # classes that a sentence names


def leakage_section(seen: Gathered) -> Section:
    """Say which classes are misread more often than real images are."""
    classifier = seen.looker.classifier
    if seen.generated.seen_N is None or classifier is None:
        return Section(None, "the images have no labels that a classifier could learn")
    names, num_classes = seen.subject.class_names, seen.subject.image.num_classes
    count_KK = confusion(seen.generated.label_N, seen.generated.seen_N, num_classes)
    real, real_name = _real(seen, classifier.facts)
    leaking = leaking_classes(count_KK, *real)
    share, real_share = accuracy(count_KK), real[1] / real[0]
    reads = f"the classifier reads {percent(share)} of {len(seen.generated):,} images as the class asked for"
    beside = f"and {percent(real_share)} of {real[0]:,} {real_name}"
    if leaking:
        listed = ", ".join(names[k] for k in leaking[:NAMED]) + (" ..." if len(leaking) > NAMED else "")
        plural = "class is" if len(leaking) == 1 else "classes are"
        verdict = f"{reads}, {beside}; {len(leaking)} {plural} misread more often than real images: {listed}"
    else:
        verdict = f"nothing suspicious in {len(seen.generated):,} images: {reads}, {beside}"
    figures = {
        "accuracy": share,
        "accuracy_real": real_share,
        "num_real": real[0],
        "real_is": real_name,
        "class_names": list(names),
        "class_accuracy": class_accuracies(count_KK),
        "leaking_classes": [names[k] for k in leaking],
        "largest_leaks": {
            f"{names[asked]} as {names[as_]}": part for asked, as_, part in largest_leaks(count_KK, LISTED)
        },
        "confusion": count_KK.tolist(),
        "classifier": dict(classifier.facts),
    }
    title = "Class asked for and class seen"
    picture = Picture(title, "confusion", lambda: confusion_picture(title, count_KK, names))
    return Section(bool(leaking), verdict, figures, [picture])


def _real(seen: Gathered, facts: Mapping[str, Any]) -> tuple[tuple[int, int], str]:
    """Return how many real images that did not train the classifier there are, how many it reads right, and which."""
    if seen.held_out is not None and seen.held_out.seen_N is not None:
        right = int((seen.held_out.seen_N == seen.held_out.label_N).sum())
        num_labelled = int((seen.held_out.label_N >= 0).sum())
        if num_labelled:
            return (num_labelled, right), "held-out images"
    num_images = int(facts["held_out_images"])
    right = round(facts["held_out_accuracy"] * num_images)
    return (num_images, right), "training images that the classifier was not shown"
