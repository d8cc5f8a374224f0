"""An audit finds what was put there, and nothing where there is nothing."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from bigtrain.data.batch import Batch
from bigtrain.evaluation.audit.audit import audit, build_looker
from bigtrain.evaluation.audit.copies import find_nearest
from bigtrain.evaluation.audit.leakage import _real
from bigtrain.evaluation.audit.section import AuditSettings, gather
from bigtrain.metrics.extractors.classifier import ClassifierSettings
from bigtrain.metrics.extractors.random_features import RandomSettings
from bigtrain.recipe.errors import UsageError
from tests.evaluation.made_subjects import (
    FIRST_FRESH,
    IMAGES,
    LABELS,
    NUM_HELD_OUT,
    NUM_TRAINING,
    copying,
    fresh,
    noisy,
    part,
    subject,
)

SETTINGS = AuditSettings(num_images=480, shown_images=2, num_neighbours=3)
CLASSIFIER = ClassifierSettings(shown_images=6_000, width=16)
CPU = torch.device("cpu")


def unwatched(batches, what, num_batches):
    """Show nothing."""
    return batches


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where the one classifier of this file is kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def audited(cache):
    """Audit a made-up generator, each one once."""
    kept = {}

    def once(generate, **changes):
        key = (generate, *changes)
        if key not in kept:
            asked = subject(generate, **changes)
            looker = build_looker(asked, CLASSIFIER, cache, CPU)
            kept[key] = audit(asked, looker, SETTINGS, unwatched)
        return kept[key]

    return once


class Memory:
    """A discriminator that knows the training images by their number, as far as `strength` goes."""

    def __init__(self, strength, group_images=1):
        self.strength, self.group_images = strength, group_images

    def __call__(self, batch):
        whole = len(batch) // self.group_images * self.group_images
        noise = torch.randn(len(batch), generator=torch.Generator().manual_seed(int(batch.sample_N.sum())))
        trained = (batch.sample_N < NUM_TRAINING) & (batch.image_NCHW == IMAGES[batch.sample_N]).flatten(1).all(1)
        return (10.0 * batch.label_N + self.strength * trained + noise)[:whole]


def test_a_generator_as_good_as_real_images_is_not_suspected(audited):
    found = audited(fresh)
    assert {name: section.suspicious for name, section in found.sections.items()} == {
        "nearest": False, "duplicates": False, "modes": False, "leakage": False, "discriminator": None,
    }  # fmt: skip
    for name in ("nearest", "duplicates", "modes", "leakage"):
        assert found.sections[name].verdict.startswith("nothing suspicious in 480 images")
    assert found.sections["nearest"].figures["farther_than_real_share"] == pytest.approx(0.5, abs=0.06)
    assert found.sections["duplicates"].figures["expected_share"] == pytest.approx(3 / 301)
    assert found.sections["modes"].figures["classes"]["covered"] == 10
    assert found.sections["leakage"].figures["accuracy"] > 0.9


def test_copies_with_slight_noise_are_found(audited):
    found = audited(copying)
    nearest, duplicates = found.sections["nearest"], found.sections["duplicates"]
    assert nearest.suspicious
    assert "lie too near" in nearest.verdict
    assert duplicates.suspicious
    assert duplicates.figures["share"] > 0.95
    assert (
        "of 480 images are near-duplicates of training images, where 1.0% of real ones would be" in duplicates.verdict
    )
    # Image i is training image i, and the audit says so.
    assert nearest.figures["nearest_images"] == nearest.figures["nearest_training_places"]
    assert nearest.figures["nearest_distances"] == sorted(nearest.figures["nearest_distances"])


def test_some_copies_among_fresh_images_are_found(audited):
    def some(index_N):
        copies, others = copying(index_N), fresh(index_N)
        is_copy_N = index_N % 10 == 0
        image = torch.where(is_copy_N[:, None, None, None], copies.image_NCHW, others.image_NCHW)
        return Batch(image, torch.where(is_copy_N, copies.label_N, others.label_N), index_N)

    duplicates = audited(some).sections["duplicates"]
    assert duplicates.suspicious
    assert duplicates.figures["share"] == pytest.approx(0.1 + 0.9 * 0.01, abs=0.02)


def mirrored_copies(index_N):
    """Draw mirrored training images with slight noise."""
    number_N = index_N % NUM_TRAINING
    return Batch(noisy(IMAGES[number_N].flip(3), index_N), LABELS[number_N], index_N)


def test_mirrored_copies_count_where_training_mirrors(cache):
    shares = {}
    for mirror in (False, True):
        asked = subject(mirrored_copies, mirror=mirror)
        looker = build_looker(asked, RandomSettings(), cache, CPU)
        nearest = find_nearest(gather(asked, SETTINGS, looker, unwatched))
        shares[mirror] = float((nearest.distance_NK[:, 0] <= nearest.threshold.distance).double().mean())
        assert nearest.place_NK.shape == (480, 3)
        assert all(len(set(row)) == 3 for row in nearest.place_NK.tolist())  # each training image once
    assert shares[False] < 0.2
    assert shares[True] > 0.95


def test_without_a_holdout_training_images_are_measured_against_the_others(cache):
    asked = subject(copying, held_out=part(0, 0))
    looker = build_looker(asked, RandomSettings(), cache, CPU)
    seen = gather(asked, SETTINGS, looker, unwatched)
    nearest = find_nearest(seen)
    assert nearest.real_name == "training images (from the others)"
    feature = looker.extractor(IMAGES[:NUM_TRAINING]).double()
    distance = torch.cdist(feature, feature).fill_diagonal_(torch.inf).amin(1)[seen.training_places]
    assert torch.allclose(nearest.distance_R, distance, atol=1e-4)
    assert len(distance) == 480
    assert (nearest.distance_NK[:, 0] <= nearest.threshold.distance).double().mean() > 0.95


def test_missing_classes_and_few_images_are_named(audited):
    def without_8_and_9(index_N):
        numbers = (LABELS[FIRST_FRESH:] < 8).nonzero()[:, 0] + FIRST_FRESH
        number_N = numbers[index_N % len(numbers)]
        return Batch(IMAGES[number_N], LABELS[number_N], index_N)

    def of_20_images(index_N):
        number_N = FIRST_FRESH + (index_N * 7919) % 20
        return Batch(noisy(IMAGES[number_N], index_N, 0.5), LABELS[number_N], index_N)

    modes = audited(without_8_and_9).sections["modes"]
    assert modes.suspicious
    assert modes.figures["classes"]["missing"] == ["8", "9"]
    assert "2 of 10 classes are missing or nearly so (8, 9)" in modes.verdict
    few = audited(of_20_images).sections["modes"]
    assert few.suspicious
    assert few.figures["birthday"]["support_images"] == pytest.approx(20, rel=0.15)
    assert few.figures["birthday"]["batches_with_a_pair"]["32"] > 0.9
    assert "pairs repeat as if there were" in few.verdict


def test_a_class_that_shows_another_is_named(audited):
    def threes_for_fives(index_N):
        batch = fresh(index_N)
        threes = (LABELS[FIRST_FRESH:] == 3).nonzero()[:, 0] + FIRST_FRESH
        image = batch.image_NCHW.clone()
        image[batch.label_N == 5] = IMAGES[threes[index_N[batch.label_N == 5] % len(threes)]]
        return Batch(image, batch.label_N, index_N)

    leakage = audited(threes_for_fives).sections["leakage"]
    assert leakage.suspicious
    assert leakage.figures["leaking_classes"] == ["5"]
    assert leakage.verdict.endswith("1 class is misread more often than real images: 5")
    assert next(iter(leakage.figures["largest_leaks"])) == "5 as 3"
    assert leakage.figures["num_real"] == NUM_HELD_OUT


def test_a_discriminator_that_knows_its_images_is_found(audited):
    knows = audited(fresh, discriminator=Memory(2.0)).sections["discriminator"]
    assert knows.suspicious
    assert knows.verdict.startswith("it knows its training images: of 480 training and 300 held-out images, in 9")
    # Of two normal numbers, the one with a mean 2 higher is the larger with probability Phi(2 / sqrt 2) = 0.921.
    assert knows.figures["training_above_held_out_share"] == pytest.approx(0.921, abs=0.02)
    assert knows.figures["way_to_generated"] == pytest.approx(1, abs=0.1)
    assert knows.figures["training"]["num_images"] == 480


def test_a_discriminator_that_does_not_is_not_whatever_its_classes(audited):
    """Outputs of classes lie 10 apart and the held-out part has other shares of them."""
    few_classes = part(NUM_TRAINING, NUM_HELD_OUT)
    low = (LABELS[NUM_TRAINING:FIRST_FRESH] < 4).nonzero()[:, 0].tolist()
    held_out = type(few_classes)(len(low), lambda places: few_classes.load([low[place] for place in places]))
    found = audited(fresh, discriminator=Memory(0.0), held_out=held_out).sections["discriminator"]
    assert not found.suspicious
    assert found.figures["training"]["mean"] - found.figures["held_out"]["mean"] > 10
    assert found.figures["training_above_held_out_share"] == pytest.approx(0.5, abs=0.06)


def test_without_a_holdout_the_discriminator_is_not_judged(audited):
    found = audited(fresh, held_out=part(0, 0), discriminator=Memory(2.0, group_images=100)).sections["discriminator"]
    assert found.suspicious is None
    assert found.verdict.endswith("train with data.holdout")
    assert found.figures["training"]["num_images"] == 400  # whole groups of 100
    assert len(found.pictures) == 1


def test_an_audit_is_written_with_its_pictures_and_repeats(audited, cache, tmp_path):
    found = audited(fresh)
    record, *pictures = found.write(tmp_path / "000000001000.json")
    written = json.loads(record.read_text())
    assert list(written) == [
        "images_seen", "salt", "protocol", "nearest", "duplicates", "modes", "leakage", "discriminator", "pictures",
    ]  # fmt: skip
    assert (written["images_seen"], written["salt"]) == (1000, 0)
    assert [tmp_path / name for name in written["pictures"].values()] == pictures
    assert [picture.name for picture in pictures] == [
        f"000000001000-{name}.png" for name in ("nearest", "modes", "pairs", "confusion")
    ]
    for picture in pictures:
        assert min(Image.open(picture).size) > 200
    asked = subject(fresh)
    looker = build_looker(asked, CLASSIFIER, cache, CPU)
    again = audit(asked, looker, SETTINGS, unwatched).write(tmp_path / "again" / "000000001000.json")
    assert again[0].read_bytes() == record.read_bytes()


def test_one_training_image_is_refused(cache):
    asked = subject(fresh, training=part(0, 1))
    looker = build_looker(asked, RandomSettings(), cache, CPU)
    with pytest.raises(UsageError, match="the shards hold 1 training image"):
        audit(asked, looker, SETTINGS, unwatched)


def test_held_out_images_without_a_label_are_no_errors_of_the_classifier() -> None:
    held_out = SimpleNamespace(seen_N=torch.tensor([0, 1, 1, 0]), label_N=torch.tensor([0, 1, -1, 1]))
    assert _real(SimpleNamespace(held_out=held_out), {}) == ((3, 2), "held-out images")
    unlabelled = SimpleNamespace(seen_N=torch.tensor([0]), label_N=torch.tensor([-1]))
    facts = {"held_out_images": 10, "held_out_accuracy": 0.9}
    assert _real(SimpleNamespace(held_out=unlabelled), facts)[0] == (10, 9)
