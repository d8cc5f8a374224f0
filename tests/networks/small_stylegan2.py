"""Small StyleGAN2 networks and their inputs, for tests."""

import torch

from bigtrain.networks.stylegan2 import StyleGAN2GeneratorSettings
from bigtrain.networks.stylegan2_discriminator import StyleGAN2DiscriminatorSettings
from bigtrain.recipe.image import ImageSpec

SMALL = ImageSpec(side=16, channels=3, num_classes=5)


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
