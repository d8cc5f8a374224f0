"""Checkpoints of a run: together over ranks, as a folder, as files."""
