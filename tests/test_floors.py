"""The house keeps its floors: imports go down only, and rooms of one floor do not know each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bigtrain"
MODULES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    "recipe": 0,
    "losses": 1,
    "augment": 1,
    "draws": 1,
    "networks": 2,
    "data": 2,
    "metrics": 2,
    "sampling": 2,
    "games": 3,
    "interop": 3,
    "engine": 4,
    "training": 5,
    "reports": 5,
    "planning": 5,
    "evaluation": 6,
    "verbs": 7,
    "train": 7,
    "cli": 7,
    "__main__": 7,
    "__init__": 7,  # holds `bigtrain.load`; what others take from it is only its version
}
DOORS = 7  # the doors of this floor may use each other: verbs speak through cli
ENGINE_ONLY = ("accelerate", "deepspeed", "torch.distributed")


def room_of(path: Path) -> str:
    """Return the room of a file: the folder or module directly under bigtrain/."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Yield every module (or name of a module) that a file imports, wherever in it, and uses of torch.distributed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield prefix
            yield from (f"{prefix}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            yield f"torch.{node.attr}"


def breaches(source: str, room: str) -> set[str]:
    """Return what a file in `room` with this source imports against the rules."""
    found = set()
    for name in imports_of(ast.parse(source)):
        parts = name.split(".")
        if parts[0] == "":
            found.add(f"{name}: relative")
        if name.startswith(ENGINE_ONLY) and room != "engine":
            found.add(f"{name}: only engine/ may import it")
        if parts[0] in ("torch", "torchvision") and room == "recipe":
            found.add(f"{name}: recipe/ is read where torch is not wanted")
        if parts[0] == "bigtrain" and len(parts) > 1 and parts[1] in FLOORS and parts[1] != room:
            here, there = FLOORS[room], FLOORS[parts[1]]
            if there > here or (there == here and here != DOORS):
                found.add(f"{name}: floor {there} from floor {here}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    room = room_of(path)
    assert room in FLOORS, f"{path} is in no room of the house; give bigtrain/{room} a floor here and in the docs"
    assert breaches(path.read_text(encoding="utf-8"), room) == set()


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("recipe", "import torch"),
        ("recipe", "def f():\n    from torch import nn"),
        ("recipe", "from bigtrain.losses import adversarial"),
        ("networks", "from bigtrain.data.batch import Batch"),
        ("networks", "from bigtrain import data"),
        ("losses", "from bigtrain.draws import Draws"),
        ("games", "import bigtrain.interop.load"),
        ("games", "from bigtrain.engine.ema import WeightAverages"),
        ("training", "import accelerate"),
        ("training", "from deepspeed.runtime import engine"),
        ("training", "import torch.distributed as dist"),
        ("training", "from torch import distributed"),
        ("training", "import torch\ntorch.distributed.barrier()"),
        ("engine", "from bigtrain.training.run import Run"),
        ("training", "from bigtrain.cli import say"),
        ("data", "from . import order"),
    ],
)
def test_a_breach_is_seen(room, source):
    assert len(breaches(source, room)) >= 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        (
            "engine",
            "import torch.distributed\nfrom accelerate import Accelerator\nfrom bigtrain.games.base import Game",
        ),
        ("games", "from bigtrain.networks.registry import GENERATORS\nimport torch"),
        ("verbs", "from bigtrain.cli import say\nfrom bigtrain.train import run"),
        ("data", "from bigtrain.data.order import Order\nfrom bigtrain.recipe.errors import DataError"),
        ("engine", "from bigtrain import __version__"),
    ],
)
def test_what_is_allowed_is_let_through(room, source):
    assert breaches(source, room) == set()
