"""Say what a run will need before it runs: memory, layout, hours; and write its batch script."""

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bigtrain.cli import say
from bigtrain.recipe.errors import EXIT_DONE, RecipeError, UsageError
from bigtrain.recipe.load import load_recipe
from bigtrain.recipe.shipped import shipped_folder
from bigtrain.recipe.units import parse_duration_s

if TYPE_CHECKING:
    from bigtrain.training.schema import Recipe

TEMPLATE = "train.sbatch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe, the machines, the assumptions and what is written."""
    parser.add_argument("recipe", help="a recipe file, or bigtrain:NAME for one that ships with the package")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the recipe's")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="nodes of the job (default 1)")
    parser.add_argument("--gpus-per-node", type=int, default=1, metavar="N", help="GPUs of each node (default 1)")
    parser.add_argument("--time", metavar="24h", help="time limit of one job, such as 90min, 24h or 3d")
    parser.add_argument("--partition", metavar="NAME", help="partition of the batch script")
    parser.add_argument("--gpu", default="h100", metavar="NAME", help="v100, a100-40, a100, h100 (default) or h200")
    parser.add_argument("--peak-tflops", type=float, metavar="X", help="peak to reckon with, instead of the GPU's")
    parser.add_argument(
        "--mfu",
        type=float,
        metavar="X",
        help="part of the peak that is reached, such as 0.25; without it 0.25 of matrix units' and 0.5 of plain "
        "float32's is assumed (published runs of StyleGAN2 reach 0.07 to 0.15, BigGAN in float32 0.65)",
    )
    parser.add_argument("--sbatch", type=Path, metavar="FILE", help="write a batch script for SLURM")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--force", action="store_true", help="replace a batch script that is there and differs")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; return 0."""
    limit_s = _checked(arguments)
    from bigtrain.planning.files import check_new, check_target, replace, write_new
    from bigtrain.planning.gpus import Speed  # torch takes seconds to import; a wrong command line should not
    from bigtrain.planning.plan import Machines, layouts_text, make_plan, record, text
    from bigtrain.training.layout import choose_layout
    from bigtrain.training.schema import Recipe

    if arguments.json is not None:
        check_target(arguments.json)
    recipe = load_recipe(arguments.recipe, arguments.overrides, Recipe)
    script = "" if arguments.sbatch is None else _script(arguments, recipe, limit_s)
    if arguments.sbatch is not None:
        check_new(arguments.sbatch, script, arguments.force)  # a plan takes seconds; that can be known before
    machines = Machines(arguments.nodes, arguments.gpus_per_node, limit_s)
    if recipe.engine == "plain" and machines.world > 1:
        raise UsageError(
            f"engine: plain runs in one process, but {machines.nodes} x {machines.gpus_per_node} GPUs are "
            f"{machines.world}; add engine=ddp"
        )
    try:
        layout = choose_layout(recipe.dealing, 0, machines.world)
    except RecipeError:
        say("\n".join(layouts_text(recipe)))
        raise
    plan = make_plan(recipe, machines, layout, Speed(arguments.gpu, arguments.peak_tflops, arguments.mfu))
    say("\n".join(text(plan)))
    say(f"whole recipe: bigtrain recipe {shlex.join([arguments.recipe, *arguments.overrides])}")
    if arguments.json is not None:
        replace(arguments.json, json.dumps(record(plan), indent=1) + "\n")
    if arguments.sbatch is not None:
        write_new(arguments.sbatch, script, arguments.force)
        say(f"batch script: sbatch {arguments.sbatch}")
    elif arguments.time is not None or arguments.partition is not None:
        say("no batch script was written; --sbatch FILE writes one")
    return EXIT_DONE


def _checked(arguments: argparse.Namespace) -> float | None:
    """Return the time limit in seconds, once the command line is sound."""
    for option in ("nodes", "gpus_per_node"):
        if getattr(arguments, option) < 1:
            raise UsageError(f"--{option.replace('_', '-')} {getattr(arguments, option)}: write 1 or more")
    for option in ("mfu", "peak_tflops"):
        value = getattr(arguments, option)
        if value is not None and not 0 < value <= (1 if option == "mfu" else 1e6):
            example = "a part of one, such as 0.25" if option == "mfu" else "a rate in TFLOP/s, such as 989"
            raise UsageError(f"--{option.replace('_', '-')} {value}: write {example}")
    if arguments.partition is not None and len(arguments.partition.split()) != 1:
        raise UsageError(f"--partition '{arguments.partition}': a partition's name is one word; `sinfo` lists them")
    if arguments.sbatch is not None and arguments.sbatch == arguments.json:
        raise UsageError(f"--json {arguments.json} is the batch script of --sbatch; name another file")
    if arguments.time is None:
        return None
    try:
        limit_s = parse_duration_s(arguments.time)
    except ValueError as error:
        raise UsageError(f"--time {arguments.time}: {error}") from error
    if not isinstance(limit_s, float) or limit_s < 60:
        raise UsageError(f"--time {arguments.time}: a job has at least a minute; write a duration such as 24h")
    return limit_s


def _script(arguments: argparse.Namespace, recipe: "Recipe", limit_s: float | None) -> str:
    from bigtrain.planning.sbatch import fill, slurm_time

    header = {
        "job-name": recipe.name,
        "nodes": str(arguments.nodes),
        "ntasks-per-node": str(arguments.gpus_per_node),
        "gpus-per-node": str(arguments.gpus_per_node),
        "cpus-per-task": str(recipe.data.num_workers + 1),
    }
    if limit_s is not None:
        header["time"] = slurm_time(limit_s)
    if arguments.partition:
        header["partition"] = arguments.partition
    template = shipped_folder("slurm") / TEMPLATE
    if not template.is_file():
        raise UsageError(f"{template} does not exist, so there is nothing to fill in; install bigtrain again")
    return fill(template.read_text(), header, [arguments.recipe, *arguments.overrides])
