"""Weights of the released PyTorch BigGAN (ajbrock/BigGAN-PyTorch): its settings' and tensors' names in ours."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bigtrain.interop.registry import RELEASED, Part
from bigtrain.interop.transfer import Rules, copy_tensors, renamed, setting
from bigtrain.networks.biggan import (
    BigGANDiscriminator,
    BigGANDiscriminatorSettings,
    BigGANGenerator,
    BigGANGeneratorSettings,
)
from bigtrain.networks.layers.layouts import GENERATOR_WIDTHS
from bigtrain.networks.layers.spectral import advance_power_iterations
from bigtrain.recipe.errors import WeightsError
from bigtrain.recipe.image import ImageSpec

IMAGE_CHANNELS = 3  # the released networks know no others

# Rules of `renamed`: our names of layers -> the released ones, in BigGAN and BigGAN-deep alike.
LAYER_RULES = (
    (r"^output_bn\.", "output_layer.0."),
    (r"^output_conv\.", "output_layer.2."),
    (r"\.shortcut\.", ".conv_sc."),
    (r"\.running_(mean|var)$", r".stored_\1"),
    (r"\.u$", ".u0"),
)
RULES = ((r"^blocks\.(\d+)\.", r"blocks.\1.0."), (r"^attentions\.(\d+)\.", r"blocks.\1.1."), *LAYER_RULES)


@RELEASED.add("biggan")
def load_biggan(part: Part, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Return our BigGAN with released weights.

    The settings read are resolution, ch, n_classes, attention, dim_z, shared_dim, hier, G_shared, BN_eps, SN_eps and
    D_wide; all but the first three have a default. Released files hold no v: one power iteration from their u gives the
    very sigma of a released forward.

    Raises:
        WeightsError: a setting is missing, or the tensors do not fit.
    """
    image = released_image("biggan", config)
    if part == "generator":
        network: nn.Module = _generator({"G_shared": "shared.weight" in state, **config}, image)
    else:
        network = _discriminator(config, image)
    fill(network, state, RULES)
    return network


def released_image(kind: str, config: Mapping[str, Any]) -> ImageSpec:
    """Return the images of a released configuration.

    Raises:
        WeightsError: a setting is missing, or `kind` has no layout for the resolution.
    """
    side = setting(config, "resolution", int)
    if side not in GENERATOR_WIDTHS:
        raise WeightsError(
            f"the configuration's 'resolution' is {side}; {kind} is one of {sorted(GENERATOR_WIDTHS)} px"
        )
    return ImageSpec(side, IMAGE_CHANNELS, setting(config, "n_classes", int))


def fill(network: nn.Module, state: Mapping[str, Tensor], rules: Rules) -> None:
    """Copy released tensors into the network, all of them but v, which one power iteration from u makes.

    Raises:
        WeightsError: the tensors do not fit.
    """
    tensors = [*dict(network.named_parameters()), *network.state_dict()]
    names = {name: renamed(name, rules) for name in tensors if not name.endswith(".v")}
    # The last sigma seen, kept there for logging only.
    copy_tensors(network, state, names, ignored=[name for name in state if re.search(r"(^|\.)sv0$", name)])
    advance_power_iterations(network)


def _generator(config: Mapping[str, Any], image: ImageSpec) -> BigGANGenerator:
    hierarchical = setting({"hier": False, **config}, "hier", bool)
    shared = setting(config, "G_shared", bool)
    chunks = len(GENERATOR_WIDTHS[image.side]) if hierarchical else 1
    latent_dim = setting({"dim_z": 128, **config}, "dim_z", int)
    # There 0 stands for the latent's length, and a latent that does not divide is shortened.
    shared_dim = setting({"shared_dim": 0, **config}, "shared_dim", int) or latent_dim
    return BigGANGeneratorSettings(
        width=setting(config, "ch", int),
        latent_dim=latent_dim // chunks * chunks,
        shared_dim=shared_dim if shared else None,
        hierarchical=hierarchical,
        attention_sides=attention_sides(config),
        batchnorm_eps=setting({"BN_eps": 1e-5, **config}, "BN_eps", float),
        spectral_eps=setting({"SN_eps": 1e-8, **config}, "SN_eps", float),
        init="normal02",  # overwritten, and cheaper than orthogonal
    ).build(image)


def _discriminator(config: Mapping[str, Any], image: ImageSpec) -> BigGANDiscriminator:
    return BigGANDiscriminatorSettings(
        width=setting(config, "ch", int),
        attention_sides=discriminator_attention_sides(config, image),
        spectral_eps=setting({"SN_eps": 1e-8, **config}, "SN_eps", float),
        init="normal02",  # overwritten, and cheaper than orthogonal
        wide=setting({"D_wide": True, **config}, "D_wide", bool),
    ).build(image)


def discriminator_attention_sides(config: Mapping[str, Any], image: ImageSpec) -> tuple[int, ...]:
    """Return the sides after which the released discriminator attends."""
    sides = attention_sides(config)
    if image.side == 32:
        # There all blocks of the 32 px discriminator go by the name 16, though all but the first give 8x8 images.
        return (16, 8) if 16 in sides else ()
    return sides


def attention_sides(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the sides of a text as "64" or "64_32", or of one number (JSON text of one reads as that)."""
    value = setting({"attention": "64", **config}, "attention", (str, int))
    parts = str(value).split("_")
    if not all(part.isdecimal() for part in parts):
        raise WeightsError(f"the configuration's 'attention' is {value!r}, which is not sides joined by _, as 64_32")
    return tuple(int(part) for part in parts if int(part) > 0)
