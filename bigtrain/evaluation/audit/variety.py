"""Does the generator make all kinds of images, and how many different ones? Classes, clusters and birthdays.

Axes: N images, D features, K classes or bins.
"""

from typing import Any

import torch

from bigtrain.draws import seed_of
from bigtrain.evaluation.audit.pictures import Couples, bars_picture, pairs_picture
from bigtrain.evaluation.audit.section import Gathered, Picture, Section
from bigtrain.metrics.audit.birthday import Pairs, Support, batches_with_a_pair, excess, near_pairs, support_size
from bigtrain.metrics.audit.modes import (
    BIN_LEVEL,
    Bins,
    Counts,
    counted,
    different_bins,
    divergence,
    entropy,
    log_cardinality,
    missing_bins,
    normal_quantile,
    number_of_bins,
    sampling_divergence,
    surprising_bins,
)
from bigtrain.metrics.audit.significance import SIGNIFICANCE

SHOWN_PAIRS = 12
EXCESS_Z = -normal_quantile(SIGNIFICANCE)  # standard errors
NAMED = 5  # bins and classes that a sentence names


def variety_section(seen: Gathered, near_distance: float) -> Section:
    """Say which classes and clusters are missing, whether clusters differ, and whether images repeat.

    Args:
        seen: what was looked at.
        near_distance: up to which two images count as one; that of near-duplicates.
    """
    classes, no_classes = _classes(seen)
    clusters, odd_clusters = _clusters(seen)
    birthday, repeats, pictures = _birthday(seen, near_distance)
    findings = [finding for finding in (no_classes, odd_clusters, repeats) if finding]
    num_images = len(seen.generated)
    if findings:
        verdict = f"of {num_images:,} images, {'; '.join(findings)}"
    else:
        verdict = f"nothing suspicious in {num_images:,} images: {_summary(classes, clusters, birthday)}"
    figures = {"classes": classes, "clusters": clusters, "birthday": birthday}
    return Section(bool(findings), verdict, figures, [*_bars(classes, clusters), *pictures])


def _summary(classes: dict[str, Any] | None, clusters: dict[str, Any] | None, birthday: dict[str, Any]) -> str:
    parts = []
    if classes is not None:
        parts.append(f"{classes['covered']} of {classes['num']} classes")
    if clusters is not None:
        parts.append(
            f"{clusters['covered']} of {clusters['num']} clusters ({clusters['num_different']} of another frequency)"
        )
    num_pairs = birthday["num_near_pairs"]
    return ", ".join([*parts, f"{num_pairs:,} near pair{'' if num_pairs == 1 else 's'}"])


def _classes(seen: Gathered) -> tuple[dict[str, Any] | None, str]:
    """Return figures of the classes that a classifier sees against those it sees in training images."""
    generated, training = seen.generated.seen_N, seen.training.seen_N
    if generated is None or training is None:
        return None, ""
    num_classes = seen.subject.image.num_classes
    figures, missing = _law(counted(generated, num_classes), counted(training, num_classes))
    names = [seen.subject.class_names[k] for k in missing]
    figures |= {"names": list(seen.subject.class_names), "missing": names}
    return figures, f"{len(names)} of {num_classes} classes are missing or nearly so ({_few(names)})" if names else ""


def _clusters(seen: Gathered) -> tuple[dict[str, Any] | None, str]:
    """Return figures of clusters that are fitted on half of the training images and counted on the other half."""
    training_ND = seen.training.feature_ND
    num_bins = number_of_bins(len(training_ND))
    if not num_bins:
        return None, ""
    generator = torch.Generator().manual_seed(seed_of(seen.settings.seed, "audit clusters"))
    order = torch.randperm(len(training_ND), generator=generator)
    half = len(order) // 2
    bins = Bins(training_ND[order[:half]], num_bins, seen.settings.seed)
    count_K = counted(bins.of(seen.generated.feature_ND), num_bins)
    law_K = counted(bins.of(training_ND[order[half:]]), num_bins)
    figures, missing = _law(count_K, law_K)
    different = different_bins(count_K, law_K)
    figures |= {
        "missing": missing,
        "different": different,
        "num_different": len(different),
        "num_different_expected": BIN_LEVEL * num_bins,
        "num_fitted_on": half,
        "num_real": int(law_K.sum()),
    }
    findings = []
    if missing:
        findings.append(f"{len(missing)} of {num_bins} clusters of real images are missing or nearly so")
    if len(different) >= surprising_bins(num_bins):
        findings.append(
            f"{len(different)} of {num_bins} clusters are more or less frequent than among real images, where chance "
            f"makes {BIN_LEVEL * num_bins:.0f}"
        )
    return figures, "; ".join(findings)


def _law(count_K: Counts, law_K: Counts) -> tuple[dict[str, Any], list[int]]:
    figures = {
        "num": len(count_K),
        "covered": int((count_K > 0).sum()),
        "entropy_nats": entropy(count_K),
        "entropy_real_nats": entropy(law_K),
        "entropy_most_nats": log_cardinality(len(count_K)),
        "kl_nats": divergence(count_K, law_K),
        "kl_by_chance_nats": sampling_divergence(len(count_K), int(count_K.sum()))
        + sampling_divergence(len(count_K), int(law_K.sum())),
        "counts": count_K.tolist(),
        "counts_real": law_K.tolist(),
    }
    return figures, missing_bins(count_K, law_K)


def _birthday(seen: Gathered, near_distance: float) -> tuple[dict[str, Any], str, list[Picture]]:
    """Return how many different images the near pairs speak for, generated and real."""
    if min(len(seen.generated), len(seen.training)) < 2:
        return {"num_near_pairs": 0}, "", []
    pairs = near_pairs(seen.generated.feature_ND, near_distance, SHOWN_PAIRS)
    real_pairs = near_pairs(seen.training.feature_ND, near_distance, SHOWN_PAIRS)
    support, real_support = support_size(pairs), support_size(real_pairs)
    z = excess(support, real_support)
    figures = {
        "threshold": near_distance,
        "num_near_pairs": pairs.num_near,
        **_support(support, pairs, ""),
        **_support(real_support, real_pairs, "_real"),
        "excess_z": z,
        "closest_pairs": [f"{a} and {b}" for a, b, _ in pairs.closest],
        "closest_distances": [distance for *_, distance in pairs.closest],
    }
    if z <= EXCESS_Z:
        return figures, "", [_pairs_picture(seen, pairs, real_pairs)]
    finding = (
        f"pairs repeat as if there were {support.num_images:,.0f} different images, where real ones repeat as if there "
        f"were {_size(real_support)}"
    )
    return figures, finding, [_pairs_picture(seen, pairs, real_pairs)]


def _support(support: Support, pairs: Pairs, suffix: str) -> dict[str, Any]:
    return {
        f"support_images{suffix}": support.num_images,
        f"support_images_at_least{suffix}": support.at_least,
        f"near_pair_rate{suffix}": support.rate,
        f"near_pair_rate_std{suffix}": support.rate_std,
        f"batches_with_a_pair{suffix}": {str(size): share for size, share in batches_with_a_pair(pairs).items()},
    }


def _size(support: Support) -> str:
    return f"{support.num_images:,.0f}" if support.num_images else f"more than {support.at_least:,.0f}"


def _pairs_picture(seen: Gathered, pairs: Pairs, real_pairs: Pairs) -> Picture:
    title = "Most similar pairs"
    return Picture(title, "pairs", lambda: pairs_picture(title, _pairs_panels(seen, pairs, real_pairs)))


def _pairs_panels(seen: Gathered, pairs: Pairs, real_pairs: Pairs) -> dict[str, Couples]:
    panels: dict[str, Couples] = {}
    for title, found in (("generated", pairs), ("training", real_pairs)):
        numbers = [number for a, b, _ in found.closest for number in (a, b)]
        if title == "generated":
            images = seen.generated_images(numbers)
        else:
            numbers = seen.training_places[numbers].tolist()
            images = seen.training_images(numbers)
        panels[title] = (numbers, images, [distance for *_, distance in found.closest])
    return panels


def _bars(classes: dict[str, Any] | None, clusters: dict[str, Any] | None) -> list[Picture]:
    panels = {}
    if classes is not None:
        panels["classes that the classifier sees"] = (classes["counts"], classes["counts_real"], classes["names"])
    if clusters is not None:
        panels["clusters of training images"] = (clusters["counts"], clusters["counts_real"], None)
    if not panels:
        return []
    title = "Classes and clusters"
    return [Picture(title, "modes", lambda: bars_picture(title, panels))]


def _few(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else "")
