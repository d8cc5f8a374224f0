"""What every pair of generator and discriminator must do, whatever its layers."""

import pytest
import torch


def check_labels_are_asked_for(generator, discriminator, latent_NZ):
    """Of a pair for 10 classes and images of 32 px."""
    with pytest.raises(AssertionError, match="no labels for 10 classes"):
        generator(latent_NZ)
    with pytest.raises(AssertionError, match="no labels for 10 classes"):
        discriminator(torch.zeros(4, 1, 32, 32))


def check_float64_stays_float64(generator, discriminator, latent_NZ, label_N):
    image_NCHW = generator.double()(latent_NZ.double(), label_N)
    assert image_NCHW.dtype == torch.float64
    assert discriminator.double()(image_NCHW, label_N).dtype == torch.float64


def check_bfloat16_autocast_trains_and_returns_float32(generator, discriminator, latent_NZ, label_N):
    full_NCHW = generator(latent_NZ, label_N).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image_NCHW = generator(latent_NZ, label_N)
        logit_N = discriminator(image_NCHW, label_N)
    assert image_NCHW.dtype == logit_N.dtype == torch.float32
    assert (image_NCHW - full_NCHW).norm() / full_NCHW.norm() < 0.1
    logit_N.sum().backward()
    for network in (generator, discriminator):
        assert all(parameter.grad.dtype == torch.float32 for parameter in network.parameters())
