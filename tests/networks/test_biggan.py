"""BigGAN: parameter counts of the released code, shapes, and what turns, precisions and memory layouts may rely on."""

import pytest
import torch

from benchmarks.reference_forms import unfuse_resampling
from bigtrain.networks.biggan import BigGANDiscriminatorSettings, BigGANGeneratorSettings
from bigtrain.networks.layers.batchnorm import AffineBatchNorm
from bigtrain.networks.layers.initialisation import initialise_weights
from bigtrain.networks.layers.spectral import SpectralConv2d
from bigtrain.networks.registry import DISCRIMINATORS, GENERATORS
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec
from tests.networks.pair_checks import (
    check_bfloat16_autocast_trains_and_returns_float32,
)

DIGITS = ImageSpec(side=32, channels=1, num_classes=10)


def count_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def build_pair(image=DIGITS, **settings):
    """Return a small generator and discriminator with weights that leave no gain at zero, and inputs of four images."""
    torch.manual_seed(0)
    generator = BigGANGeneratorSettings(width=4, latent_dim=40, shared_dim=6, attention_sides=(16,), **settings).build(
        image
    )
    discriminator = BigGANDiscriminatorSettings(width=4, attention_sides=(16, 8)).build(image)
    with torch.no_grad():
        for name, parameter in [*generator.named_parameters(), *discriminator.named_parameters()]:
            if name.endswith("gamma"):
                parameter.fill_(0.7)
    latent_NZ = torch.randn(4, 40)
    label_N = torch.arange(4) % image.num_classes if image.num_classes else None
    return generator, discriminator, latent_NZ, label_N


COUNTS = [
    (128, 96, 120, 70_433_988, 87_982_370),
    (128, 64, 120, 31_978_628, 39_448_258),
    (256, 96, 140, 82_235_844, 99_225_890),
    (512, 96, 128, 82_296_804, None),
]


@pytest.mark.parametrize(("side", "width", "latent_dim", "generator_count", "discriminator_count"), COUNTS)
def test_imagenet_parameter_counts(side, width, latent_dim, generator_count, discriminator_count):
    image = ImageSpec(side, 3, 1000)
    with torch.device("meta"):
        generator = GENERATORS.get("biggan")(width=width, latent_dim=latent_dim).build(image)
        discriminator = DISCRIMINATORS.get("biggan")(width=width).build(image)
        image_NCHW = generator(torch.empty(2, latent_dim), torch.zeros(2, dtype=torch.int64))
        logit_N = discriminator(image_NCHW, torch.zeros(2, dtype=torch.int64))
    assert count_parameters(generator) == generator_count
    assert discriminator_count in (None, count_parameters(discriminator))
    assert image_NCHW.shape == (2, 3, side, side)
    assert logit_N.shape == (2,)


def test_cifar_parameter_counts():
    image = ImageSpec(32, 3, 10)
    with torch.device("meta"):
        shared = BigGANGeneratorSettings(width=64, latent_dim=128).build(image)
        tables = BigGANGeneratorSettings(width=64, latent_dim=128, hierarchical=False, shared_dim=None).build(image)
        discriminator = BigGANDiscriminatorSettings(width=64).build(image)
    assert count_parameters(shared) == 4_373_251
    assert count_parameters(tables) == 4_304_387
    assert count_parameters(discriminator) == 4_207_361


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("num_classes", [0, 5])
@pytest.mark.parametrize("options", [{}, {"hierarchical": False}])
def test_shapes_range_and_gradients(channels, num_classes, options):
    generator, discriminator, latent_NZ, label_N = build_pair(ImageSpec(32, channels, num_classes), **options)
    image_NCHW = generator(latent_NZ, label_N)
    assert image_NCHW.shape == (4, channels, 32, 32)
    assert image_NCHW.abs().max() <= 1
    logit_N = discriminator(image_NCHW, label_N)
    assert logit_N.shape == (4,)
    logit_N.sum().backward()
    for network in (generator, discriminator):
        assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(("side", "latent_dim"), [(64, 40), (128, 42)])
def test_larger_sides_run(side, latent_dim):
    image = ImageSpec(side, 3, 3)
    generator = BigGANGeneratorSettings(width=2, latent_dim=latent_dim, shared_dim=4, init="normal02").build(image)
    discriminator = BigGANDiscriminatorSettings(width=2, init="normal02").build(image)
    image_NCHW = generator(torch.randn(2, latent_dim), torch.tensor([0, 2]))
    assert image_NCHW.shape == (2, 3, side, side)
    assert discriminator(image_NCHW, torch.tensor([0, 2])).isfinite().all()


def test_without_labels_and_chunks_normalisation_is_plain():
    generator, discriminator, latent_NZ, _ = build_pair(ImageSpec(32, 1, 0), hierarchical=False)
    assert isinstance(generator.blocks[0].bn1, AffineBatchNorm)
    assert generator.shared is None
    assert discriminator.embed is None
    assert discriminator(generator(latent_NZ)).shape == (4,)


def test_labels_change_images_and_logits():
    generator, discriminator, latent_NZ, label_N = build_pair()
    generator.eval()
    image_NCHW = generator(latent_NZ, label_N)
    assert not torch.allclose(image_NCHW, generator(latent_NZ, label_N + 1))
    assert not torch.allclose(discriminator(image_NCHW, label_N), discriminator(image_NCHW, label_N + 1))


def test_embeddings_can_be_mixed_between_classes():
    generator, _, latent_NZ, label_N = build_pair()
    generator.eval()
    torch.testing.assert_close(
        generator.synthesise(latent_NZ, generator.embed(label_N)), generator(latent_NZ, label_N), rtol=0, atol=0
    )
    tables, *_ = build_pair(**{"hierarchical": False})
    assert tables.synthesise(latent_NZ, 0.5 * tables.embed(label_N)).shape == (4, 1, 32, 32)
    without = BigGANGeneratorSettings(width=4, latent_dim=8, hierarchical=False, shared_dim=None).build(DIGITS)
    with pytest.raises(RecipeError, match="no shared class embedding"):
        without.embed(label_N)


def test_the_logit_is_linear_head_plus_projection():
    _, discriminator, _, label_N = build_pair()
    image_NCHW = torch.rand(4, 1, 32, 32) * 2 - 1
    logit_N, feature_NF = discriminator(image_NCHW, label_N, features=True)
    assert feature_NF.shape == (4, 16)
    assert (feature_NF >= 0).all()
    weight_F, row_NF = discriminator.linear.normalised_weight()[0], discriminator.embed.normalised_weight()[label_N]
    expected_N = (feature_NF * (weight_F + row_NF)).sum(1) + discriminator.linear.bias
    torch.testing.assert_close(logit_N, expected_N)
    assert torch.equal(discriminator(image_NCHW, label_N), logit_N)


def test_frozen_networks_get_no_gradient_but_pass_it_on():
    generator, discriminator, latent_NZ, label_N = build_pair()
    discriminator.requires_grad_(False)
    discriminator(generator(latent_NZ, label_N), label_N).sum().backward()
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    assert all(parameter.grad is not None for parameter in generator.parameters())
    discriminator.requires_grad_(True)
    generator.requires_grad_(False).zero_grad()
    discriminator(generator(latent_NZ, label_N), label_N).sum().backward()
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_a_gradient_penalty_reaches_every_weight_through_attention():
    _, discriminator, _, label_N = build_pair()
    image_NCHW = torch.randn(4, 1, 32, 32, requires_grad=True)
    (slope_NCHW,) = torch.autograd.grad(discriminator(image_NCHW, label_N).sum(), image_NCHW, create_graph=True)
    slope_NCHW.square().sum().backward()
    for attention in discriminator.attentions:
        assert attention.theta.weight.grad.abs().max() > 0


def test_attention_agrees_with_and_without_double_backward():
    _, discriminator, _, label_N = build_pair()
    image_NCHW = torch.randn(4, 1, 32, 32)
    fused_N = discriminator(image_NCHW, label_N)
    twice_N = discriminator(image_NCHW.requires_grad_(), label_N)
    torch.testing.assert_close(fused_N, twice_N)


def test_unfused_networks_give_the_same_numbers():
    generator, discriminator, latent_NZ, label_N = build_pair()
    generator.double(), discriminator.double()
    image_NCHW = generator(latent_NZ.double(), label_N)
    textbook_NCHW = unfuse_resampling(generator)(latent_NZ.double(), label_N)
    assert (image_NCHW - textbook_NCHW).abs().max() < 1e-12
    logit_N = discriminator(image_NCHW, label_N)
    assert (logit_N - unfuse_resampling(discriminator)(image_NCHW, label_N)).abs().max() < 1e-12


def test_channels_last_gives_the_same_numbers():
    generator, discriminator, latent_NZ, label_N = build_pair()
    image_NCHW = generator(latent_NZ, label_N)
    logit_N = discriminator(image_NCHW, label_N)
    logit_N.sum().backward()
    gradient = generator.linear.weight.grad.clone()
    generator.zero_grad()
    generator.to(memory_format=torch.channels_last)
    discriminator.to(memory_format=torch.channels_last)
    last_NCHW = generator(latent_NZ, label_N).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last_NCHW, image_NCHW, rtol=1e-4, atol=1e-5)
    last_N = discriminator(last_NCHW, label_N)
    torch.testing.assert_close(last_N, logit_N, rtol=1e-4, atol=1e-4)
    last_N.sum().backward()
    assert (generator.linear.weight.grad - gradient).norm() / gradient.norm() < 1e-4


def test_bfloat16_autocast_trains_and_returns_float32():
    check_bfloat16_autocast_trains_and_returns_float32(*build_pair())


def test_everything_a_network_needs_is_in_its_state_dict():
    generator, _, latent_NZ, label_N = build_pair()
    torch.manual_seed(1)
    other = generator.settings.build(DIGITS)
    other.load_state_dict(generator.state_dict())
    assert torch.equal(other.eval()(latent_NZ, label_N), generator.eval()(latent_NZ, label_N))


def test_initialisations_have_their_law():
    layer = SpectralConv2d(16, 8)
    initialise_weights(layer, "orthogonal")
    rows_DM = layer.weight.detach().flatten(1)
    torch.testing.assert_close(rows_DM @ rows_DM.T, torch.eye(8))
    assert layer.sigma().item() == pytest.approx(1, abs=1e-5)
    initialise_weights(layer, "normal02")
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
    with pytest.raises(RecipeError, match="did you mean 'orthogonal'"):
        initialise_weights(layer, "ortogonal")


@pytest.mark.parametrize(
    ("settings", "side", "words"),
    [
        ({"latent_dim": 128}, 128, "latent_dim 128 is not a multiple of 6.*nearest is 126"),
        ({"shared_dim": None}, 128, "shared_dim is off, but hierarchical is true"),
        ({}, 48, r"a side of 48 px, but biggan is one of \[32, 64, 128, 256, 512\]"),
    ],
)
def test_settings_that_make_no_network_are_refused(settings, side, words):
    with pytest.raises(RecipeError, match=words):
        BigGANGeneratorSettings(**settings).build(ImageSpec(side, 3, 10))


def test_all_problems_come_at_once():
    with pytest.raises(RecipeError) as caught:
        BigGANGeneratorSettings(latent_dim=7, shared_dim=None).build(DIGITS)
    assert len(caught.value.problems) == 2
    with pytest.raises(RecipeError, match="a side of 48 px"):
        BigGANDiscriminatorSettings().build(ImageSpec(48, 3, 10))


@pytest.mark.parametrize("settings", [BigGANGeneratorSettings, BigGANDiscriminatorSettings])
def test_images_that_are_not_square_are_refused(settings):
    with pytest.raises(RecipeError, match="64 px high and 96 px wide, but biggan makes squares.*make square shards"):
        settings().build(ImageSpec(64, 3, 10, width=96))
