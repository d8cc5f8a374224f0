"""`bigtrain weights`: which files there are, where they are looked for, and taking one in; nothing is downloaded."""

import hashlib
import urllib.request
from pathlib import Path

import pytest
import torch

from bigtrain.cli import main as command_line
from bigtrain.metrics import weights
from bigtrain.metrics.weights import INCEPTION, WeightFile
from bigtrain.sampling.files import save_npz

CONTENT = b"weights of a test"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PUBLISHED = WeightFile("inception", "inception-test.pth", "https://host/inception-test.pth", SHA256[:8], 1)
BY_NAME = WeightFile("dinov2", "dinov2-test.safetensors", "https://host/model.safetensors", "", 1)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two places, a catalogue of two files, and no network; returns BIGTRAIN_WEIGHTS and torch's cache."""
    monkeypatch.setenv("BIGTRAIN_WEIGHTS", str(tmp_path / "mine"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "CATALOGUE", (PUBLISHED, BY_NAME))
    monkeypatch.setattr("bigtrain.verbs.weights.CATALOGUE", (PUBLISHED, BY_NAME))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *words, **options: pytest.fail("a download was attempted"))
    return tmp_path / "mine", tmp_path / "torch" / "hub" / "checkpoints"


def test_where_names_the_places_in_their_order(
    tmp_path: Path, places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    places[1].mkdir(parents=True)
    (places[1] / PUBLISHED.name).write_bytes(CONTENT)
    assert command_line(["weights", "where", "--weights", str(tmp_path / "first")]) == 0
    out = capsys.readouterr().out
    assert out.index(str(tmp_path / "first")) < out.index(str(places[0])) < out.index(str(places[1]))
    assert f"{places[0]} (not there)" in out
    assert f"{PUBLISHED.name}: {places[1] / PUBLISHED.name}" in out
    assert f"{BY_NAME.name}: nowhere" in out


def test_check_tells_published_wrong_and_missing_files_apart(
    places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line(["weights", "check"]) == 0  # nobody asked for one
    assert command_line(["weights", "check", "fid"]) == 1
    assert f"fetch {PUBLISHED.source} and import it" in capsys.readouterr().out
    places[0].mkdir()
    (places[0] / PUBLISHED.name).write_bytes(CONTENT)
    assert command_line(["weights", "check", "fid", "kid", "prdc"]) == 0
    out = capsys.readouterr().out
    assert f"published  {SHA256[:16]}" in out
    assert BY_NAME.name not in out
    (places[0] / PUBLISHED.name).write_bytes(CONTENT[:-1])
    assert command_line(["weights", "check"]) == 1
    assert f"wrong  not {SHA256[:8]}..." in capsys.readouterr().out
    assert command_line(["weights", "check", "fd_classifier"]) == 0
    assert "no weight file is needed" in capsys.readouterr().out
    assert command_line(["weights", "check", "fidd"]) == 2


def test_import_takes_known_files_under_any_name(
    tmp_path: Path, places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "download(1)").write_bytes(CONTENT)
    assert command_line(["weights", "import", str(tmp_path / "download(1)")]) == 0
    assert str(places[0] / PUBLISHED.name) in capsys.readouterr().out
    assert (places[0] / PUBLISHED.name).read_bytes() == CONTENT
    assert [path.name for path in places[0].iterdir()] == [PUBLISHED.name]
    (tmp_path / BY_NAME.name).write_bytes(b"anything")
    assert command_line(["weights", "import", str(tmp_path / BY_NAME.name), "--weights", str(tmp_path / "x")]) == 0
    assert (tmp_path / "x" / BY_NAME.name).exists()
    (tmp_path / "other").write_bytes(CONTENT[1:])
    for file in ("other", "nowhere"):
        assert command_line(["weights", "import", str(tmp_path / file)]) == 2
    assert "is none of the known files" in capsys.readouterr().err


def test_an_offline_evaluation_says_which_file_is_missing_and_downloads_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_npz(tmp_path / "x.npz", torch.zeros(6, 3, 8, 8, dtype=torch.uint8))
    words = [str(tmp_path / "x.npz"), "--real", str(tmp_path / "x.npz"), "--metrics", "fid", "--offline"]
    assert command_line(["evaluate", *words, "--cache", str(tmp_path / "cache")]) == 2
    err = capsys.readouterr().err
    assert INCEPTION.name in err
    assert str(tmp_path / "mine") in err
    assert "--offline forbids a download" in err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / INCEPTION.name).write_bytes(b"something else")
    assert command_line(["evaluate", *words, "--cache", str(tmp_path / "cache")]) == 2
    assert f"begins with {INCEPTION.sha256_start}" in capsys.readouterr().err
