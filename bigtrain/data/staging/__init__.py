"""Shards that lie elsewhere, copied ahead of need to a folder of this node and verified; order and feed know nothing
of it."""
