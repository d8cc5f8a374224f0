"""DCGAN: parameter counts by hand, the law of first weights, and what turns, precisions and classes may rely on."""

import pytest
import torch

from bigtrain.networks.dcgan import DCGANDiscriminatorSettings, DCGANGeneratorSettings
from bigtrain.networks.layers.statistics import has_batchnorm
from bigtrain.networks.registry import DISCRIMINATORS, GENERATORS
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec
from tests.networks.pair_checks import (
    check_bfloat16_autocast_trains_and_returns_float32,
    check_float64_stays_float64,
    check_labels_are_asked_for,
)


def count_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def build_pair(image, width=4):
    """Return a small generator and discriminator, and inputs of four images."""
    torch.manual_seed(0)
    generator = GENERATORS.get("dcgan")(width=width, latent_dim=7).build(image)
    discriminator = DISCRIMINATORS.get("dcgan")(width=width).build(image)
    label_N = torch.arange(4) % image.num_classes if image.num_classes else None
    return generator, discriminator, torch.randn(4, 7), label_N


@pytest.mark.parametrize("classes", [0, 10])
def test_parameter_counts_by_hand(classes):
    image = ImageSpec(64, 3, classes)
    with torch.device("meta"):
        generator, discriminator = DCGANGeneratorSettings().build(image), DCGANDiscriminatorSettings().build(image)
    inner = 16 * (512 * 256 + 256 * 128 + 128 * 64)
    gains = 2 * (256 + 128)
    assert count_parameters(generator) == (
        16 * (100 + classes) * 512 + inner + (16 * 64 * 3 + 3) + gains + 2 * (512 + 64)
    )
    assert count_parameters(discriminator) == (16 * (3 + classes) * 64 + 64) + inner + gains + 2 * 512 + (16 * 512 + 1)


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [0, 5])
def test_shapes_range_and_gradients(side, channels, classes):
    generator, discriminator, latent_NZ, label_N = build_pair(ImageSpec(side, channels, classes))
    with torch.no_grad():
        generator.layers[-1].weight.mul_(30)  # as it is drawn no image comes near -1 and 1
    image_NCHW = generator(latent_NZ, label_N)
    assert image_NCHW.shape == (4, channels, side, side)
    assert 0.9 < image_NCHW.abs().max() <= 1
    logit_N, feature_NF = discriminator(image_NCHW, label_N, features=True)
    assert logit_N.shape == (4,)
    assert feature_NF.shape == (4, 16 * 4 * side // 8)
    logit_N.square().sum().backward()
    for network in (generator, discriminator):
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_the_logit_is_a_convolution_over_the_whole_of_the_last_image():
    _, discriminator, _, _ = build_pair(ImageSpec(32, 3, 0))
    image_NCHW = torch.randn(4, 3, 32, 32)
    expected_N = discriminator.head(discriminator.layers(image_NCHW)).flatten()
    torch.testing.assert_close(discriminator(image_NCHW), expected_N)


def test_batchnorm_is_ours_and_not_at_the_ends():
    generator, discriminator, *_ = build_pair(ImageSpec(64, 3, 0))
    assert [type(layer).__name__ for layer in generator.layers] == [
        "ConvTranspose2d",
        *["AffineBatchNorm", "ReLU", "ConvTranspose2d"] * 4,
    ]
    assert [type(layer).__name__ for layer in discriminator.layers] == [
        *["Conv2d", "LeakyReLU"],
        *["Conv2d", "AffineBatchNorm", "LeakyReLU"] * 3,
    ]
    assert {layer.negative_slope for layer in discriminator.layers if hasattr(layer, "negative_slope")} == {0.2}
    assert has_batchnorm(generator)
    assert has_batchnorm(discriminator)


def test_first_weights_have_their_law():
    generator, discriminator, *_ = build_pair(ImageSpec(64, 3, 0), width=64)
    for network in (generator, discriminator):
        weights = [p.detach() for p in network.parameters() if p.ndim == 4]
        gains = torch.cat([p.detach() for name, p in network.named_parameters() if name.endswith("gain")])
        biases = torch.cat([p.detach() for name, p in network.named_parameters() if name.endswith("bias")])
        for weight in weights:
            # Of n normal numbers the mean is off by std / sqrt(n), the deviation by std / sqrt(2 n).
            error = 5 * 0.02 / weight.numel() ** 0.5
            assert abs(weight.mean()) < error
            assert abs(weight.std() - 0.02) < error
        assert abs(gains.mean() - 1) < 5 * 0.02 / len(gains) ** 0.5
        assert abs(gains.std() - 0.02) < 5 * 0.02 / len(gains) ** 0.5
        assert (biases == 0).all()


def test_labels_change_images_and_logits_and_can_be_mixed():
    generator, discriminator, latent_NZ, label_N = build_pair(ImageSpec(32, 1, 10))
    generator.eval(), discriminator.eval()
    image_NCHW, other_N = generator(latent_NZ, label_N), label_N + 1
    assert (image_NCHW - generator(latent_NZ, other_N)).abs().amax((1, 2, 3)).min() > 0
    assert (discriminator(image_NCHW, label_N) - discriminator(image_NCHW, other_N)).abs().min() > 0
    assert torch.equal(generator.synthesise(latent_NZ, generator.embed(label_N)), image_NCHW)
    half_NK = generator.embed(label_N) / 2 + generator.embed(other_N) / 2
    assert half_NK.sum(1).tolist() == [1.0] * 4
    assert generator.synthesise(latent_NZ, half_NK).shape == image_NCHW.shape


def test_labels_are_asked_for():
    check_labels_are_asked_for(*build_pair(ImageSpec(32, 1, 10))[:3])


def test_float64_stays_float64():
    check_float64_stays_float64(*build_pair(ImageSpec(32, 3, 5)))


def test_bfloat16_autocast_trains_and_returns_float32():
    check_bfloat16_autocast_trains_and_returns_float32(*build_pair(ImageSpec(32, 3, 5)))


@pytest.mark.parametrize("settings", [DCGANGeneratorSettings, DCGANDiscriminatorSettings])
@pytest.mark.parametrize(
    ("image", "words"),
    [
        (ImageSpec(128, 3, 10), r"a side of 128 px, but dcgan is one of \[32, 64\]; make shards of such a side"),
        (ImageSpec(32, 3, 10, width=64), "32 px high and 64 px wide, but dcgan makes squares.*make square shards"),
    ],
)
def test_images_that_do_not_fit_are_refused(settings, image, words):
    with pytest.raises(RecipeError, match=words):
        settings().build(image)
