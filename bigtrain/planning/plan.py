"""All that is told of a recipe before it runs, on so many nodes: sizes, memory, layout, time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bigtrain.planning.duration import Duration, duration, full_format
from bigtrain.planning.gpus import GPUS, Speed
from bigtrain.planning.measure import Measured, measure
from bigtrain.planning.memory import GIB, RESERVE_BYTES, RESERVE_SHARE, Memory, memory
from bigtrain.planning.recipe import Planned
from bigtrain.recipe.layout import Layout

COLUMNS = 100  # of a line of world sizes
PREFIX = "  "
MIB = 2**20
SMALL_GIB = 0.1  # below that, memory is told in MiB


@dataclass(frozen=True)
class Machines:
    """What a job asks for."""

    nodes: int = 1
    gpus_per_node: int = 1
    limit_s: float | None = None
    """Time limit of one job; None: none."""

    @property
    def world(self) -> int:
        """Processes, one a GPU."""
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True)
class Plan:
    """A recipe on machines: what follows."""

    recipe: Planned
    machines: Machines
    speed: Speed
    layout: Layout
    measured: Measured
    memory: Memory
    duration: Duration

    @property
    def gflop_per_image(self) -> float:
        """GFLOP of a step, forward and backward of all its turns, for one image seen."""
        return sum(cost.per_step * cost.flop for cost in self.measured.turns) / self.layout.micro_images / 1e9

    @property
    def formats(self) -> list[str]:
        """Number formats that its turns run in, with the one of most bits last."""
        reduced = [self.recipe.precision] if self.reduced_share else []
        return [*reduced, full_format(self.recipe)]

    @property
    def reduced_share(self) -> float:
        """Part of the FLOP that is in fewer bits than float32's."""
        total = sum(cost.per_step * cost.flop for cost in self.measured.turns)
        return sum(cost.per_step * cost.reduced_flop for cost in self.measured.turns) / total

    @property
    def memory_gib(self) -> float:
        """Memory of the GPU."""
        return float(GPUS.get(self.speed.gpu).memory_gib)


def make_plan(recipe: Planned, machines: Machines, layout: Layout, speed: Speed) -> Plan:
    """Return what follows from a recipe on these machines, dealt by this layout.

    Raises:
        RecipeError: the GPU is not known, or there is no model of the engine.
        UsageError: the GPU lacks a number format of the recipe.
    """
    GPUS.get(speed.gpu)  # before what takes seconds
    measured = measure(recipe, layout.micro_images)
    held = memory(measured, recipe.engine, layout.world, len(recipe.ema))
    return Plan(recipe, machines, speed, layout, measured, held, duration(measured, recipe, layout, speed))


def text(plan: Plan) -> Iterator[str]:
    """Yield the plan as lines for people, each figure with what it rests on."""
    yield from _essentials(plan)
    yield from _layout(plan)
    yield from layouts_text(plan.recipe)
    yield from _memory(plan)
    yield from _time(plan)


def _essentials(plan: Plan) -> Iterator[str]:
    recipe, image = plan.recipe, plan.recipe.image
    kind = f"{recipe.game.generator.kind} / {recipe.game.discriminator.kind}" if _has_pair(recipe) else ""
    classes = f", {image.num_classes} classes" if image.num_classes else ""
    size = " x ".join(map(str, image.spec.size))
    yield f"{recipe.name}: {recipe.game.kind} {kind}, images {size} x {image.channels}{classes}"
    yield f"{PREFIX}engine {recipe.engine}, precision {recipe.precision}, compile {recipe.compile}"
    yield f"{PREFIX}run folder {recipe.run_folder}, shards {recipe.data.shards}"
    for name, network in plan.measured.networks.items():
        yield f"{PREFIX}parameters of {name}: {network.parameters:,}"


def _has_pair(recipe: Planned) -> bool:
    return hasattr(recipe.game, "generator") and hasattr(recipe.game, "discriminator")


def _layout(plan: Plan) -> Iterator[str]:
    recipe, layout, machines = plan.recipe, plan.layout, plan.machines
    yield f"on {machines.nodes} node(s) x {machines.gpus_per_node} GPU(s) = {machines.world} process(es):"
    yield (
        f"{PREFIX}batch {recipe.batch_images:,} images = micro-batch {layout.micro_images} x accumulation "
        f"{layout.accumulation} x {layout.world} process(es)"
    )
    yield f"{PREFIX}steps: {recipe.num_steps:,} for {recipe.total_images:,} images"


def layouts_text(recipe: Planned) -> Iterator[str]:
    """Yield lines of all (processes x micro-batch) that the recipe can run on."""
    pairs = [f"{world} x {micro}" for world, micro in recipe.dealing.layouts()]
    yield f"{PREFIX}processes x micro-batch that this recipe runs on, the largest micro-batch of each:"
    line = ""
    for pair in pairs:
        if line and len(line) + len(pair) > COLUMNS:
            yield f"{PREFIX * 2}{line}"
            line = ""
        line += f"{', ' if line else ''}{pair}"
    yield f"{PREFIX * 2}{line or 'none'}"


def _memory(plan: Plan) -> Iterator[str]:
    held = plan.memory
    yield f"memory of one GPU, at its peak in turns {held.turn} (tensors of shapes played without data, not compiled):"
    for name in ("weights", "gradients", "optimizer", "averages", "activations", "tensors"):
        yield f"{PREFIX}{name:<12} {_size(getattr(held, name))}"
    yield (
        f"{PREFIX}with reserve {held.with_reserve / GIB:8.2f} GiB: {RESERVE_BYTES / GIB:.0f} GiB for contexts and "
        f"buffers of libraries, {RESERVE_SHARE:.0%} of activations for copies inside kernels; an assumption"
    )
    fits = "fits" if held.with_reserve <= plan.memory_gib * GIB else "does NOT fit: lower max_micro_batch_images"
    yield f"{PREFIX}{plan.speed.gpu} has {plan.memory_gib:g} GiB: {fits}"


def _time(plan: Plan) -> Iterator[str]:
    speed, spent = plan.speed, plan.duration
    yield (
        f"time, from {plan.gflop_per_image:,.1f} GFLOP an image (matrix products and convolutions of all turns as they "
        "are computed here, two for a multiply-add; fused resampling, so fewer than textbook forms of BigGAN):"
    )
    for each in plan.formats:
        origin = "assumed" if speed.mfu is None else "--mfu"
        whose = f"{speed.gpu}'s" if speed.peak_tflops is None else "--peak-tflops"
        share = plan.reduced_share if each == plan.recipe.precision != "fp32" else 1 - plan.reduced_share
        part = f"{speed.utilisation(each):.0%} ({origin}) of {whose} {speed.peak(each):g} TFLOP/s"
        yield f"{PREFIX}{each} ({share:.0%} of them): {part}"
    yield f"{PREFIX}{spent.step_s:.3g} s a step, {spent.images_per_s:,.0f} images/s in all"
    yield (
        f"{PREFIX}{_time_of(spent.hours)}, over all GPUs {_time_of(spent.hours * plan.machines.world)}; without "
        "evaluations, checkpoints, reading data and reduction over ranks"
    )
    if plan.machines.limit_s is not None:
        limit_h = plan.machines.limit_s / 3600
        yield f"{PREFIX}{spent.starts(plan.machines.limit_s)} job(s) of {limit_h:g} h, each resuming the one before"


def _size(count: float) -> str:
    """Return bytes in a unit that shows digits of them, aligned."""
    return f"{count / GIB:8.2f} GiB" if count >= SMALL_GIB * GIB else f"{count / MIB:8.2f} MiB"


def _time_of(hours: float) -> str:
    """Return hours in a unit that shows digits of them."""
    if hours >= 1:
        return f"{hours:,.1f} hours"
    return f"{hours * 60:.1f} minutes" if hours * 60 >= 1 else f"{hours * 3600:.2g} s"


def record(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain JSON, units in the keys."""
    held, spent, speed = plan.memory, plan.duration, plan.speed
    rows = ("weights", "gradients", "optimizer", "averages", "activations", "tensors", "with_reserve")
    limit_s = plan.machines.limit_s
    return {
        "name": plan.recipe.name,
        "engine": plan.recipe.engine,
        "precision": plan.recipe.precision,
        "parameters": {name: size.parameters for name, size in plan.measured.networks.items()},
        "world": plan.layout.world,
        "micro_images": plan.layout.micro_images,
        "accumulation": plan.layout.accumulation,
        "layouts": [list(pair) for pair in plan.recipe.dealing.layouts()],
        "steps": plan.recipe.num_steps,
        "memory_bytes": {name: getattr(held, name) for name in rows},
        "memory_peak_turn": held.turn,
        "turns": {
            cost.turn.name: {
                "per_step": cost.per_step,
                "gflop_per_image": cost.flop / plan.layout.micro_images / 1e9,
                "activation_bytes": cost.peak_bytes,
                "reduced_share": cost.reduced_flop / cost.flop if cost.flop else 0.0,
            }
            for cost in plan.measured.turns
        },
        "gflop_per_image": plan.gflop_per_image,
        "gpu": speed.gpu,
        "mfu": {each: speed.utilisation(each) for each in plan.formats},
        "mfu_is_assumed": speed.mfu is None,
        "peak_tflops": {each: speed.peak(each) for each in plan.formats},
        "step_s": spent.step_s,
        "images_per_s": spent.images_per_s,
        "hours": spent.hours,
        "jobs": None if limit_s is None else spent.starts(limit_s),
    }
