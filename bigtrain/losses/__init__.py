"""Objectives and penalties: pure functions of logits and gradients."""
