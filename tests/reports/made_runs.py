"""Run folders made by hand, in the form that training writes."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PROTOCOL = {"extractor": "classifier", "num_generated": 100, "seed": 0, "sampling": {"average": "ema-3000"}}
RECIPE = """schema_version: 1
name: {name}
seed: 0
run_dir: {folder}
total_images: 64000
batch_images: 32
game:
  kind: noise_to_image
  objective: {objective}
ema:
- halflife_images: 3000
  rampup: 0.05
"""


def write_recipe(folder: Path, name: str = "toy", objective: str = "hinge") -> None:
    """Write a resolved recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    quoted = json.dumps(name)
    (folder / "recipe.yaml").write_text(RECIPE.format(name=quoted, folder=folder, objective=objective))


def event(kind: str, images: int, **figures: Any) -> dict[str, Any]:
    """Return a line of the log; a hundred images take a second."""
    return {"event": kind, "images_seen": images, "step": images // 32, "time_s": images / 100, **figures}


def start(world: int = 1, device: str = "cuda:0", kind: str = "start", images: int = 0) -> dict[str, Any]:
    """Return the line of a start."""
    facts = {"engine": "ddp", "device": device, "world": world, "micro_images": 16, "accumulation": 1}
    return event(kind, images, **facts)


def status(images: int, phase: float = 0.0, **more: Any) -> dict[str, Any]:
    """Return a status line with smooth figures."""
    angle = images / 4000 + phase
    return event(
        "status",
        images,
        loss_discriminator=0.5 + 0.1 * math.sin(angle),
        loss_generator=3.0 + math.cos(angle),
        gradient_norm_discriminator=4.0,
        gradient_norm_generator=12.0,
        sample_diversity=0.9,
        singular_value_generator=1.2,
        singular_value_discriminator=1.1,
        sign_real=0.9,
        sign_heldout=0.7,
        kimg=images / 1000,
        reals_shown=images * 2,
        images_per_s=100.0,
        data_wait_s=0.3,
        memory_gib=0.8,
        **more,
    )


def write_log(folder: Path, events: list[dict[str, Any]]) -> None:
    """Write log.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in events))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_evaluation(
    folder: Path, images: int, figures: dict[str, float], name: str = "fd-1", protocol: dict[str, Any] | None = None
) -> None:
    """Write one evaluation."""
    record = {"images_seen": images, "figures": figures, "protocol": PROTOCOL if protocol is None else protocol}
    write_json(folder / "evaluations" / f"{images:012d}-{name}.json", record)


def write_picture(path: Path, seed: int = 0, side: int = 48) -> None:
    """Write a gray picture of noise, which compresses badly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)).save(path)


def write_starts(folder: Path, *exit_statuses: int | None) -> None:
    """Write starts.json."""
    write_json(
        folder / "starts.json",
        [
            {"job": None, "restart": 0, "images_seen": 0, "since": "2026-01-01T00:00:00+00:00", "ended": None,
             "exit_status": status}
            for status in exit_statuses
        ],
    )  # fmt: skip


def make_run(folder: Path, name: str = "toy", phase: float = 0.0, objective: str = "hinge", world: int = 1) -> Path:
    """Make a complete run of 16 status lines that was preempted once, with samples and evaluations."""
    by_rank = {"step_s_by_rank": [0.3] * world, "compute_s_by_rank": [0.2] * world} if world > 1 else {}
    write_recipe(folder, name, objective)
    half = [status(images, phase, **by_rank) for images in range(4000, 33000, 4000)]
    rest = [status(images, phase, **by_rank) for images in range(36000, 65000, 4000)]
    stop = [event("checkpoint", 32000, path="c", stall_s=0.1, save_s=1.0), event("preempted", 32000)]
    alarm = event("alarm", 40000, reason="images differ <b>little</b>", monitor="diversity")
    write_log(
        folder,
        [start(world), *half, *stop, start(world, kind="resumed", images=32000), alarm, *rest, event("end", 64000)],
    )
    write_json(folder / "status.json", {"state": "complete", "exit_status": 0, "images_seen": 64000, "step": 2000})
    write_starts(folder, 75, 0)
    for images in range(8000, 65000, 8000):
        write_picture(folder / "samples" / f"{images:012d}.png", seed=images)
    for images, distance in ((32000, 2.0 + phase), (64000, 0.75 + phase)):
        write_evaluation(folder, images, {"fd_classifier": distance, "kd_classifier": 0.1, "kd_classifier_std": 0.01})
    return folder


def add_offline_parts(folder: Path) -> None:
    """Add what is made of a trained run: a truncation curve, an audit with pictures, figures, a film."""
    points = [
        {
            "threshold": step / 10,
            "truncation": f"resample:{step / 10}",
            "figures": {
                "fid": 8 + (step - 9) ** 2 / 4,
                "inception_score": 12 - step / 3,
                "precision": 1 - step / 40,
                "recall": step / 25,
            },
        }
        for step in range(1, 21)
    ]
    curve = {"images_seen": 64000, "law": "resample", "points": points, "protocol": PROTOCOL}
    write_json(folder / "curves" / "000000064000-fid-7.json", curve)
    audit = {
        "images_seen": 64000,
        "protocol": PROTOCOL,
        "nearest": {"num_images": 32, "mean_distance": 1.25},
        "duplicates": {"share": 0.01},
        "modes": {"covered": 10, "entropy": 2.29},
        "leakage": {"accuracy": 0.99, "confusion": [[9, 1], [0, 10]]},
        "discriminator": {"train": 0.9, "holdout": 0.5, "generated": -0.8},
        "pictures": {"Nearest neighbours": "nearest.png", "Gone": "gone.png"},
    }
    write_json(folder / "audits" / "000000064000.json", audit)
    write_picture(folder / "audits" / "nearest.png", seed=1)
    write_picture(folder / "figures" / "class-sheet.png", seed=2)
    (folder / "figures" / "way.mp4").write_bytes(b"film")
