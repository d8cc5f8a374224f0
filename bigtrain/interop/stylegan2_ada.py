"""Weights of the released PyTorch StyleGAN2-ADA (NVlabs/stylegan2-ada-pytorch): its settings' and tensors' names.

Weights and numbers are equal; the groups of its minibatch standard deviation are strided where ours are contiguous:
with groups of G, its image i of a batch of N belongs to group i mod (N / G).
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bigtrain.interop.registry import RELEASED, Part
from bigtrain.interop.transfer import copy_tensors, setting
from bigtrain.networks.layers.minibatch_std import set_minibatch_std
from bigtrain.networks.layers.running import BatchStatistics
from bigtrain.networks.stylegan2 import StyleGAN2GeneratorSettings
from bigtrain.networks.stylegan2_discriminator import StyleGAN2DiscriminatorSettings
from bigtrain.recipe.errors import RecipeError, WeightsError
from bigtrain.recipe.image import ImageSpec

BASE_SIDE = 4  # side of the smallest image there
FIR_TAPS = [1, 3, 3, 1]
# The only architectures that both sides know.
ARCHITECTURES = {"architecture_G": ("skip",), "architecture_D": ("resnet", "orig")}

# Our name -> released name, tried in order, for the generator; {side} is that of the block.
GENERATOR_RENAMES = (
    (r"^mapping\.layers\.(\d+)\.", r"mapping.fc\1."),
    (r"^mapping\.average\.mean$", "mapping.w_avg"),
    (r"^const$", "synthesis.b{side}.const"),
    (r"^blocks\.\d+\.output\.", "synthesis.b{side}.torgb."),
    (r"^blocks\.\d+\.", "synthesis.b{side}."),
)
DISCRIMINATOR_RENAMES = (
    (r"^mapping\.layers\.(\d+)\.", r"mapping.fc\1."),
    (r"^from_image\.", "b{side}.fromrgb."),
    (r"^blocks\.\d+\.shortcut\.", "b{side}.skip."),
    (r"^blocks\.\d+\.", "b{side}."),
    (r"^epilogue\.linear\.", "b4.fc."),
    (r"^epilogue\.output\.", "b4.out."),
    (r"^epilogue\.", "b4."),
)


@RELEASED.add("stylegan2-ada")
def load_stylegan2_ada(part: Part, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Return our StyleGAN2 with released weights.

    The settings read are resolution, z_dim, w_dim, c_dim, mapping_layers, channel_base, channel_max, and, with
    defaults, img_channels (3), architecture_G (skip), architecture_D (resnet), resample_filter ([1, 3, 3, 1]),
    conv_clamp (none) and mbstd_group (4).

    Raises:
        WeightsError: a setting is missing or one that we have no layer for, or the tensors do not fit.
    """
    image = ImageSpec(
        setting(config, "resolution", int),
        setting({"img_channels": 3, **config}, "img_channels", int),
        setting(config, "c_dim", int),
    )
    _check(config)
    try:
        network: nn.Module = (_generator if part == "generator" else _discriminator)(config, image)
    except RecipeError as error:
        raise WeightsError(f"the configuration's 'resolution' is {image.side}: {error}") from error
    names = {name: released_name(name, part, image.side) for name in network.state_dict()}
    ignored = [name for name in state if name.endswith("resample_filter")]
    # There a class embedding is a matrix that one-hot columns multiply; here it is a table of rows.
    state = {name: value.mT if name == "mapping.embed.weight" else value for name, value in state.items()}
    copy_tensors(network, state, names, ignored)
    return network


def released_name(name: str, part: Part, side: int) -> str:
    """Return what the released implementation calls the parameter or buffer that we call `name`.

    Args:
        name: of a network for images of `side` pixels.
        part: which network.
        side: of the images.
    """
    number = re.match(r"blocks\.(\d+)\.", name)
    index = int(number.group(1)) if number else 0
    block_side = BASE_SIDE * 2**index if part == "generator" else side // 2**index
    for ours, released in GENERATOR_RENAMES if part == "generator" else DISCRIMINATOR_RENAMES:
        if re.search(ours, name):
            return re.sub(ours, released, name).format(side=block_side)
    return name


def _check(config: Mapping[str, Any]) -> None:
    """Refuse what our layers would compute otherwise."""
    for name, known in ARCHITECTURES.items():
        if config.get(name, known[0]) not in known:
            raise WeightsError(f"the configuration's '{name}' is {config[name]!r}; stylegan2 is one of {list(known)}")
    if config.get("resample_filter", FIR_TAPS) != FIR_TAPS:
        raise WeightsError(f"the configuration's 'resample_filter' is {config['resample_filter']}, not {FIR_TAPS}")


def _generator(config: Mapping[str, Any], image: ImageSpec) -> nn.Module:
    return StyleGAN2GeneratorSettings(
        channel_base=setting(config, "channel_base", int),
        channel_max=setting(config, "channel_max", int),
        latent_dim=setting(config, "z_dim", int),
        style_dim=setting(config, "w_dim", int),
        mapping_layers=setting(config, "mapping_layers", int),
        conv_clamp=config.get("conv_clamp"),
    ).build(image)


def _discriminator(config: Mapping[str, Any], image: ImageSpec) -> nn.Module:
    network = StyleGAN2DiscriminatorSettings(
        channel_base=setting(config, "channel_base", int),
        channel_max=setting(config, "channel_max", int),
        architecture=config.get("architecture_D", "resnet"),
        conv_clamp=config.get("conv_clamp"),
    ).build(image)
    set_minibatch_std(network, BatchStatistics(setting({"mbstd_group": 4, **config}, "mbstd_group", int)))
    return network
