"""Multilayer perceptrons: parameter counts by hand, maxout, dropout, the law of first weights, any image size."""

import pytest
import torch
from pydantic import ValidationError

from bigtrain.networks.layers.statistics import has_batchnorm
from bigtrain.networks.mlp import Maxout, MLPDiscriminatorSettings, MLPGeneratorSettings
from bigtrain.networks.registry import DISCRIMINATORS, GENERATORS
from bigtrain.recipe.image import ImageSpec
from tests.networks.pair_checks import (
    check_bfloat16_autocast_trains_and_returns_float32,
    check_float64_stays_float64,
    check_labels_are_asked_for,
)


def count_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def build_pair(image, **discriminator):
    """Return a small generator and discriminator, and inputs of four images."""
    torch.manual_seed(0)
    generator = GENERATORS.get("mlp")(hidden=(24, 16), latent_dim=7).build(image)
    discriminator = DISCRIMINATORS.get("mlp")(**{"hidden": (12, 8), "pieces": 3, **discriminator}).build(image)
    label_N = torch.arange(4) % image.num_classes if image.num_classes else None
    return generator, discriminator, torch.randn(4, 7), label_N


@pytest.mark.parametrize("classes", [0, 10])
def test_parameter_counts_by_hand(classes):
    image = ImageSpec(28, 1, classes)
    with torch.device("meta"):
        generator, discriminator = MLPGeneratorSettings().build(image), MLPDiscriminatorSettings().build(image)
    assert count_parameters(generator) == (100 + classes + 1) * 1200 + 1201 * 1200 + 1201 * 784
    assert count_parameters(discriminator) == (784 + classes + 1) * 1200 + 241 * 1200 + 241


@pytest.mark.parametrize("image", [ImageSpec(32, 1, 0), ImageSpec(32, 1, 10), ImageSpec(10, 3, 2, width=16)], ids=str)
def test_shapes_range_and_gradients(image):
    generator, discriminator, latent_NZ, label_N = build_pair(image)
    discriminator.eval()  # a unit that is left out has no gradient
    image_NCHW = generator(latent_NZ, label_N)
    assert image_NCHW.shape == (4, image.channels, *image.size)
    assert 0.9 < image_NCHW.abs().max() <= 1
    logit_N, feature_NF = discriminator(image_NCHW, label_N, features=True)
    assert logit_N.shape == (4,)
    assert feature_NF.shape == (4, 8)
    torch.testing.assert_close(logit_N, discriminator.head(feature_NF).squeeze(1))
    logit_N.square().sum().backward()
    for network in (generator, discriminator):
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []
        assert not has_batchnorm(network)


def test_maxout_is_the_largest_of_its_pieces():
    layer = Maxout(2, 3, pieces=2)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [2, 2]]))
        layer.linear.bias.copy_(torch.tensor([0.0, 0, 0, 0, 5, 0]))
    # |x|, |y| and max(x + y + 5, 2x + 2y)
    assert layer(torch.tensor([[3.0, -4.0], [-1.0, 2.0], [4.0, 4.0]])).tolist() == [[3, 4, 4], [1, 2, 6], [4, 4, 16]]


def test_dropout_acts_in_train_mode_and_comes_from_torch():
    _, discriminator, *_ = build_pair(ImageSpec(32, 1, 0))
    image_NCHW = torch.randn(4, 1, 32, 32)
    torch.manual_seed(1)
    first_N, second_N = discriminator(image_NCHW), discriminator(image_NCHW)
    assert not torch.equal(first_N, second_N)
    torch.manual_seed(1)
    assert torch.equal(discriminator(image_NCHW), first_N)
    discriminator.eval()
    assert torch.equal(discriminator(image_NCHW), discriminator(image_NCHW))
    _, without, *_ = build_pair(ImageSpec(32, 1, 0), dropout=0)
    assert torch.equal(without(image_NCHW), discriminator(image_NCHW))


def test_first_weights_keep_the_size_of_what_goes_through():
    torch.manual_seed(0)
    image = ImageSpec(32, 3, 0)
    generator, discriminator = MLPGeneratorSettings().build(image), MLPDiscriminatorSettings().build(image)
    rectified = [generator.layers[0], generator.layers[2]]
    others = [generator.layers[4], discriminator.layers[0].linear, discriminator.layers[2].linear, discriminator.head]
    for gain, layers in ((2**0.5, rectified), (1, others)):
        for layer in layers:
            weight = layer.weight.detach() * layer.in_features**0.5
            assert abs(weight.std() - gain) < 5 * gain / weight.numel() ** 0.5
            assert (layer.bias == 0).all()
    hidden_NF = generator.layers[:4](torch.randn(512, 100))
    assert hidden_NF.square().mean().item() == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("num_classes", [2, 10])
def test_labels_change_images_and_logits_and_can_be_mixed(num_classes):
    generator, discriminator, latent_NZ, label_N = build_pair(ImageSpec(8, 1, num_classes))
    generator.eval(), discriminator.eval()
    image_NCHW, other_N = generator(latent_NZ, label_N), (label_N + 1) % num_classes
    assert (image_NCHW - generator(latent_NZ, other_N)).abs().amax((1, 2, 3)).min() > 0
    assert (discriminator(image_NCHW, label_N) - discriminator(image_NCHW, other_N)).abs().min() > 0
    assert torch.equal(generator.synthesise(latent_NZ, generator.embed(label_N)), image_NCHW)


def test_labels_are_asked_for():
    check_labels_are_asked_for(*build_pair(ImageSpec(32, 1, 10))[:3])


def test_float64_stays_float64():
    check_float64_stays_float64(*build_pair(ImageSpec(12, 3, 5)))


def test_bfloat16_autocast_trains_and_returns_float32():
    check_bfloat16_autocast_trains_and_returns_float32(*build_pair(ImageSpec(12, 3, 5)))


def test_settings_without_layers_are_refused():
    with pytest.raises(ValidationError, match="hidden"):
        MLPGeneratorSettings(hidden=())
    with pytest.raises(ValidationError, match="dropout"):
        MLPDiscriminatorSettings(dropout=1)
