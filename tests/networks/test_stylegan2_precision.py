"""StyleGAN2: what reduced precision and recomputed activations may change, and what they must not."""

import pytest
import torch

from bigtrain.losses.penalties import path_lengths
from bigtrain.networks.layers.equalised import EqualisedConv2d
from bigtrain.networks.layers.modulated import StyledConv2d, StyledOutput
from tests.networks.small_stylegan2 import build_discriminator, build_generator, draw


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
    largest = {generator: [], discriminator: []}
    with torch.no_grad():
        for network, found in largest.items():
            for name, module in network.named_modules():
                if not isinstance(module, StyledConv2d | StyledOutput | EqualisedConv2d) or name.endswith("shortcut"):
                    continue  # shortcuts have no limit, as in the released code
                if isinstance(module, StyledConv2d):
                    module.bias *= 3000  # demodulation undoes factors of weights
                else:
                    module.weight *= 30
                module.register_forward_hook(lambda _, __, y, found=found: found.append(float(y.abs().max())))
        latent_NZ, label_N = draw()
        with torch.autocast("cpu", dtype=torch.float16):
            image_NCHW = generator(latent_NZ, label_N)
            logit_N = discriminator(image_NCHW, label_N)
    assert [max(found) for found in largest.values()] == [limit, limit]  # reached, and not passed
    assert image_NCHW.abs().max() <= 3 * limit  # three blocks' images, summed
    assert torch.isfinite(logit_N).all()
