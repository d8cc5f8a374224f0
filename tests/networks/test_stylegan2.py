"""StyleGAN2: parameter counts of the released code, sizes, truncation, and what precisions and recomputing may change."""

import itertools
import math

import pytest
import torch

from bigtrain.losses.penalties import path_lengths
from bigtrain.networks.layers.equalised import EqualisedConv2d
from bigtrain.networks.layers.modulated import StyledConv2d, StyledOutput
from bigtrain.networks.layers.running import BatchStatistics
from bigtrain.networks.layers.statistics import commit_running_statistics
from bigtrain.networks.registry import DISCRIMINATORS, GENERATORS
from bigtrain.networks.stylegan2 import StyleGAN2GeneratorSettings
from bigtrain.networks.stylegan2_discriminator import StyleGAN2DiscriminatorSettings
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec

SMALL = ImageSpec(side=16, channels=3, num_classes=5)


def count_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def build_generator(image=SMALL, **settings):
    """Return a small generator whose biases and noise strengths are not zero."""
    settings = {
        "channel_base": 128,
        "channel_max": 12,
        "latent_dim": 10,
        "style_dim": 8,
        "mapping_layers": 2,
    } | settings
    torch.manual_seed(0)
    return shake(StyleGAN2GeneratorSettings(**settings).build(image))


def build_discriminator(image=SMALL, **settings):
    """Return a small discriminator whose biases are not zero."""
    torch.manual_seed(1)
    settings = {"channel_base": 128, "channel_max": 12, "mapping_layers": 2} | settings
    return shake(StyleGAN2DiscriminatorSettings(**settings).build(image))


def shake(network):
    """Move what starts at zero away from it."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                parameter += 0.1 * torch.randn_like(parameter) + 0.1
    return network


def draw(num_images=4, image=SMALL, dtype=torch.float32):
    """Return latents and labels."""
    torch.manual_seed(2)
    label_N = torch.arange(num_images) % image.num_classes if image.num_classes else None
    return torch.randn(num_images, 10, dtype=dtype), label_N


COUNTS = [
    (128, 16384, 2, 0, 22_949_277, 23_882_369),
    (256, 16384, 8, 0, 24_767_458, 24_001_089),
    (256, 16384, 2, 0, 23_191_522, 24_001_089),
    (256, 16384, 2, 1000, 23_966_178, 26_876_992),
    (512, 32768, 8, 0, 30_276_583, 28_982_849),
    (1024, 32768, 8, 0, 30_370_060, 29_012_513),
]


@pytest.mark.parametrize(("side", "base", "layers", "classes", "generator_count", "discriminator_count"), COUNTS)
def test_parameter_counts_are_those_of_the_released_code(
    side, base, layers, classes, generator_count, discriminator_count
):
    image = ImageSpec(side, 3, classes)
    label_N = torch.zeros(2, dtype=torch.int64, device="meta") if classes else None
    with torch.device("meta"):
        generator = GENERATORS.get("stylegan2")(channel_base=base, mapping_layers=layers).build(image)
        discriminator = DISCRIMINATORS.get("stylegan2")(channel_base=base).build(image)
        with torch.no_grad():
            image_NCHW = generator(torch.empty(2, 512), label_N)
            logit_N = discriminator(image_NCHW, label_N)
    assert count_parameters(generator) == generator_count
    assert count_parameters(discriminator) == discriminator_count
    assert generator.num_styles == 2 * math.log2(side) - 2
    assert image_NCHW.shape == (2, 3, side, side)
    assert logit_N.shape == (2,)


SIZES = [
    (ImageSpec(4, 1, 0), (4, 4), 2),
    (ImageSpec(8, 3, 5), (4, 4), 4),
    (ImageSpec(32, 3, 0), (4, 4), 8),
    (ImageSpec(32, 3, 0, width=48), (4, 6), 8),
    (ImageSpec(6, 4, 2, width=2), (3, 1), 4),
]


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
@pytest.mark.parametrize(("image", "base", "num_styles"), SIZES)
def test_shapes(image, base, num_styles, architecture):
    generator = build_generator(image, base=base)
    discriminator = build_discriminator(image, base=base, architecture=architecture)
    latent_NZ, label_N = draw(image=image)
    image_NCHW = generator(latent_NZ, label_N)
    logit_N, feature_NF = discriminator(image_NCHW, label_N, features=True)
    assert generator.num_styles == num_styles
    assert generator.mapping(latent_NZ, label_N).shape == (4, num_styles, 8)
    assert image_NCHW.shape == (4, image.channels, *image.size)
    assert logit_N.shape == (4,)
    assert feature_NF.shape == (4, 12)
    (logit_N.sum() + feature_NF.square().sum()).backward()
    missing = [name for net in (generator, discriminator) for name, p in net.named_parameters() if p.grad is None]
    assert missing == []


BAD_SIZES = [
    (ImageSpec(48, 3, 0), (4, 4)),
    (ImageSpec(2, 3, 0), (4, 4)),
    (ImageSpec(2048, 3, 0), (4, 4)),
    (ImageSpec(32, 3, 0, width=48), (4, 4)),
    (ImageSpec(48, 3, 0, width=32), (4, 6)),
    (ImageSpec(32, 3, 0, width=64), (4, 4)),
]


@pytest.mark.parametrize("settings", [StyleGAN2GeneratorSettings, StyleGAN2DiscriminatorSettings])
@pytest.mark.parametrize(("image", "base"), BAD_SIZES)
def test_sizes_that_do_not_fit_are_refused(settings, image, base):
    height, width = image.size
    with pytest.raises(RecipeError, match=rf"{height}x{width} px, but stylegan2 with base {base[0]}x{base[1]}"):
        settings(base=base).build(image)


def test_truncation_moves_the_first_layers_toward_the_average():
    generator = build_generator()
    with torch.no_grad():
        generator.mapping.average.mean.copy_(torch.linspace(-1, 1, 8))
    w_NLW, mean_W = generator.eval().mapping(*draw()), generator.mapping.average.mean
    assert torch.equal(generator.truncate(w_NLW, 1.0), w_NLW)
    assert torch.equal(generator.truncate(w_NLW, 0.0), mean_W.expand_as(w_NLW))
    torch.testing.assert_close(generator.truncate(w_NLW, 0.3), mean_W + 0.3 * (w_NLW - mean_W))
    for cutoff in range(generator.num_styles + 1):
        moved_NLW = generator.truncate(w_NLW, 0.5, cutoff)
        assert torch.equal(moved_NLW[:, cutoff:], w_NLW[:, cutoff:])
        assert torch.equal(moved_NLW[:, :cutoff], generator.truncate(w_NLW, 0.5)[:, :cutoff])
    assert not torch.equal(generator.truncate(w_NLW, 0.5, 1)[:, 0], w_NLW[:, 0])


def test_each_layer_reads_its_own_style():
    """The image depends on all styles, and the last one only reaches the largest block's image output."""
    generator = build_generator(checkpoint_side=None).eval()
    w_NLW = generator.mapping(*draw()).detach().clone().requires_grad_()
    generator.synthesis(w_NLW, "const").square().sum().backward()
    assert (w_NLW.grad.abs().amax((0, 2)) > 0).all()
    changed_NLW = w_NLW.detach().clone()
    changed_NLW[:, -1] += 1
    seen = []
    generator.blocks[-1].conv1.register_forward_hook(lambda _, __, output: seen.append(output))
    before_NCHW, after_NCHW = (generator.synthesis(w, "const") for w in (w_NLW, changed_NLW))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(before_NCHW, after_NCHW)


def test_noise_is_drawn_constant_or_absent():
    generator, latent = build_generator(), draw()
    w_NLW = generator.mapping(*latent)
    random, again, const, none = (generator.synthesis(w_NLW, noise) for noise in ("random", "random", "const", "none"))
    assert not torch.equal(random, again)
    assert torch.equal(const, generator.synthesis(w_NLW, "const"))
    assert not torch.equal(const, none)
    assert torch.equal(generator.eval()(*latent), const)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.zero_()
    assert torch.equal(generator.synthesis(w_NLW, "random"), generator.synthesis(w_NLW, "none"))


def gradients(network, loss):
    """Return gradients of all parameters that the loss reaches."""
    found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return {name: g for (name, _), g in zip(network.named_parameters(), found, strict=True) if g is not None}


def assert_bit_equal(ours, reference):
    assert ours.keys() == reference.keys()
    assert [name for name in ours if not torch.equal(ours[name], reference[name])] == []


def test_recomputing_activations_changes_no_bit_of_images_and_gradients():
    found = []
    for side in (None, 8):
        generator, latent = build_generator(checkpoint_side=side), draw()
        torch.manual_seed(3)
        image_NCHW = generator(*latent)
        target_NCHW = torch.linspace(-1, 1, image_NCHW.numel()).view_as(image_NCHW)
        found.append({"image": image_NCHW} | gradients(generator, (image_NCHW * target_NCHW).sum()))
    assert len(found[0]) > 20
    assert_bit_equal(found[1], found[0])


def test_recomputing_activations_changes_no_bit_of_path_lengths_and_their_gradients():
    found = []
    for side in (None, 8):
        generator, latent = build_generator(checkpoint_side=side).double(), draw(dtype=torch.float64)
        w_NLW = generator.mapping(*latent)
        torch.manual_seed(3)
        image_NCHW = generator.synthesis(w_NLW, "random")
        length_N = path_lengths(image_NCHW, w_NLW, torch.randn_like(image_NCHW))
        found.append({"length": length_N} | gradients(generator, length_N.square().mean()))
    assert len(found[0]) > 15
    assert_bit_equal(found[1], found[0])


def test_recomputing_activations_changes_no_bit_of_logits_and_r1():
    found = []
    for side in (None, 8):
        discriminator, (_, label_N) = build_discriminator(checkpoint_side=side).double(), draw()
        torch.manual_seed(3)
        image_NCHW = torch.randn(4, 3, 16, 16, dtype=torch.float64, requires_grad=True)
        logit_N = discriminator(image_NCHW, label_N)
        (slope_NCHW,) = torch.autograd.grad(logit_N.sum(), image_NCHW, create_graph=True)
        loss = slope_NCHW.square().sum() + logit_N.sum()
        found.append({"logit": logit_N, "slope": slope_NCHW} | gradients(discriminator, loss))
    assert_bit_equal(found[1], found[0])


def play(dtype, **settings):
    """Return images and logits, under autocast to a dtype unless it is None."""
    generator, discriminator = build_generator(**settings).eval(), build_discriminator(**settings)
    latent_NZ, label_N = draw()
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        image_NCHW = generator(latent_NZ, label_N)
        logit_N = discriminator(image_NCHW, label_N)
    return image_NCHW, logit_N


def test_without_reduced_blocks_autocast_changes_no_bit():
    for ours, reference in zip(play(torch.bfloat16, reduced_blocks=0), play(None), strict=True):
        assert torch.equal(ours, reference)


# A dozen roundings of 2^-9 (bfloat16) or 2^-12 (float16) in a row.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 5e-2), (torch.float16, 1e-2)])
@pytest.mark.parametrize("blocks", [1, 4])
def test_reduced_blocks_stay_close_to_float32_and_give_float32(dtype, tolerance, blocks):
    settings = {"reduced_blocks": blocks, "conv_clamp": 256}
    for ours, reference in zip(play(dtype, **settings), play(None), strict=True):
        assert ours.dtype == torch.float32
        assert torch.isfinite(ours).all()
        assert 0 < (ours - reference).norm() < tolerance * reference.norm()


def test_the_largest_blocks_are_the_reduced_ones():
    generator, discriminator = build_generator(reduced_blocks=1), build_discriminator(reduced_blocks=1)
    found = {}
    for network, blocks in (("generator", generator.blocks), ("discriminator", discriminator.blocks)):
        for index, block in enumerate(blocks):
            block.register_forward_hook(
                lambda _, inputs, __, key=(network, index): found.__setitem__(key, inputs[0].dtype)
            )
    latent_NZ, label_N = draw()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        discriminator(generator(latent_NZ, label_N), label_N)
    full, reduced = torch.float32, torch.bfloat16
    assert [found["generator", index] for index in range(3)] == [full, full, reduced]
    assert [found["discriminator", index] for index in range(2)] == [reduced, full]


def test_large_weights_do_not_overflow_float16():
    """Demodulation undoes factors of weights: images are those of the weights as they were."""
    generator, latent = build_generator(conv_clamp=256).eval(), draw()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16):
        before_NCHW = generator(*latent)
        for module in generator.modules():
            if isinstance(module, StyledConv2d):
                module.weight *= 1e6
        after_NCHW = generator(*latent)
    assert (after_NCHW - before_NCHW).norm() < 1e-2 * before_NCHW.norm()


def test_clamped_networks_are_bounded_in_float16():
    limit = 256
    generator, discriminator = build_generator(conv_clamp=limit).eval(), build_discriminator(conv_clamp=limit)
    largest = {}
    for name, module in itertools.chain(generator.named_modules(), discriminator.named_modules()):
        if isinstance(module, StyledConv2d | StyledOutput | EqualisedConv2d):
            module.register_forward_hook(
                lambda _, __, output, name=name: largest.__setitem__(name, float(output.abs().max()))
            )
    with torch.no_grad():
        for name, parameter in itertools.chain(generator.named_parameters(), discriminator.named_parameters()):
            if name.endswith("weight") and "mapping" not in name:
                parameter *= 300
    latent_NZ, label_N = draw()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16):
        image_NCHW = generator(latent_NZ, label_N)
        logit_N = discriminator(image_NCHW, label_N)
    assert max(largest.values()) == limit  # reached, and not passed
    assert image_NCHW.abs().max() <= 4 * limit  # three blocks' images, summed
    assert torch.isfinite(logit_N).all()


@pytest.mark.parametrize("upsample", [False, True])
def test_a_styled_convolution_clamps_what_it_gives_out(upsample):
    torch.manual_seed(0)
    layer = shake(StyledConv2d(3, 5, 4, (8, 8), upsample=upsample))
    x_NCHW, style_NZ = 2 * torch.randn(2, 3, *((4, 4) if upsample else (8, 8))), torch.randn(2, 4)
    free_NDHW = layer(x_NCHW, style_NZ, "const")
    layer.clamp = 0.7
    assert free_NDHW.abs().max() > 0.7 > free_NDHW.abs().min()
    assert torch.equal(layer(x_NCHW, style_NZ, "const"), free_NDHW.clamp(-0.7, 0.7))


@pytest.mark.parametrize("activate", [False, True])
@pytest.mark.parametrize("gain", [1.0, math.sqrt(0.5)])
def test_a_convolution_clamps_before_its_gain(activate, gain):
    torch.manual_seed(0)
    layer = shake(EqualisedConv2d(3, 5, 3, activate=activate))
    x_NCHW = torch.randn(2, 3, 8, 8)
    free_NDHW = layer(x_NCHW)
    assert free_NDHW.abs().max() > 0.7 > free_NDHW.abs().min()
    torch.testing.assert_close(layer(x_NCHW, gain, 0.7), free_NDHW.clamp(-0.7, 0.7) * gain)


@pytest.mark.parametrize("update", ["now", "later", "never"])
def test_the_average_of_styles_moves_when_the_policy_says(update):
    generator, latent = build_generator(average_decay=0.75), draw()
    average = generator.mapping.average
    average.policy = BatchStatistics(update=update)
    first_W = generator.mapping(*latent)[:, 0].mean(0)
    by_then_W = average.mean.clone()
    commit_running_statistics(generator)
    expected_W = {"now": 0.25, "later": 0.25, "never": 0.0}[update] * first_W
    torch.testing.assert_close(average.mean, expected_W.detach())
    assert torch.equal(by_then_W, average.mean) == (update != "later")
    generator.eval().mapping(*latent)
    commit_running_statistics(generator)
    torch.testing.assert_close(average.mean, expected_W.detach())


def test_micro_batches_move_the_average_of_styles_as_one_batch_does():
    generator, (latent_NZ, label_N) = build_generator(average_decay=0.75), draw()
    average = generator.mapping.average
    average.policy = BatchStatistics(update="later")
    whole_NLW = generator.eval().mapping(latent_NZ, label_N)
    generator.train()
    for rows in (slice(0, 2), slice(2, 4)):
        generator.mapping(latent_NZ[rows], label_N[rows])
    commit_running_statistics(generator)
    torch.testing.assert_close(average.mean, 0.25 * whole_NLW[:, 0].detach().mean(0))
