"""BigGAN-deep: parameter counts of the released code, blocks against their textbook form, and what turns rely on."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.reference_forms import unfuse_resampling
from bigtrain.networks.biggan_deep import (
    BigGANDeepDiscriminatorSettings,
    BigGANDeepGeneratorSettings,
    DiscriminatorBlock,
    GeneratorBlock,
)
from bigtrain.networks.layers.batchnorm import AffineBatchNorm
from bigtrain.networks.layers.conditioning import Condition
from bigtrain.networks.registry import DISCRIMINATORS, GENERATORS
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec
from tests.networks.pair_checks import (
    check_bfloat16_autocast_trains_and_returns_float32,
)

DIGITS = ImageSpec(side=32, channels=1, num_classes=10)


def count_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def build_pair(image=DIGITS, width=4, **settings):
    """Return a small generator and discriminator with weights that leave no gain at zero, and inputs of four images."""
    torch.manual_seed(0)
    generator = BigGANDeepGeneratorSettings(
        width=width, latent_dim=10, shared_dim=6, attention_sides=(16,), **settings
    ).build(image)
    discriminator = BigGANDeepDiscriminatorSettings(width=width, attention_sides=(16, 8), **settings).build(image)
    with torch.no_grad():
        for name, parameter in [*generator.named_parameters(), *discriminator.named_parameters()]:
            if name.endswith("gamma"):
                parameter.fill_(0.7)
    latent_NZ = torch.randn(4, 10)
    label_N = torch.arange(4) % image.num_classes if image.num_classes else None
    return generator, discriminator, latent_NZ, label_N


COUNTS = [(128, 50_244_484, 34_590_210), (256, 55_736_708, 38_247_426)]


@pytest.mark.parametrize(("side", "generator_count", "discriminator_count"), COUNTS)
def test_imagenet_parameter_counts(side, generator_count, discriminator_count):
    image = ImageSpec(side, 3, 1000)
    with torch.device("meta"):
        generator = GENERATORS.get("biggan_deep")().build(image)
        discriminator = DISCRIMINATORS.get("biggan_deep")().build(image)
        image_NCHW = generator(torch.empty(2, 128), torch.zeros(2, dtype=torch.int64))
        logit_N = discriminator(image_NCHW, torch.zeros(2, dtype=torch.int64))
    assert count_parameters(generator) == generator_count
    assert count_parameters(discriminator) == discriminator_count
    assert image_NCHW.shape == (2, 3, side, side)
    assert logit_N.shape == (2,)


def test_a_parameter_count_by_hand():
    # ch 1 at 32 px: all 4 channels outside, 1 inside; condition of 3 + 2 numbers, 3 resolutions of one block.
    image = ImageSpec(32, 1, 7)
    plain = {"width": 1, "depth": 1, "attention_sides": ()}
    generator = BigGANDeepGeneratorSettings(latent_dim=3, shared_dim=2, **plain).build(image)
    norms = 2 * 5 * (4 + 1 + 1 + 1)
    convolutions = (4 * 1 + 1) + (9 + 1) + (9 + 1) + (1 * 4 + 4)
    head = (5 * 64 + 64) + 7 * 2
    assert count_parameters(generator) == head + 3 * (norms + convolutions) + 2 * 4 + (9 * 4 + 1)
    discriminator = BigGANDeepDiscriminatorSettings(**plain).build(image)
    assert count_parameters(discriminator) == (9 * 4 + 4) + 3 * convolutions + (4 + 1) + 7 * 4


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("num_classes", [0, 5])
@pytest.mark.parametrize("options", [{}, {"depth": 1, "bottleneck_ratio": 2}, {"depth": 3}])
def test_shapes_range_and_gradients(channels, num_classes, options):
    generator, discriminator, latent_NZ, label_N = build_pair(ImageSpec(32, channels, num_classes), **options)
    with torch.no_grad():
        generator.output_bn.gain.fill_(10)  # as it is built no image comes near -1 and 1
    image_NCHW = generator(latent_NZ, label_N)
    assert image_NCHW.shape == (4, channels, 32, 32)
    assert 0.9 < image_NCHW.abs().max() <= 1
    logit_N = discriminator(image_NCHW, label_N)
    assert logit_N.shape == (4,)
    logit_N.sum().backward()
    for network in (generator, discriminator):
        assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("side", [64, 128])
def test_larger_sides_run(side):
    image = ImageSpec(side, 3, 3)
    generator = BigGANDeepGeneratorSettings(width=2, latent_dim=8, shared_dim=4, init="normal02").build(image)
    discriminator = BigGANDeepDiscriminatorSettings(width=2, init="normal02").build(image)
    image_NCHW = generator(torch.randn(2, 8), torch.tensor([0, 2]))
    assert image_NCHW.shape == (2, 3, side, side)
    assert discriminator(image_NCHW, torch.tensor([0, 2])).isfinite().all()


def test_attention_follows_the_last_block_of_a_resolution():
    with torch.device("meta"):
        generator = BigGANDeepGeneratorSettings().build(ImageSpec(256, 3, 10))
        discriminator = BigGANDeepDiscriminatorSettings().build(ImageSpec(256, 3, 10))
    # Resolutions make 8, 16, 32, 64, 128, 256 px, and 128, 64, 32, 16, 8, 4 px; widths as in the paper's table 8.
    assert [isinstance(layer, torch.nn.Identity) for layer in generator.attentions] == [True] * 3 + [False] + [True] * 2
    assert generator.attentions[3].theta.weight.shape == (4 * 128 // 8, 4 * 128, 1, 1)
    assert [isinstance(layer, torch.nn.Identity) for layer in discriminator.attentions] == [True, False] + [True] * 4
    assert discriminator.attentions[1].theta.weight.shape == (4 * 128 // 8, 4 * 128, 1, 1)


def randomise(module):
    """Return the module in float64 with parameters drawn from N(0, 1), after many power iterations."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    for layer in module.modules():
        if hasattr(layer, "advance"):
            for _ in range(2000):
                layer.advance()
    return module


def normal(x_NCHW, layer, condition_ND):
    """Return conditional batch normalisation and ReLU, written out."""
    mean_C, var_C = x_NCHW.mean((0, 2, 3)), x_NCHW.var((0, 2, 3), correction=0)
    y_NCHW = (x_NCHW - mean_C[:, None, None]) / (var_C[:, None, None] + 1e-5).sqrt()
    gain_NC = 1 + condition_ND @ (layer.gain.weight / torch.linalg.matrix_norm(layer.gain.weight, 2)).T
    bias_NC = condition_ND @ (layer.bias.weight / torch.linalg.matrix_norm(layer.bias.weight, 2)).T
    return F.relu(y_NCHW * gain_NC[..., None, None] + bias_NC[..., None, None])


def conv(x_NCHW, layer):
    """Return the convolution with the weight divided by its largest singular value, without any fusion."""
    weight_DCKK = layer.weight / torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
    return F.conv2d(x_NCHW, weight_DCKK, layer.bias, padding=weight_DCKK.shape[-1] // 2)


@pytest.mark.parametrize(("narrow", "up"), [(6, True), (8, False)])
def test_a_generator_block_is_its_textbook_form(narrow, up):
    torch.manual_seed(1)
    condition = Condition(5, 0, batchnorm_eps=1e-5, batchnorm_momentum=0.1, spectral_eps=1e-12)
    settings = BigGANDeepGeneratorSettings(spectral_eps=1e-12)
    block = randomise(GeneratorBlock(8, narrow, condition, up=up, settings=settings))
    x_NCHW, condition_ND = torch.randn(3, 8, 6, 6, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    h_NCHW = conv(normal(x_NCHW, block.bn1, condition_ND), block.conv1)
    assert h_NCHW.shape[1] == 8 // 4
    h_NCHW, skip_NCHW = normal(h_NCHW, block.bn2, condition_ND), x_NCHW[:, :narrow]
    if up:
        h_NCHW, skip_NCHW = (F.interpolate(each, scale_factor=2, mode="nearest") for each in (h_NCHW, skip_NCHW))
    h_NCHW = conv(normal(conv(h_NCHW, block.conv2), block.bn3, condition_ND), block.conv3)
    h_NCHW = conv(normal(h_NCHW, block.bn4, condition_ND), block.conv4) + skip_NCHW
    torch.testing.assert_close(block(x_NCHW, condition_ND), h_NCHW, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("wide", "down"), [(12, True), (12, False), (8, True), (8, False)])
def test_a_discriminator_block_is_its_textbook_form(wide, down):
    torch.manual_seed(2)
    settings = BigGANDeepDiscriminatorSettings(spectral_eps=1e-12)
    block = randomise(DiscriminatorBlock(8, wide, down=down, settings=settings))
    x_NCHW = torch.randn(3, 8, 6, 6, dtype=torch.float64)
    h_NCHW = F.relu(conv(F.relu(conv(F.relu(x_NCHW), block.conv1)), block.conv2))
    assert h_NCHW.shape[1] == wide // 4
    h_NCHW, skip_NCHW = F.relu(conv(h_NCHW, block.conv3)), x_NCHW
    if down:
        h_NCHW, skip_NCHW = F.avg_pool2d(h_NCHW, 2), F.avg_pool2d(skip_NCHW, 2)
    if wide > 8:
        skip_NCHW = torch.cat((skip_NCHW, conv(skip_NCHW, block.shortcut)), 1)
    h_NCHW = conv(h_NCHW, block.conv4) + skip_NCHW
    torch.testing.assert_close(block(x_NCHW), h_NCHW, rtol=1e-9, atol=1e-9)


def test_the_whole_latent_and_the_class_condition_every_block():
    generator, _, latent_NZ, label_N = build_pair()
    seen = []
    for resolution in generator.blocks:
        for block in resolution:
            block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    generator(latent_NZ, label_N)
    expected_ND = torch.cat((generator.embed(label_N), latent_NZ), 1)
    assert len(seen) == 6
    assert all(torch.equal(condition_ND, expected_ND) for condition_ND in seen)


def test_without_labels_the_latent_alone_conditions():
    generator, discriminator, latent_NZ, _ = build_pair(ImageSpec(32, 1, 0))
    assert generator.shared is None
    assert discriminator.embed is None
    assert generator.linear.weight.shape[1] == 10
    assert not isinstance(generator.blocks[0][0].bn1, AffineBatchNorm)
    assert discriminator(generator(latent_NZ)).shape == (4,)
    with pytest.raises(RecipeError, match="no shared class embedding"):
        generator.embed(torch.zeros(1, dtype=torch.int64))


def test_labels_change_images_and_logits_and_can_be_mixed():
    generator, discriminator, latent_NZ, label_N = build_pair()
    generator.eval()
    image_NCHW = generator(latent_NZ, label_N)
    assert not torch.allclose(image_NCHW, generator(latent_NZ, label_N + 1))
    assert not torch.allclose(discriminator(image_NCHW, label_N), discriminator(image_NCHW, label_N + 1))
    assert torch.equal(generator.synthesise(latent_NZ, generator.embed(label_N)), image_NCHW)


def test_the_logit_is_linear_head_plus_projection():
    _, discriminator, _, label_N = build_pair()
    image_NCHW = torch.rand(4, 1, 32, 32) * 2 - 1
    logit_N, feature_NF = discriminator(image_NCHW, label_N, features=True)
    assert feature_NF.shape == (4, 16)
    weight_F, row_NF = discriminator.linear.normalised_weight()[0], discriminator.embed.normalised_weight()[label_N]
    torch.testing.assert_close(logit_N, (feature_NF * (weight_F + row_NF)).sum(1) + discriminator.linear.bias)


def test_a_gradient_penalty_reaches_every_weight_through_attention():
    _, discriminator, _, label_N = build_pair()
    image_NCHW = torch.randn(4, 1, 32, 32, requires_grad=True)
    (slope_NCHW,) = torch.autograd.grad(discriminator(image_NCHW, label_N).sum(), image_NCHW, create_graph=True)
    slope_NCHW.square().sum().backward()
    for attention in discriminator.attentions:
        assert attention.theta.weight.grad.abs().max() > 0


def test_unfused_networks_give_the_same_numbers_in_float64():
    generator, discriminator, latent_NZ, label_N = build_pair(ImageSpec(64, 3, 5), width=2)
    generator.double(), discriminator.double()
    image_NCHW = generator(latent_NZ.double(), label_N)
    assert image_NCHW.dtype == torch.float64
    textbook_NCHW = unfuse_resampling(generator)(latent_NZ.double(), label_N)
    assert (image_NCHW - textbook_NCHW).abs().max() < 1e-12
    logit_N = discriminator(image_NCHW, label_N)
    assert (logit_N - unfuse_resampling(discriminator)(image_NCHW, label_N)).abs().max() < 1e-12


def test_bfloat16_autocast_trains_and_returns_float32():
    check_bfloat16_autocast_trains_and_returns_float32(*build_pair())


def test_compiled_networks_have_the_gradients_and_statistics_of_eager_ones():
    generator, discriminator, latent_NZ, label_N = build_pair(width=1, depth=1)
    gradients, statistics = [], []
    start = {name: value.clone() for name, value in generator.state_dict().items()}

    def loss():
        return F.softplus(-discriminator(generator(latent_NZ, label_N), label_N)).mean()

    for each in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        generator.load_state_dict(start)
        generator.zero_grad(), discriminator.zero_grad()
        each().backward()
        gradients.append([p.grad for network in (generator, discriminator) for p in network.parameters()])
        statistics.append({name: value for name, value in generator.state_dict().items() if "running" in name})
        statistics[-1] = {name: value.clone() for name, value in statistics[-1].items()}
    for eager, compiled in zip(*gradients, strict=True):
        assert (eager - compiled).norm() <= 1e-5 * eager.norm() + 1e-9
    torch.testing.assert_close(statistics[0], statistics[1])
    assert any(not torch.equal(value, start[name]) for name, value in statistics[1].items())


@pytest.mark.parametrize("settings", [BigGANDeepGeneratorSettings, BigGANDeepDiscriminatorSettings])
@pytest.mark.parametrize(
    ("image", "words"),
    [
        (ImageSpec(48, 3, 10), r"a side of 48 px, but biggan_deep is one of \[32, 64, 128, 256, 512\]; make shards"),
        (
            ImageSpec(64, 3, 10, width=48),
            r"64 px high and 48 px wide, but biggan_deep makes squares.*make square shards",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused(settings, image, words):
    with pytest.raises(RecipeError, match=words):
        settings().build(image)
