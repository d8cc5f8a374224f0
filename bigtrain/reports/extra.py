"""The packages of the extra `report`, which training does without."""

import importlib.util

from bigtrain.recipe.errors import UsageError

INSTALL = "pip install 'bigtrain[report]'"


def needs_report_extra(*packages: str) -> None:
    """Refuse to go on without some packages, before anything else of them is imported.

    Raises:
        UsageError: one is missing; it says how to install it.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        names = " and ".join(missing)
        raise UsageError(f"this needs the extra `report` ({names} not installed); {INSTALL}")
