"""Latent projection: which code makes an image most like a given one, and how like it is."""
