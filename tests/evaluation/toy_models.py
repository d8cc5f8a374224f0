"""Toy models as snapshot files, without training."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from bigtrain.engine.ema import WeightAverages
from bigtrain.games.base import DataFacts
from bigtrain.networks.layers.modulated import StyledConv2d
from bigtrain.recipe.load import load_recipe
from bigtrain.training.build import build_game
from bigtrain.training.schema import Recipe
from bigtrain.training.snapshot import SNAPSHOT_FORMAT
from tests.training.toy_runs import RECIPE, TOY

STYLEGAN2 = (
    "game={kind: noise_to_image, objective: non_saturating, discriminator: {kind: stylegan2, channel_base: 64, "
    "channel_max: 8, mapping_layers: 2}, generator: {kind: stylegan2, channel_base: 64, channel_max: 8, "
    "mapping_layers: 2, latent_dim: 6, style_dim: 6}}"
)
MLP = "game={kind: noise_to_image, generator: {kind: mlp, latent_dim: 6}, discriminator: {kind: mlp}}"
KINDS = {
    "biggan": (),
    "stylegan2": (STYLEGAN2, "batchnorm_images=null", "minibatch_std_images=4"),
    "unconditional": (MLP, "batchnorm_images=null", "image.num_classes=0"),
    "labels only": ("game.generator={kind: biggan, width: 4, latent_dim: 16, shared_dim: null, hierarchical: false}",),
}


def write_toy_snapshot(folder: Path, kind: str, images_seen: int = 160, seed: int = 0) -> Path:
    """Write a snapshot of freshly drawn weights, with noise and a mean style, and return its path."""
    overrides = [*TOY, *KINDS[kind], f"seed={seed}", "data.shards=nowhere", f"run_dir={folder}", "engine=plain"]
    recipe = load_recipe(RECIPE, overrides, Recipe)
    num_classes = recipe.image.num_classes
    names = [f"class {number}" for number in range(num_classes)]
    game = build_game(recipe, DataFacts(recipe.image.spec, (1,) * num_classes or None, 16))
    torch.manual_seed(seed)
    _give_noise(game.networks["generator"])
    record = {
        "progress": {"images_seen": images_seen},
        "recipe": recipe.model_dump(mode="json"),
        "image": asdict(recipe.image.spec),
        "label_counts": (1,) * num_classes or None,
        "class_names": names,
        "versions": {},
    }
    averages = WeightAverages(recipe.ema, game).state()
    tensors = {f"average/{name}": tensor.contiguous() for name, tensor in averages.items()}
    path = folder / "snapshots" / f"{images_seen:012d}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {"format": SNAPSHOT_FORMAT, "record": json.dumps(record)})
    (folder / "recipe.yaml").write_text((RECIPE.parent / "digits-biggan.yaml").read_text())
    return path


def _give_noise(generator: nn.Module) -> None:
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, StyledConv2d):
                module.noise_strength.fill_(0.3)
        if hasattr(generator, "mapping"):
            generator.mapping.average.mean.copy_(torch.randn(6) * 0.1)  # type: ignore[union-attr, operator]
