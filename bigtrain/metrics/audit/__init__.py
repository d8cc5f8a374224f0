"""Arithmetic of an audit: features, labels and logits in, figures out; no image, no file, no network."""
