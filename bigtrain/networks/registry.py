"""The tables of generators and discriminators that a recipe's `kind` picks from; one file here registers one paper."""

from bigtrain.recipe.registry import Registry

GENERATORS = Registry("generator")
DISCRIMINATORS = Registry("discriminator")
