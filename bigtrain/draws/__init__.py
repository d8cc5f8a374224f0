"""Random numbers from facts, not from history: the same step draws the same noise after a restart and on any world
size."""

from bigtrain.draws.counter import Draws, seed_of

__all__ = ["Draws", "seed_of"]
