"""Names of a checkpoint on disk, for those who look for one without reading it: torch is not imported here."""

MANIFEST = "MANIFEST.json"
IMAGES_DIGITS = 12


def folder_name(images: int) -> str:
    """Return the name of the checkpoint after that many images; names sort as numbers do."""
    return f"{images:0{IMAGES_DIGITS}d}"
