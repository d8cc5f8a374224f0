"""Recipes and SLURM templates that ship with the package: inside the wheel, or beside it in an editable checkout."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
PREFIX = "bigtrain:"
SUFFIX = ".yaml"


def shipped_folder(name: str) -> Path:
    """Return the folder "recipes" or "slurm" that belongs to this installation, whether or not it exists."""
    in_wheel = PACKAGE / "shipped" / name
    return in_wheel if in_wheel.is_dir() else PACKAGE.parent / name


def shipped_recipes() -> list[str]:
    """Return the names of all shipped recipes, sorted, as `bigtrain:NAME` takes them."""
    return sorted(path.stem for path in shipped_folder("recipes").glob(f"*{SUFFIX}"))
