"""Films decode back to their frames, loop, and say what they need."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigtrain.recipe.errors import UsageError
from bigtrain.sampling.films import check_film_format, film_suffixes, save_film

FPS = 10
WORST_MEAN_DIFFERENCE = 3.0  # of 255 levels, of H.264 at this quality on smooth frames


def frames_of(channels: int, height: int = 40, width: int = 56) -> torch.Tensor:
    """Return six smooth frames [T, C, H, W] in which a wave moves; all differ."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = [torch.sin((x + y + 9 * t) / 9.0) for t in range(6)]
    gray = ((torch.stack(waves) + 1) * 110 + 10).to(torch.uint8)[:, None]
    return gray if channels == 1 else torch.cat([gray, gray // 2 + 60, gray // 3], 1)


def decoded(path: Path) -> np.ndarray:
    """Return the frames of a film, uint8 [T, H, W, 3]."""
    if path.suffix == ".mp4":
        import av

        with av.open(path) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with Image.open(path) as film:
        shown = []
        for number in range(film.n_frames):
            film.seek(number)
            shown.append(np.asarray(film.convert("RGB")))
        return np.stack(shown)


def expected(frames: torch.Tensor) -> np.ndarray:
    """Return frames as uint8 [T, H, W, 3]."""
    return frames.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", film_suffixes())
def test_a_film_decodes_back_to_its_frames(tmp_path: Path, suffix: str, channels: int):
    frames = frames_of(channels)
    path = save_film(tmp_path / f"film{suffix}", iter(frames), FPS)
    found = decoded(path)
    assert found.shape == (6, 40, 56, 3)
    difference = np.abs(found.astype(int) - expected(frames)).mean((1, 2, 3))
    exact = suffix == ".webp" or (suffix == ".gif" and channels == 1)
    assert (difference <= (0 if exact else WORST_MEAN_DIFFERENCE)).all(), difference
    others = np.abs(found.astype(int) - expected(frames.roll(1, 0))).mean((1, 2, 3))
    assert (others > 2 * difference + 2).all()  # each frame is itself, not its neighbour


@pytest.mark.parametrize("suffix", film_suffixes())
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, suffix: str):
    first, second = (save_film(tmp_path / f"{name}{suffix}", iter(frames_of(1)), FPS) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("suffix", film_suffixes())
def test_odd_sides_get_a_white_row_and_column(tmp_path: Path, suffix: str):
    found = decoded(save_film(tmp_path / f"film{suffix}", iter(frames_of(3, 33, 47)), FPS))
    assert found.shape == (6, 34, 48, 3)
    assert found[:, -1].mean() > 240


def test_transparent_pixels_become_white(tmp_path: Path):
    frames = torch.zeros(2, 4, 8, 8, dtype=torch.uint8)
    frames[1, 0] = 255
    assert decoded(save_film(tmp_path / "film.webp", iter(frames), FPS)).min() == 255


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animations_loop_for_ever_at_their_speed(tmp_path: Path, suffix: str):
    with Image.open(save_film(tmp_path / f"film{suffix}", iter(frames_of(3)), FPS)) as film:
        assert film.info["loop"] == 0
        film.seek(1)
        film.load()
        assert film.info["duration"] == 100


def test_other_formats_and_a_missing_library_get_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match=r"films end in \.gif, \.mp4, \.webp"):
        check_film_format(tmp_path / "film.avi")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=r"pip install 'bigtrain\[report\]'"):
        save_film(tmp_path / "film.mp4", iter(frames_of(1)), FPS)
    assert list(tmp_path.iterdir()) == []
