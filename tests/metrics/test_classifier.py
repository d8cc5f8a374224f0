"""The classifier extractor: good enough to judge by, the same every time, kept by content, known to torch-fidelity."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch_fidelity
from torch.utils.data import Dataset

from bigtrain.metrics.exchange import ONE_PROCESS
from bigtrain.metrics.extractors.classifier import (
    ClassifierSettings,
    describe_classifier,
    network_from_bytes,
    register_with_torch_fidelity,
    train_classifier,
)
from bigtrain.metrics.features import Extractor, RealImages
from bigtrain.metrics.frechet import frechet_distance
from bigtrain.metrics.kernel import KernelSettings, kernel_distance
from bigtrain.metrics.moments import Moments
from bigtrain.recipe.errors import RecipeError, WeightsError
from bigtrain.recipe.image import ImageSpec

CPU = torch.device("cpu")
QUICK = ClassifierSettings(dims=8, width=4, shown_images=256, max_images=200)


def unreadable(real: RealImages) -> RealImages:
    """The same images, but whoever loads one fails."""

    def load(numbers: object) -> tuple[torch.Tensor, torch.Tensor]:
        raise AssertionError("images were read")

    return replace(real, load=load)


def test_classifier_recognises_held_out_digits(classifier: Extractor):
    assert classifier.facts["held_out_images"] == 179
    assert classifier.facts["held_out_accuracy"] >= 0.97


def test_features_are_named_after_the_extractor(classifier: Extractor):
    assert (classifier.figure_prefix, classifier.kernel_prefix) == ("fd_classifier", "kd_classifier")


def test_features_have_a_unit_and_no_constant_dimension(classifier: Extractor, digits: RealImages):
    image, _ = digits.load(range(1000))
    feature_ND = classifier(image)
    assert feature_ND.shape == (1000, 64)
    assert feature_ND.dtype == torch.float32
    assert not feature_ND.requires_grad
    assert feature_ND.mean(0).abs().max() < 0.1
    assert ((feature_ND.std(0) > 0.9) & (feature_ND.std(0) < 1.1)).all()


def test_equal_settings_train_equal_bytes_and_leave_no_trace(digits: RealImages):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = train_classifier(QUICK, digits)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        second = train_classifier(QUICK, digits)
    assert first == second
    assert train_classifier(QUICK.model_copy(update={"seed": 1}), digits) != first


def test_order_of_reading_does_not_mix_labels_up(digits: RealImages):
    """Images are read in the order of the shards and put back in the order of picking, labels with them."""
    shown = 6000  # enough to recognise most digits, and nothing if labels were shuffled
    facts = describe_classifier(train_classifier(ClassifierSettings(width=8, shown_images=shown), digits))
    assert facts["held_out_accuracy"] > 0.8


def test_trained_network_is_kept_by_content_and_settings(digits: RealImages, tmp_path: Path):
    first = QUICK.build(digits, tmp_path, CPU, ONE_PROCESS)
    again = QUICK.build(unreadable(digits), tmp_path, CPU, ONE_PROCESS)
    assert again.fingerprint == first.fingerprint
    image, _ = digits.load(range(10))
    assert torch.equal(again(image), first(image))
    other_content = replace(unreadable(digits), content_hash="other")
    for settings, real in ((QUICK, other_content), (QUICK.model_copy(update={"dims": 9}), unreadable(digits))):
        with pytest.raises(AssertionError, match="images were read"):
            settings.build(real, tmp_path, CPU, ONE_PROCESS)
    assert [file.suffix for file in (tmp_path / "classifiers").iterdir()] == [".safetensors"]


@pytest.mark.parametrize("damage", [b"", b"not a file of tensors", None])
def test_damaged_cache_is_made_again(digits: RealImages, tmp_path: Path, damage: bytes | None):
    first = QUICK.build(digits, tmp_path, CPU, ONE_PROCESS)
    path = QUICK.cache_path(digits, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert QUICK.build(digits, tmp_path, CPU, ONE_PROCESS).fingerprint == first.fingerprint
    assert path.read_bytes() == whole


def test_gray_digits_look_the_same_as_rgb(classifier: Extractor, digits: RealImages):
    image, _ = digits.load(range(16))
    assert torch.allclose(classifier(image.expand(-1, 3, -1, -1)), classifier(image), atol=1e-5)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 16), (3, 64), (4, 40)])
def test_any_side_and_channel_count_can_be_learnt(channels: int, side: int):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (40, channels, side, side), dtype=torch.uint8, generator=generator)
    label = torch.arange(40) % 2
    image[label == 1] //= 4
    real = RealImages(
        ImageSpec(side, channels, 2), 40, "toy", lambda numbers: (image[list(numbers)], label[list(numbers)])
    )
    network = network_from_bytes(train_classifier(QUICK.model_copy(update={"shown_images": 3000}), real))
    feature_ND, logit_NK = network(image)
    assert feature_ND.shape == (40, 8)
    assert logit_NK.shape == (40, 2)
    assert (logit_NK.argmax(1) == label).float().mean() > 0.9


@pytest.mark.parametrize(("num_classes", "num_images"), [(0, 1797), (1, 1797), (10, 19)])
def test_images_it_cannot_learn_from_are_refused(digits: RealImages, tmp_path: Path, num_classes: int, num_images: int):
    real = replace(unreadable(digits), image=ImageSpec(32, 1, num_classes), num_images=num_images)
    with pytest.raises(RecipeError, match=f"{num_classes} classes and {num_images} images; use random or inception"):
        ClassifierSettings().build(real, tmp_path, CPU, ONE_PROCESS)


def test_images_without_a_label_do_not_train_it():
    image = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    label = torch.arange(60) % 2
    image[label == 1] //= 4  # one class is dark
    torn = torch.where(torch.arange(60) < 30, label, -1)
    scrambled = torch.where(torn[:, None, None, None] < 0, 255 - image, image)

    def trained(image_NCHW: torch.Tensor, label_N: torch.Tensor) -> bytes:
        real = RealImages(
            ImageSpec(8, 1, 2), 60, "toy", lambda numbers: (image_NCHW[list(numbers)], label_N[list(numbers)])
        )
        return train_classifier(QUICK, real)

    data = trained(image, torn)
    assert data == trained(scrambled, torn), "what images without a label show changes nothing"
    assert describe_classifier(data)["held_out_images"] == 3
    with pytest.raises(RecipeError, match=r"of 60 images only 10 have one \(20 are needed\); use random or inception"):
        trained(image, torch.where(torch.arange(60) < 10, label, -1))


class Pixels(Dataset):
    """Images as torch-fidelity takes them."""

    def __init__(self, image_NCHW: torch.Tensor) -> None:
        self.image_NCHW = image_NCHW

    def __len__(self) -> int:
        return len(self.image_NCHW)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.image_NCHW[number]


def test_torch_fidelity_knows_the_extractor_and_agrees(classifier: Extractor, digits: RealImages, shared_cache: Path):
    register_with_torch_fidelity()  # a second time
    real, _ = digits.load(range(600))
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 40, real.shape, dtype=torch.uint8, generator=generator)
    fake = (digits.load(range(600, 1150))[0].int() + noise[:550]).clamp(max=255).to(torch.uint8)
    theirs = torch_fidelity.calculate_metrics(
        input1=Pixels(fake), input2=Pixels(real), fid=True, kid=True, isc=True, kid_subset_size=100, kid_subsets=10,
        feature_extractor=classifier.name, cuda=False, cache=False, verbose=False, save_cpu_ram=True, rng_seed=4,
        feature_extractor_weights_path=str(ClassifierSettings().cache_path(digits, shared_cache)),
    )  # fmt: skip
    features = [classifier.padded(image, 64) for image in (fake, real)]
    moments = [Moments.of(feature_ND) for feature_ND in features]
    kernel = kernel_distance(*features, KernelSettings(subset_size=100, subsets=10, seed=4))
    assert frechet_distance(*moments) == pytest.approx(theirs["frechet_inception_distance"], abs=1e-3)
    assert frechet_distance(*moments) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert kernel.mean == pytest.approx(theirs["kernel_inception_distance_mean"], abs=1e-4)
    assert kernel.std == pytest.approx(theirs["kernel_inception_distance_std"], abs=1e-4)
    assert 5 < theirs["inception_score_mean"] <= 10


def test_torch_fidelity_without_a_weight_file_gets_a_sentence(tmp_path: Path):
    register_with_torch_fidelity()
    settings = {
        "input1": Pixels(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)),
        "isc": True,
        "cuda": False,
        "verbose": False,
    }
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    for path, words in (
        (None, "needs the file of a trained classifier"),
        (tmp_path / "x.safetensors", "train it again"),
    ):
        with pytest.raises(WeightsError, match=words):
            torch_fidelity.calculate_metrics(
                **settings, feature_extractor="bigtrain-classifier", feature_extractor_weights_path=path and str(path)
            )


def test_padding_changes_no_feature(classifier: Extractor, digits: RealImages):
    image, _ = digits.load(range(11))
    padded = classifier.padded(image, 8)
    assert padded.shape == (11, 64)
    assert torch.equal(padded[:8], classifier(image[:8]))
    assert torch.equal(padded[8:], classifier.padded(image[8:], 8))
    assert torch.allclose(padded, classifier(image), atol=1e-4)


def test_every_batch_has_the_one_shape():
    shapes: list[tuple[int, ...]] = []

    class Spy(torch.nn.Module):
        def forward(self, image_NCHW: torch.Tensor) -> torch.Tensor:
            shapes.append(tuple(image_NCHW.shape))
            return image_NCHW.flatten(1).float()

    spy = Extractor(Spy(), "spy", "fd_spy", "kd_spy", dims=4, fingerprint="", facts={}, device=CPU)
    image = torch.arange(44, dtype=torch.uint8).view(11, 1, 2, 2)
    assert torch.equal(spy.padded(image, 8), image.flatten(1).float())
    assert torch.equal(spy.padded(image[:3], 8), image[:3].flatten(1).float())
    assert shapes == [(8, 1, 2, 2)] * 3


def test_extractor_computes_in_float32_under_autocast(classifier: Extractor, digits: RealImages):
    image, _ = digits.load(range(8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = classifier(image)
    assert torch.equal(inside, classifier(image))


def test_extractor_refuses_floats(classifier: Extractor):
    with pytest.raises(AssertionError, match="uint8"):
        classifier(torch.zeros(1, 1, 32, 32))
