"""Feature extractors: one file each, its settings beside it, registered in `EXTRACTORS`."""
