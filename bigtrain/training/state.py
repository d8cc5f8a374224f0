"""Everything that must survive a restart, gathered for a checkpoint and put back from one.

Tensors: networks with their buffers, optimizers' moments, moving averages, the game's state. Record: counters, loss
scalers, the running means of the log, the log's length, and what the run was made from (recipe, data, versions), which
a resume checks. Draws are functions of the counters and the data order is a function of the position, so there is no
generator state to keep.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import Tensor

import bigtrain
from bigtrain.engine.checkpoints.checkpoint import Checkpoint
from bigtrain.engine.soundness import compare_ranks
from bigtrain.recipe.errors import CheckpointError, RecipeError
from bigtrain.recipe.progress import Progress
from bigtrain.training.owed import is_evaluation_owed
from bigtrain.training.schema import Recipe

if TYPE_CHECKING:  # sampling from a checkpoint needs neither the run nor Accelerate
    from bigtrain.training.run import Run

FREE_KEYS = (  # lengths, logging and paths: a resume may change them
    "name", "run_dir", "total_images", "max_micro_batch_images", "engine", "compile", "timeout_minutes", "evaluate",
    "checkpoint", "snapshots", "log", "samples", "watchdog", "allow_change", "data.shards", "data.shards_b",
    "data.num_workers", "data.cache_dir", "data.cache_gib", "data.on_error", "data.max_bad_fraction",
    "data.shuffle_samples",
)  # fmt: skip


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")}


def tensors_of(run: "Run") -> dict[str, Tensor]:
    """Return every tensor that training changes, by name; the same on all ranks. Collective where ZeRO has parts."""
    tensors: dict[str, Tensor] = {}
    for name, network in run.game.networks.items():
        tensors |= _prefixed(f"network/{name}", network.state_dict())
    for name, wrapped in run.engine.wrapped.items():
        tensors |= _prefixed(f"optimizer/{name}", wrapped.state())
    return tensors | _prefixed("average", run.averages.state()) | _prefixed("game", run.game.state.state_dict())


def record_of(run: "Run") -> dict[str, Any]:
    """Return everything else that a restart needs, as JSON."""
    return {
        "progress": run.progress.record(),
        "means": run.means.record(),
        "watch": run.watch.record(),
        "damage": run.damage.record(),
        "scalers": {name: scaler.state_dict() for name, scaler in run.engine.scalers.items()},
        "log_bytes": run.log.offset(),
        "time_s": run.log.elapsed_s,
        "recipe": run.recipe.model_dump(mode="json"),
        **facts_record(run),
    }


def facts_record(run: "Run") -> dict[str, Any]:
    """Return what the weights belong to: image shape, classes, the data's content, versions."""
    image = run.facts.image
    return {
        "image": asdict(image),
        "label_counts": run.facts.label_counts,
        "class_names": list(run.shards.class_names),
        "data_hash": run.shards.content_hash,
        "world": run.launch.ranks.world,
        "versions": {"bigtrain": bigtrain.__version__, "torch": torch.__version__, "python": sys.version.split()[0]},
    }


def check_ranks(run: "Run", tensors: Mapping[str, Tensor]) -> None:
    """Compare what `tensors_of` returned across ranks; collective.

    Raises:
        RanksDriftedError: ranks differ in at least one tensor.
    """
    compare_ranks(run.launch.ranks, tensors, f"after {run.progress.images_seen:,} images")


def restore(run: "Run", checkpoint: Checkpoint) -> None:
    """Put a checkpoint's state into a freshly built run.

    Raises:
        RecipeError: the recipe or the data differ from the checkpoint's in more than lengths, logging and paths.
        CheckpointError: tensors are missing, surplus or of another shape.
    """
    record, tensors = checkpoint.record, checkpoint.tensors
    check_same_run(run.recipe, run.shards.content_hash, record, str(checkpoint.path))
    try:
        _load_tensors(run, tensors)
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"{checkpoint.path} does not fit the networks of this recipe ({error}); use the recipe that wrote it: "
            f"{run.folder / 'recipe.yaml'}"
        ) from error
    for name, scaler in run.engine.scalers.items():
        if record["scalers"][name]:  # empty where the run had another precision until now
            scaler.load_state_dict(record["scalers"][name])
    run.progress = Progress.from_record(record["progress"])
    run.means.load_record(record["means"])
    if "watch" in record:  # checkpoints from before the watchdog know nothing of it
        run.watch.load_record(record["watch"])
    if "damage" in record:  # nor do older ones of damaged samples
        run.damage.load_record(record["damage"])
    run.saved_images = run.progress.images_seen
    run.owes_evaluation = is_evaluation_owed(run)
    if not run.is_complete:  # else nothing is played again, and the log stays whole
        run.log.resume_at(record["log_bytes"], record["time_s"], run.progress.images_seen)


def _load_tensors(run: "Run", tensors: Mapping[str, Tensor]) -> None:
    """Put every tensor in its place; KeyError or RuntimeError where one is missing, surplus or of another shape."""
    for name, network in run.game.networks.items():
        network.load_state_dict(_under(f"network/{name}", tensors))
    run.game.state.load_state_dict(_under("game", tensors))
    kept, saved = run.averages.state(), _under("average", tensors)
    if kept.keys() != saved.keys():
        raise KeyError(f"averages {sorted(kept.keys() ^ saved.keys())[:3]}")
    for name, tensor in kept.items():
        tensor.copy_(saved[name])
    for name, wrapped in run.engine.wrapped.items():
        wrapped.load_state(_under(f"optimizer/{name}", tensors))


def _flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{path}.{key}" if path else key
        flat |= _flat(value, name) if isinstance(value, Mapping) else {name: value}
    return flat


def _is_free(key: str, free: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in free)


def check_same_run(recipe: Recipe, data_hash: str, record: Mapping[str, Any], where: str) -> None:
    """Refuse to go on with another science than the checkpoint's.

    Raises:
        RecipeError: one sentence for each differing key that is neither free nor listed in `allow_change`.
        CheckpointError: the checkpoint's recipe is of a version that this one does not know.
    """
    # Through this version's schema, so that a key which is new since then has its default on both sides.
    try:
        before = Recipe.model_validate(record["recipe"])
    except ValidationError as error:
        raise CheckpointError(
            f"{where} was written with a recipe that this version cannot read ({error.error_count()} problems); use "
            f"the version that wrote it: {record['versions']}"
        ) from error
    ours, theirs = _flat(recipe.model_dump(mode="json")), _flat(before.model_dump(mode="json"))
    free = (*FREE_KEYS, *recipe.allow_change)
    problems = [
        f"{key}: {ours.get(key)!r} differs from {theirs.get(key)!r} of {where}; put it back, choose another "
        f"run_dir, or add it to allow_change"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key) and not _is_free(key, free)
    ]
    if data_hash != record["data_hash"] and not _is_free("data", recipe.allow_change):
        problems.append(
            f"data.shards: {recipe.data.shards} holds other images than those of {where}; point it at the same "
            "shards, or add data to allow_change"
        )
    if problems:
        raise RecipeError(problems)
