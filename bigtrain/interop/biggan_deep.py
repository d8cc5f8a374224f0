"""Weights of the released PyTorch BigGAN-deep (ajbrock/BigGAN-PyTorch): its settings' and tensors' names in ours."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bigtrain.interop.biggan import (
    LAYER_RULES,
    attention_sides,
    discriminator_attention_sides,
    fill,
    released_image,
)
from bigtrain.interop.registry import RELEASED, Part
from bigtrain.interop.transfer import Rules, setting
from bigtrain.networks.biggan_deep import (
    BigGANDeepDiscriminator,
    BigGANDeepDiscriminatorSettings,
    BigGANDeepGenerator,
    BigGANDeepGeneratorSettings,
)
from bigtrain.recipe.errors import WeightsError
from bigtrain.recipe.image import ImageSpec


@RELEASED.add("biggan-deep")
def load_biggan_deep(part: Part, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Return our BigGAN-deep with released weights.

    The settings read are resolution, ch, n_classes, attention, dim_z, shared_dim, hier, G_depth, D_depth, BN_eps and
    SN_eps; all but the first three have a default. Released files hold no v: one power iteration from their u gives the
    very sigma of a released forward.

    Raises:
        WeightsError: a setting is missing, the generator is not conditioned on the latent, or the tensors do not fit.
    """
    image = released_image("biggan-deep", config)
    if part == "generator":
        generator = _generator(config, image)
        fill(generator, state, generator_rules(generator.settings.depth))
        return generator
    discriminator = _discriminator(config, image)
    fill(discriminator, state, discriminator_rules(discriminator.settings.depth))
    return discriminator


def generator_rules(depth: int) -> Rules:
    """Return the rules from our names to the released ones, which number the blocks of all resolutions in one row."""
    return (
        (r"^blocks\.(\d+)\.(\d+)\.", lambda found: f"blocks.{int(found[1]) * depth + int(found[2])}.0."),
        (r"^attentions\.(\d+)\.", lambda found: f"blocks.{int(found[1]) * depth + depth - 1}.1."),
        *LAYER_RULES,
    )


def discriminator_rules(depth: int) -> Rules:
    """Return the rules from our names to the released ones, where attention follows the blocks of a resolution."""
    return ((r"^attentions\.(\d+)\.", rf"blocks.\1.{depth}."), *LAYER_RULES)


def _generator(config: Mapping[str, Any], image: ImageSpec) -> BigGANDeepGenerator:
    if not setting({"hier": False, **config}, "hier", bool):
        raise WeightsError(
            "the configuration's 'hier' is false, so its blocks are not conditioned on the latent, which BigGAN-deep's "
            "are; only weights trained with hier can be loaded"
        )
    latent_dim = setting({"dim_z": 128, **config}, "dim_z", int)
    return BigGANDeepGeneratorSettings(
        width=setting(config, "ch", int),
        latent_dim=latent_dim,
        # There 0 stands for the latent's length.
        shared_dim=setting({"shared_dim": 0, **config}, "shared_dim", int) or latent_dim,
        depth=setting({"G_depth": 2, **config}, "G_depth", int),
        attention_sides=attention_sides(config),
        batchnorm_eps=setting({"BN_eps": 1e-5, **config}, "BN_eps", float),
        spectral_eps=setting({"SN_eps": 1e-8, **config}, "SN_eps", float),
        init="normal02",  # overwritten, and cheaper than orthogonal
    ).build(image)


def _discriminator(config: Mapping[str, Any], image: ImageSpec) -> BigGANDeepDiscriminator:
    return BigGANDeepDiscriminatorSettings(
        width=setting(config, "ch", int),
        depth=setting({"D_depth": 2, **config}, "D_depth", int),
        attention_sides=discriminator_attention_sides(config, image),
        spectral_eps=setting({"SN_eps": 1e-8, **config}, "SN_eps", float),
        init="normal02",  # overwritten, and cheaper than orthogonal
    ).build(image)
