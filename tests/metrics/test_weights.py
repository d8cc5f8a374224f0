"""Weight files: where they are looked for, which ones are refused, and how they are brought in."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bigtrain.metrics import weights
from bigtrain.metrics.weights import CATALOGUE, DINOV2, WeightFile, WeightStore, imported
from bigtrain.recipe.errors import WeightsError

DATA = b"weights"
FILE = WeightFile("inception", "w.pth", "http://127.0.0.1:9/w.pth", hashlib.sha256(DATA).hexdigest()[:8], 1)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The three kinds of places, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    found = {name: tmp_path / name for name in ("option", "variable")}
    found["cache"] = Path(torch.hub.get_dir()) / "checkpoints"
    for folder in found.values():
        folder.mkdir(parents=True)
    return found


def store(folders: dict[str, Path], **environment: str) -> WeightStore:
    return WeightStore(
        (folders["option"],), environment={"BIGTRAIN_WEIGHTS": f"/nowhere:{folders['variable']}"} | environment
    )


def test_places_are_looked_into_in_their_order(folders: dict[str, Path]):
    looking = store(folders)
    assert looking.places() == [folders["option"], Path("/nowhere"), folders["variable"], folders["cache"]]
    for name in ("cache", "variable", "option"):
        (folders[name] / FILE.name).write_bytes(DATA)
        assert looking.get(FILE).path == folders[name] / FILE.name


def test_named_path_wins_and_may_be_a_folder(folders: dict[str, Path], tmp_path: Path):
    (folders["option"] / FILE.name).write_bytes(DATA)
    own = tmp_path / "own.pth"
    own.write_bytes(b"others")
    found = store(folders).get(FILE, str(own))
    assert (found.path, found.origin) == (own, "custom")
    assert found.facts == {"weights": f"custom {hashlib.sha256(b'others').hexdigest()[:12]}"}
    by_folder = store(folders).get(FILE, str(folders["option"]))
    assert (by_folder.path.name, by_folder.origin) == (FILE.name, "published")


def test_wrong_file_under_the_published_name_is_refused(folders: dict[str, Path]):
    (folders["variable"] / FILE.name).write_bytes(b"others")
    with pytest.raises(WeightsError, match=f"begins with {FILE.sha256_start}"):
        store(folders).get(FILE)


def test_file_of_unknown_sha256_is_taken_and_called_unverified(folders: dict[str, Path]):
    unknown = replace(FILE, sha256_start="")
    (folders["cache"] / FILE.name).write_bytes(DATA)
    assert store(folders).get(unknown).facts == {"weights": "unverified"}


@pytest.mark.parametrize(
    ("looking", "file", "reason"),
    [
        (WeightStore(offline=True, environment={}), FILE, "--offline forbids a download"),
        (WeightStore(environment={"HF_HUB_OFFLINE": "1"}), FILE, "HF_HUB_OFFLINE forbids a download"),
        (WeightStore(environment={}), DINOV2["large"], "its sha256 is not known here"),
    ],
)
def test_nothing_is_downloaded_where_it_must_not_be(
    looking: WeightStore, file: WeightFile, reason: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(weights.urllib.request, "urlopen", lambda *a, **k: pytest.fail("tried to download"))
    with pytest.raises(WeightsError, match=reason) as caught:
        looking.get(file)
    for word in (file.name, file.source, str(folders["cache"])):
        assert word in str(caught.value)


def test_files_are_known_by_sha256_or_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "CATALOGUE", (FILE, DINOV2["small"]))
    given = tmp_path / "downloaded.bin"
    given.write_bytes(DATA)
    file, path = imported(given, tmp_path / "kept")
    assert (file, path.name, path.read_bytes()) == (FILE, FILE.name, DATA)
    by_name = tmp_path / DINOV2["small"].name
    by_name.write_bytes(b"any")
    assert imported(by_name, tmp_path / "kept")[0] == DINOV2["small"]
    given.write_bytes(b"others")
    with pytest.raises(WeightsError, match="none of the known files: w.pth"):
        imported(given, tmp_path / "kept")
    with pytest.raises(WeightsError, match="is no file"):
        imported(tmp_path / "nothing", tmp_path / "kept")
    with pytest.raises(WeightsError, match="cannot be written"):
        imported(by_name, by_name)  # no folder
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [by_name.name, FILE.name]


def test_names_of_files_are_different():
    assert len({file.name for file in CATALOGUE}) == len(CATALOGUE)
