"""StyleGAN2: parameter counts of the released code, sizes, styles, noise, truncation and the average of styles."""

import math

import pytest
import torch

from bigtrain.networks.layers.running import BatchStatistics
from bigtrain.networks.layers.statistics import commit_running_statistics
from bigtrain.networks.registry import DISCRIMINATORS, GENERATORS
from bigtrain.networks.stylegan2 import StyleGAN2GeneratorSettings, block_channels, block_sizes
from bigtrain.networks.stylegan2_discriminator import StyleGAN2DiscriminatorSettings
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec
from tests.networks.small_stylegan2 import build_discriminator, build_generator, draw


def count_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


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


def test_channels_follow_the_shorter_side():
    sizes = block_sizes(ImageSpec(32, 3, 0, width=48), (4, 6))
    assert sizes == [(4, 6), (8, 12), (16, 24), (32, 48)]
    assert block_channels(sizes, 128, 20) == [20, 16, 8, 4]


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
    with pytest.raises(
        RecipeError, match=rf"{height}x{width} px, but stylegan2 with base {base[0]}x{base[1]} \(both height x width\)"
    ):
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
