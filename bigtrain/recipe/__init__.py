"""Floor 0: what a recipe is made of. No torch here, so that a login node reads a recipe in milliseconds."""
