"""Floor 5: what a run folder tells. Reads files only, no networks and no torch, whatever state a run is in."""
