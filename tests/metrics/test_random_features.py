"""The random extractor: the same network everywhere, blind to company, and a judge of colours and textures."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from bigtrain.data.photos import PhotoOptions, load_photos, plan_crops
from bigtrain.draws import Draws
from bigtrain.metrics.evaluation import build_evaluator
from bigtrain.metrics.exchange import ONE_PROCESS
from bigtrain.metrics.extractors.random_features import (
    GAIN,
    RandomNetwork,
    RandomSettings,
    draw_filters,
    num_dims,
    orthonormal,
)
from bigtrain.metrics.features import Extractor, RealImages
from bigtrain.metrics.frechet import frechet_distance
from bigtrain.metrics.kernel import KernelSettings, kernel_distance
from bigtrain.metrics.moments import Moments
from bigtrain.metrics.settings import EvaluationSettings
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec

CPU = torch.device("cpu")
NOWHERE = Path("/nowhere")
FINGERPRINT = "8051e09dff9435f219636530a65fd0ff32daddbf500705f25314d00edcf54d73"
NUM_CROPS = 800


def spec(side: int, channels: int = 3, width: int | None = None) -> ImageSpec:
    return ImageSpec(side, channels, num_classes=0, width=width)


def real_of(image: ImageSpec) -> RealImages:
    def load(numbers: object) -> tuple[Tensor, Tensor]:
        raise AssertionError("images were read")

    return RealImages(image, 100, "toy", load)


def extractor_of(image: ImageSpec, seed: int = 0) -> Extractor:
    return RandomSettings(seed=seed).build(real_of(image), NOWHERE, CPU, ONE_PROCESS)


def noise_images(num: int, side: int, channels: int = 3, width: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (num, channels, side, width or side), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def crops() -> Tensor:
    """Crops of two photographs, 16 px, uint8 [N, 3, 16, 16]: box averages of squares of 16 to 64 px."""
    photos = [torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() for photo in load_photos()]
    made = []
    for crop in plan_crops(PhotoOptions(16, count=NUM_CROPS), [(640, 427)] * 2):
        square = photos[crop.photo][:, crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
        made.append(torch.nn.functional.adaptive_avg_pool2d(square, 16))
    return torch.stack(made).round().to(torch.uint8)


def test_the_network_is_the_same_in_every_bit_on_every_machine():
    assert RandomNetwork(0).fingerprint() == FINGERPRINT
    torch.manual_seed(3)
    with torch.device("meta"), torch.inference_mode():
        assert extractor_of(spec(64)).fingerprint == FINGERPRINT
    assert RandomNetwork(1).fingerprint() != FINGERPRINT


def test_a_weight_by_hand():
    """The first filter is the first row of uniform numbers without its mean on each channel, of squared norm 2."""
    drawn = Draws(0, 0, 0, 0, torch.tensor([0])).uniform("random features 1", 3, 9)[0]
    centred = drawn - drawn.mean(1, keepdim=True)
    expected = centred / centred.norm() * math.sqrt(2)
    assert torch.allclose(draw_filters(0, "random features 1", 3)[0].double().view(3, 9), expected, atol=1e-7)


@pytest.mark.parametrize("channels", [3, 24])
def test_filters_are_orthogonal_and_blind_to_constants(channels: int):
    weight = draw_filters(0, "random features 2", channels).double()
    rows = weight.flatten(1)
    assert torch.allclose(rows @ rows.T, 2 * torch.eye(24, dtype=torch.float64), atol=1e-6)
    assert weight.sum((2, 3)).abs().max() < 1e-6


def test_the_first_layer_is_a_basis_of_all_contrasts_of_a_patch():
    basis = draw_filters(0, "random features 1", 3).double().flatten(1) / math.sqrt(2)
    patch = torch.randn(5, 3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    contrast = (patch - patch.mean(2, keepdim=True)).flatten(1)
    assert torch.allclose((patch.flatten(1) @ basis.T) @ basis, contrast, atol=1e-6)


def test_orthonormal_rows_are_orthonormal_even_when_nearly_parallel():
    rows = torch.tensor(orthonormal([[1.0, 1.0, 0.0], [1.0, 1.0, 1e-9], [0.3, 0.1, 5.0]]), dtype=torch.float64)
    assert torch.allclose(rows @ rows.T, torch.eye(3, dtype=torch.float64), atol=1e-15)
    assert torch.allclose(rows[0], torch.tensor([math.sqrt(0.5), math.sqrt(0.5), 0.0], dtype=torch.float64))


def test_a_plain_image_has_its_colour_as_layout_and_no_texture():
    colour = torch.tensor([255, 0, 128], dtype=torch.uint8)
    feature = extractor_of(spec(32))(colour.view(1, 3, 1, 1).expand(2, 3, 32, 32))
    expected = GAIN * torch.tensor([1.0, -1.0, 128 / 127.5 - 1]).repeat_interleave(16) / 4
    assert torch.allclose(feature[:, :48], expected.expand(2, -1), atol=1e-5)
    assert feature[:, 48:].abs().max() < 1e-4


def test_the_layout_is_the_mean_colour_of_sixteen_cells():
    image = noise_images(1, 16)
    cells = (image.double() / 127.5 - 1).view(1, 3, 4, 4, 4, 4).mean((3, 5)).flatten(1)
    assert torch.allclose(extractor_of(spec(16))(image)[:, :48].double(), GAIN * cells / 4, atol=1e-5)


def test_textures_are_means_and_deviations_of_two_layers_on_each_level():
    image = noise_images(3, 16)
    network = RandomNetwork(0).double()
    level, expected = image.double() / 127.5 - 1, []
    for _ in range(2):
        for response in (
            conv2d(level, network.first).clamp(min=0),
            conv2d(conv2d(level, network.first).clamp(min=0), network.second).clamp(min=0),
        ):
            expected += [response.flatten(2).mean(2), response.flatten(2).std(2, correction=0)]
        level = level.view(3, 3, level.shape[2] // 2, 2, -1, 2).mean((3, 5))
    assert torch.allclose(extractor_of(spec(16))(image)[:, 48:].double(), GAIN * torch.cat(expected, 1), atol=1e-4)


@pytest.mark.parametrize(
    ("side", "width", "dims"), [(8, None, 144), (16, None, 240), (17, None, 240), (32, 48, 336), (64, None, 432)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_gray_or_colour(side: int, width: int | None, dims: int, channels: int):
    extractor = extractor_of(spec(side, channels, width))
    feature = extractor(noise_images(4, side, channels, width))
    assert feature.shape == (4, dims)
    assert dims == extractor.dims == num_dims(spec(side, channels, width))
    assert feature.dtype == torch.float32
    assert (feature.std(0) > 0).all()
    assert (extractor.figure_prefix, extractor.kernel_prefix) == ("fd_random", "kd_random")


def test_gray_and_its_rgb_copy_are_one():
    image = noise_images(4, 16, channels=1)
    assert torch.equal(extractor_of(spec(16))(image.expand(-1, 3, -1, -1)), extractor_of(spec(16, 1))(image))


@pytest.mark.parametrize(("side", "channels"), [(7, 3), (64, 4)])
def test_images_it_cannot_read_are_refused(side: int, channels: int):
    with pytest.raises(RecipeError, match=f"have {channels} channels and {side} px; use the classifier"):
        extractor_of(spec(side, channels))


def test_an_image_does_not_depend_on_its_company():
    extractor, image = extractor_of(spec(16)), noise_images(11, 16)
    padded = extractor.padded(image, 8)
    turned = extractor.padded(image.flip(0), 8).flip(0)
    assert torch.allclose(padded, turned, atol=1e-5)
    assert torch.allclose(padded, torch.cat([extractor(one[None]) for one in image]), atol=1e-5)
    assert torch.equal(padded[8:], extractor.padded(image[8:], 8))


def test_settings_and_facts_say_which_network(crops: Tensor):
    settings = EvaluationSettings.model_validate({"every_images": 1, "extractor": {"kind": "random"}})
    assert settings.extractor == RandomSettings()
    facts = extractor_of(spec(64)).facts
    assert facts["levels"] == 4
    assert "not comparable with FID" in facts["measures"]


def blurred(image: Tensor, pixels: float) -> Tensor:
    place = torch.arange(-6, 7)
    kernel = torch.exp(-(place**2) / (2 * pixels**2))
    kernel = kernel / kernel.sum()
    planes = pad(image.float().flatten(0, 1)[:, None], (6, 6, 6, 6), mode="reflect")
    planes = conv2d(conv2d(planes, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return planes.view(image.shape).round().clamp(0, 255).to(torch.uint8)


def noisy(image: Tensor, levels: float) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image + levels * noise).round().clamp(0, 255).to(torch.uint8)


def tinted(image: Tensor, levels: float) -> Tensor:
    return (image + levels * torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1)).round().clamp(0, 255).to(torch.uint8)


def shuffled(image: Tensor, cells: float) -> Tensor:
    """Cut each image into cells x cells squares and put them together in another order."""
    num, count = len(image), int(cells)
    cut = image.view(num, 3, count, 16 // count, count, 16 // count).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.randperm(count**2, generator=torch.Generator().manual_seed(1))
    mixed = cut[:, order].view(num, count, count, 3, 16 // count, 16 // count)
    return mixed.permute(0, 3, 1, 4, 2, 5).reshape(image.shape)


@pytest.mark.parametrize(
    ("spoil", "amounts"),
    [(blurred, (0.7, 1.0, 2.0)), (noisy, (12, 24, 48)), (tinted, (16, 32, 64)), (shuffled, (2, 4, 8))],
)
def test_more_damage_gives_larger_distances(
    crops: Tensor, spoil: Callable[[Tensor, float], Tensor], amounts: tuple[float, ...]
):
    extractor = extractor_of(spec(16))
    real, others = crops[: NUM_CROPS // 2], crops[NUM_CROPS // 2 :]
    sets = [real, others, *(spoil(others, amount) for amount in amounts)]
    features = [extractor(image) for image in sets]
    moments = [Moments.of(feature_ND) for feature_ND in features]
    settings = KernelSettings(subsets=10, subset_size=400)
    frechet = [frechet_distance(one, moments[0]) for one in moments[1:]]
    kernel = [kernel_distance(feature, features[0], settings).mean for feature in features[1:]]
    for figures in (frechet, kernel):
        assert figures == sorted(figures)
    assert frechet[1] > 1.2 * frechet[0]
    assert frechet[-1] > 5 * frechet[0]


def test_an_evaluation_needs_no_labels(crops: Tensor, tmp_path: Path):
    settings = EvaluationSettings.model_validate(
        {"every_images": 1, "num_images": 300, "extractor": {"kind": "random"}, "kernel": {"subsets": 5}}
    )
    label_N = torch.full((NUM_CROPS,), -1)
    real = replace(real_of(spec(16)), num_images=NUM_CROPS, load=lambda n: (crops[list(n)], label_N[list(n)]))
    judge = build_evaluator(settings, real, tmp_path, CPU)
    good = judge.evaluate(lambda index_N: crops[index_N % NUM_CROPS])
    bad = judge.evaluate(lambda index_N: noisy(crops[index_N % NUM_CROPS], 32))
    assert set(good.figures) == {
        "fd_random", "fd_random_same_size", "fd_random_real_against_real",
        "kd_random", "kd_random_std", "kd_random_real_against_real",
    }  # fmt: skip
    assert bad.figures["fd_random"] > 3 * good.figures["fd_random"]
    assert good.protocol["extractor_sha256"] == FINGERPRINT
    assert good.protocol_name.startswith("fd_random-300-")
    assert {path.name for path in tmp_path.iterdir()} == {"real-statistics", "real-against-real"}
