"""A projection as files: a picture, figures and settings as JSON, codes as safetensors.

Axes: N images, C channels, H height, W width.
"""

import json
from pathlib import Path
from typing import Any

import torch

from bigtrain.evaluation.codes_file import save_codes
from bigtrain.evaluation.projection.distance import Distance
from bigtrain.evaluation.projection.search import Projection
from bigtrain.evaluation.projection.settings import ProjectionSettings
from bigtrain.sampling.files import save_png, written_aside
from bigtrain.sampling.sheets import Sheet, draw_sheet, enlargement
from bigtrain.training.loaded import LoadedModel

COLUMN_NAMES = ("target", "found", "error")


def picture(found: Projection) -> Sheet:
    """Return target, projection and error (the absolute difference, white where it is all 255 levels) of each image."""
    target_NCHW, image_NCHW = found.targets.image_NCHW, found.image_NCHW
    error_NCHW = (target_NCHW.int() - image_NCHW.int()).abs().to(torch.uint8)
    if error_NCHW.shape[1] == 4:
        error_NCHW[:, 3] = 255  # seen, not transparent where it is right
    rows = torch.stack((target_NCHW, image_NCHW, error_NCHW), 1).flatten(0, 1)
    return Sheet(rows, len(COLUMN_NAMES), column_names=COLUMN_NAMES)


def protocol(model: LoadedModel, distance: Distance, settings: ProjectionSettings) -> dict[str, Any]:
    """Return what figures of projections must share to be comparable, as JSON values."""
    return {
        "images_seen": model.images_seen,
        "average": model.average,
        "distance": {"name": distance.name, **distance.facts},
        "settings": settings.model_dump(mode="json"),
    }


def figures_of(found: Projection) -> list[dict[str, Any]]:
    """Return what was measured of each image, as JSON values."""
    names, label_N = found.targets.names, found.extra.get("label")
    return [
        {
            "name": name,
            "distance": float(found.distance_N[number]),
            "start_distance": float(found.start_distance_N[number]),
            "pixel_rms_levels": float(found.pixel_rms_N[number]),
            **({} if label_N is None else {"label": int(label_N[number])}),
        }
        for number, name in enumerate(names)
    ]


def save_projection(path: Path, found: Projection, record: dict[str, Any], factor: int | None = None) -> list[Path]:
    """Write a picture to `path`, and beside it figures (.json) and codes (.safetensors); return the three paths.

    Raises:
        OSError: see `written_aside`.
    """
    record = {**record, "images": figures_of(found)}
    save_sheet(path, picture(found), factor)
    figures, codes = path.with_suffix(".json"), path.with_suffix(".safetensors")
    save_json(figures, record)
    save_codes(codes, found.codes, dict(found.extra), record)
    return [path, figures, codes]


def save_sheet(path: Path, sheet: Sheet, factor: int | None) -> Path:
    """Write a sheet as PNG, small images enlarged."""
    height, width = sheet.image_NCHW.shape[-2:]
    return save_png(path, draw_sheet(sheet, factor or enlargement(height, width)))


def save_json(path: Path, record: dict[str, Any]) -> Path:
    """Write a record, and return its path."""
    with written_aside(path) as stream:
        stream.write((json.dumps(record, indent=1) + "\n").encode())
    return path
