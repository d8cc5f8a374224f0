"""Floor 5: from a recipe to a run: schema, build, loop, hooks, and trained models for use."""
