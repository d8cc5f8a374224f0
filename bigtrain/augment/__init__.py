"""Augmentations of what a discriminator sees: one paper a file, its settings beside it. Importing this package
registers every file in it."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
