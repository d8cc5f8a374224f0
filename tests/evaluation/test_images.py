"""Sets of images: the same pixels from shards, folders, zips and arrays; one sentence for what cannot be judged."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigtrain.evaluation.images import Files, ImageSet, open_images
from bigtrain.recipe.errors import DataError, UsageError
from bigtrain.sampling.files import save_folder, save_npz

IMAGES = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 0, 0, 1, 1, 1])


def png(image_CHW: torch.Tensor) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image_CHW.permute(1, 2, 0).numpy().squeeze()).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture(params=["folder", "zip", "deflated zip", "npz", "compressed npz"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> ImageSet:
    """The same six images of two classes, in each form."""
    names = [f"{'cat' if label == 0 else 'dog'}/{number}" for number, label in enumerate(LABELS.tolist())]
    path = tmp_path / "images"
    if request.param == "folder":
        save_folder(path, IMAGES, names)
        (path / "notes.txt").write_text("no image")
        (path / ".hidden.png").write_text("no image")
    elif "zip" in request.param:
        path = path.with_suffix(".zip")
        packed = zipfile.ZIP_DEFLATED if "deflated" in request.param else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", packed) as archive:
            for name, image in zip(names, IMAGES, strict=True):
                archive.writestr(f"{name}.png", png(image))
            archive.writestr("__MACOSX/cat/0.png", b"no image")
    elif request.param == "npz":
        save_npz(path.with_suffix(".npz"), IMAGES, LABELS)
        path = path.with_suffix(".npz")
    else:
        path = path.with_suffix(".npz")
        np.savez_compressed(path, IMAGES.permute(0, 2, 3, 1).numpy(), LABELS.numpy())
    return open_images(str(path))


def test_every_form_holds_the_same_images(images: ImageSet) -> None:
    assert images.num_images == 6
    assert (images.image.size, images.image.channels, images.image.num_classes) == ((8, 8), 3, 2)
    image_NCHW, label_N = images.load([5, 0, 3])
    assert torch.equal(image_NCHW, IMAGES[[5, 0, 3]])
    assert label_N.tolist() == [1, 0, 1]
    assert len(images.content_hash()) == 64


def test_arrays_are_mapped_where_they_are_not_compressed(tmp_path: Path) -> None:
    save_npz(tmp_path / "plain.npz", IMAGES)
    np.savez_compressed(tmp_path / "packed.npz", IMAGES.permute(0, 2, 3, 1).numpy())
    plain, packed = (open_images(str(tmp_path / f"{name}.npz")) for name in ("plain", "packed"))
    assert isinstance(plain.pixels_NHWC, np.memmap)
    assert not isinstance(packed.pixels_NHWC, np.memmap)
    assert plain.content_hash() == packed.content_hash()
    assert plain.load([0])[1].tolist() == [-1]


def test_content_tells_sets_apart(tmp_path: Path) -> None:
    save_folder(tmp_path / "a", IMAGES, list("abcdef"))
    save_folder(tmp_path / "b", IMAGES, list("ghijkl"))
    save_folder(tmp_path / "c", IMAGES.flip(0), list("abcdef"))
    hashes = [open_images(str(tmp_path / name)).content_hash() for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_images_in_one_folder_have_no_classes(tmp_path: Path) -> None:
    save_folder(tmp_path, IMAGES, ["a", "b", "x/c", "x/d", "y/e", "y/f"])
    assert open_images(str(tmp_path)).image.num_classes == 0


def test_shards_are_read_whole(digits: Path) -> None:
    shards = open_images(str(digits))
    assert (shards.num_images, shards.image.num_classes) == (200, 10)
    assert shards.load([199])[0].shape == (1, 1, 32, 32)


def test_pictures_in_runs_are_no_set_of_images(tmp_path: Path) -> None:
    for name in ("a", "b", "sweep/c", "sweep/d"):
        run = tmp_path / "runs" / name
        save_folder(run / "samples", IMAGES[:2], ["000000000064", "000000000128"])
        (run / "recipe.yaml").write_text(f"name: {name}\n")
    with pytest.raises(UsageError, match=r"runs holds runs \(.*/a, .*/b, .*/sweep/c and more\), .* name one run"):
        open_images(str(tmp_path / "runs"))
    with pytest.raises(UsageError, match=r"holds runs \(.*/sweep/c, .*/sweep/d\), "):
        open_images(str(tmp_path / "runs" / "sweep"))
    with pytest.raises(UsageError, match=r"runs/a is a run, "):
        open_images(str(tmp_path / "runs" / "a"))
    assert open_images(str(tmp_path / "runs" / "a" / "samples")).num_images == 2  # whoever names these means them


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("z.png", png(IMAGES[0, :, :4, :4]), "z.png in .* is 4x4 with 3 channels, and a.png is 8x8 with 3 channels"),
        ("z.png", png(IMAGES[0, :1]), "z.png in .* is 8x8 with 1 channels"),
        ("z.png", png(IMAGES[0])[:60], "z.png in .* cannot be used: the image cannot be decoded"),
        ("z.jpg", b"", "z.jpg in .* cannot be used: the image is no JPEG, PNG or WebP"),
        ("a.png", png(IMAGES[0, :, :4]), "b.png in .* is 8x8 with 3 channels, and a.png is 8x4 with 3 channels"),
    ],
)
def test_images_unlike_the_others_get_a_sentence(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    save_folder(tmp_path, IMAGES[:2], ["a", "b"])
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=words):
        open_images(str(tmp_path)).load([0, 1, 2][: len(list(tmp_path.iterdir()))])


def test_places_without_images_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    (tmp_path / "bad.npz").write_bytes(b"PK no zip")
    np.savez(tmp_path / "moments.npz", mu=np.zeros(3), sigma=np.zeros((3, 3)))
    np.savez(tmp_path / "floats.npz", np.zeros((2, 8, 8, 3)))
    np.savez(tmp_path / "objects.npz", np.array([{"a": 1}], dtype=object))
    for name, words in {
        ".": "holds no image",
        "nothing": "is not there",
        "notes.txt": "is no .zip and no .npz",
        "bad.zip": "cannot be read as a zip",
        "bad.npz": "cannot be read as an .npz",
        "moments.npz": "holds mu, sigma and no arr_0",
        "floats.npz": r"is float64 \[2, 8, 8, 3\]",
        "objects.npz": "cannot be read",
    }.items():
        with pytest.raises(DataError, match=words):
            open_images(str(tmp_path / name))


def test_a_zip_that_claims_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", png(IMAGES[0]))
    images = open_images(str(tmp_path / "a.zip"))
    assert isinstance(images, Files)
    monkeypatch.setattr(images.files.archive.getinfo("a.png"), "file_size", 1 << 40)
    with pytest.raises(DataError, match="claims 1099511627776 bytes"):
        images.load([0])
