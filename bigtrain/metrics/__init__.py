"""Figures of merit: features of images, Frechet and kernel distances between them. Knows no network and no shard."""
