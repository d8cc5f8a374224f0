"""StyleGAN2: what its operations are, and that they can be compiled whole."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.networks.small_stylegan2 import build_discriminator, build_generator, draw

CONVOLUTIONS = {torch.ops.aten.convolution.default: 8, torch.ops.aten.convolution_backward.default: 9}


class GroupedConvolutions(TorchDispatchMode):
    """Records how many groups the convolutions inside have."""

    def __init__(self):
        super().__init__()
        self.groups = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in CONVOLUTIONS:
            place = CONVOLUTIONS[func]
            self.groups.append((kwargs or {}).get("groups", args[place] if len(args) > place else None))
        return func(*args, **(kwargs or {}))


def generator_loss(generator, discriminator, latent_NZ, label_N):
    return F.softplus(-discriminator(generator(latent_NZ, label_N), label_N)).mean()


def r1(discriminator, label_N):
    image_NCHW = torch.rand(4, 3, 16, 16, requires_grad=True)
    logit_N = discriminator(image_NCHW, label_N)
    (slope_NCHW,) = torch.autograd.grad(logit_N.sum(), image_NCHW, create_graph=True)
    return slope_NCHW.square().sum()


def path_length(generator, latent_NZ, label_N):
    w_NLW = generator.mapping(latent_NZ, label_N)
    image_NCHW = generator.synthesis(w_NLW)
    (slope_NLW,) = torch.autograd.grad((image_NCHW * torch.randn_like(image_NCHW)).sum(), w_NLW, create_graph=True)
    return slope_NLW.square().sum()


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_no_convolution_of_any_turn_is_grouped(architecture):
    """PyTorch's double backward of a grouped convolution loops over the groups."""
    generator, discriminator = build_generator(), build_discriminator(architecture=architecture)
    latent = draw()
    with GroupedConvolutions() as seen:
        for loss in (
            generator_loss(generator, discriminator, *latent),
            r1(discriminator, latent[1]),
            path_length(generator, *latent),
        ):
            loss.backward()
    assert len(seen.groups) > 50
    assert set(seen.groups) == {1}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_turn_compiles_into_one_graph_with_the_gradients_of_eager_mode(dtype):
    generator, discriminator = build_generator(noise="const"), build_discriminator()
    latent, parameters = draw(), [*generator.parameters(), *discriminator.parameters()]
    compiled = torch.compile(generator_loss, backend="aot_eager", fullgraph=True)
    found = []
    for loss in (generator_loss, compiled):
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            value = loss(generator, discriminator, *latent)
        found.append([value, *torch.autograd.grad(value, parameters, allow_unused=True)])
    # Compiled graphs round to bfloat16 at other places.
    tolerance = 1e-4 if dtype is None else 0.1
    for ours, reference in zip(found[1], found[0], strict=True):
        assert (ours is None) == (reference is None)
        if reference is not None:
            assert (ours - reference).norm() < tolerance * (reference.norm() + 1e-6)


def test_logits_do_not_depend_on_the_memory_layout_of_images():
    discriminator = build_discriminator().double()
    image_NCHW, (_, label_N) = torch.rand(4, 3, 16, 16, dtype=torch.float64), draw()
    in_rows = discriminator(image_NCHW, label_N)
    assert torch.equal(discriminator(image_NCHW.contiguous(memory_format=torch.channels_last), label_N), in_rows)


def test_images_are_in_channels_last_memory_as_real_ones_are():
    image_NCHW = build_generator()(*draw())
    assert image_NCHW.is_contiguous(memory_format=torch.channels_last)
