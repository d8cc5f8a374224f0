"""Figures of trained networks as pictures and films. Importing the package makes every kind known to FIGURES."""

from bigtrain.evaluation.figures import lapse, sheets, styles, ways
from bigtrain.evaluation.figures.base import FIGURES

__all__ = ["FIGURES", "lapse", "sheets", "styles", "ways"]
