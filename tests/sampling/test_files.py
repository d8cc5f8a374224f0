"""Image files: pixels survive, and a file is whole or not there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigtrain.sampling.files import save_folder, save_npz, save_png, written_aside


def picture(channels: int, num: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.randint(0, 256, (num, channels, 5, 7), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_png_keeps_every_pixel(tmp_path: Path, channels: int, mode: str):
    image = picture(channels)[0]
    path = save_png(tmp_path / "new" / "folder" / "image.png", image)
    with Image.open(path) as back:
        assert back.mode == mode
        assert back.format == "PNG"
        pixels = torch.from_numpy(np.array(back)).view(5, 7, channels).permute(2, 0, 1)
    assert torch.equal(pixels, image)
    assert [file.name for file in path.parent.iterdir()] == ["image.png"]


def test_png_of_channels_last_memory_keeps_every_pixel(tmp_path: Path):
    images = picture(3, num=2).contiguous(memory_format=torch.channels_last)
    with Image.open(save_png(tmp_path / "a.png", images[1])) as back:
        assert torch.equal(torch.from_numpy(np.array(back)).permute(2, 0, 1), images[1])


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save_png(tmp_path / "image.png", picture(3)[0])
    before = path.read_bytes()

    def cut_short(self: Image.Image, stream, format: str) -> None:
        stream.write(b"half a pict")
        assert path.read_bytes() == before, "the old file must stay readable while the new one is written"
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", cut_short)
    with pytest.raises(OSError, match="No space left"):
        save_png(path, picture(3, num=2)[1])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_first_write_that_fails_leaves_no_file(tmp_path: Path):
    def write_half() -> None:
        with written_aside(tmp_path / "x.bin") as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_written_files_are_readable_by_the_group_as_the_umask_says(tmp_path: Path):
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    path = save_png(tmp_path / "image.png", picture(1)[0])
    assert path.stat().st_mode == plain.stat().st_mode


def test_folder_holds_one_named_png_an_image(tmp_path: Path):
    images = picture(1, num=3)
    paths = save_folder(tmp_path / "out", images, ["000003", "000017", "000042"])
    assert [path.name for path in paths] == ["000003.png", "000017.png", "000042.png"]
    assert sorted((tmp_path / "out").iterdir()) == sorted(paths)
    with Image.open(paths[1]) as back:
        assert torch.equal(torch.from_numpy(np.array(back)), images[1, 0])
    with pytest.raises(AssertionError, match="3 images but 1 names"):
        save_folder(tmp_path, images, ["a"])


def test_npz_holds_images_channels_last_and_labels(tmp_path: Path):
    images = picture(3, num=2)
    with np.load(save_npz(tmp_path / "samples.npz", images, torch.tensor([4, 1]))) as arrays:
        assert sorted(arrays.files) == ["arr_0", "arr_1"]
        assert arrays["arr_0"].dtype == np.uint8
        assert torch.equal(torch.from_numpy(arrays["arr_0"]).permute(0, 3, 1, 2), images)
        assert arrays["arr_1"].tolist() == [4, 1]
    with np.load(save_npz(tmp_path / "samples", images)) as arrays:
        assert arrays.files == ["arr_0"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["samples", "samples.npz"]


def test_image_files_refuse_what_is_not_pixels(tmp_path: Path):
    with pytest.raises(AssertionError, match="uint8"):
        save_png(tmp_path / "a.png", torch.zeros(3, 2, 2))
    with pytest.raises(AssertionError, match="1, 3 or 4 channels, got 2"):
        save_png(tmp_path / "a.png", torch.zeros(2, 2, 2, dtype=torch.uint8))
