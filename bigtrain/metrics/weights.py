"""Files of published weights: which there are, where they are looked for, and whether one is what it says.

A file is looked for in this order: the path that the settings name; the folders of `--weights`; those of the
environment variable BIGTRAIN_WEIGHTS (separated by colons); torch's cache. What was found by its name must have the
published sha256, as far as that is known; a file that the settings name may be another one, and is then called custom,
with its sha256, in the protocol of every figure. A file that is nowhere is downloaded only where its sha256 is known
and neither HF_HUB_OFFLINE nor `--offline` forbids it.
"""

import hashlib
import os
import shutil
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bigtrain.recipe.errors import WeightsError

FOLDERS_VARIABLE = "BIGTRAIN_WEIGHTS"
OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
DOWNLOAD_TIMEOUT_S = 20.0  # without a byte
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class WeightFile:
    """One published file."""

    extractor: str
    """What reads it: a name of EXTRACTORS, or the distance `lpips`, which needs the file of VGG16 besides."""
    name: str
    """Its file name."""
    source: str
    """Where it is published."""
    sha256_start: str
    """The first hex digits of its sha256; empty: not known."""
    mib: int
    """Its size, about, in MiB."""


INCEPTION = WeightFile(
    "inception",
    "weights-inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "6726825d",  # carried in the file's name
    91,
)
VGG16 = WeightFile(
    "vgg16",
    "vgg16-397923af.pth",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    "397923af",  # carried in the file's name
    528,
)
DINOV2 = {
    size: WeightFile(
        "dinov2",
        f"dinov2-{size}.safetensors",
        f"https://huggingface.co/facebook/dinov2-{size}/resolve/main/model.safetensors",
        "",
        mib,
    )
    for size, mib in {"small": 84, "base": 330, "large": 1161, "giant": 4335}.items()
}
LPIPS = WeightFile(
    "lpips",
    "weights-vgg16-lpips.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-vgg16-lpips.pth",
    "",
    1,
)
CATALOGUE = (INCEPTION, VGG16, LPIPS, *DINOV2.values())


@dataclass(frozen=True)
class Found:
    """A weight file that is there."""

    path: Path
    sha256: str
    origin: str
    """`published`; `custom`, where its sha256 is not the published one; `unverified`, where that is not known."""

    @property
    def facts(self) -> dict[str, str]:
        """What a protocol says of it."""
        return {"weights": f"custom {self.sha256[:12]}" if self.origin == "custom" else self.origin}


@dataclass(frozen=True)
class WeightStore:
    """Where weight files are looked for."""

    folders: tuple[Path, ...] = ()
    """Those of `--weights`."""
    offline: bool = False
    """Never download."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def places(self) -> list[Path]:
        """Return the folders, in the order in which they are looked into; they need not exist."""
        named = self.environment.get(FOLDERS_VARIABLE, "").split(":")
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        return [*self.folders, *(Path(name).expanduser() for name in named if name), cache]

    def locate(self, file: WeightFile) -> Path | None:
        """Return where a file lies, without reading it; None: nowhere."""
        paths = (folder / file.name for folder in self.places())
        return next((path for path in paths if path.is_file()), None)

    def get(self, file: WeightFile, given: str | None = None) -> Found:
        """Return a file that may be used, downloading it where that is allowed and needed.

        Args:
            file: which.
            given: a path that the settings name, of a file or of a folder that holds it; then nothing else is tried.

        Raises:
            WeightsError: it is missing, or another one; the sentence names the file and the places for it.
        """
        if given is not None:
            return self._given(file, Path(given).expanduser())
        path = self.locate(file)
        if path is None:
            path = self._fetched(file)
        return checked(file, path)

    def _given(self, file: WeightFile, path: Path) -> Found:
        if path.is_dir() and (path / file.name).is_file():
            return checked(file, path / file.name)
        if not path.is_file():
            raise WeightsError(
                f"weights of {file.extractor}: '{path}', which the key `weights` names, is no file; put {file.name} "
                f"there, or leave the key out and put it into {self.places()[-1]}"
            )
        sha256 = sha256_of(path)
        return Found(path, sha256, _origin(file, sha256))

    def _fetched(self, file: WeightFile) -> Path:
        path = self.places()[-1] / file.name
        if self.offline or self.environment.get(OFFLINE_VARIABLE, "").upper() in {"1", "ON", "YES", "TRUE"}:
            raise self._missing(file, f"{'--offline' if self.offline else OFFLINE_VARIABLE} forbids a download")
        if not file.sha256_start:
            raise self._missing(file, "it is not downloaded, because its sha256 is not known here")
        try:
            _download(file, path)
        except OSError as error:
            raise self._missing(file, f"the download failed ({error})") from error
        return path

    def _missing(self, file: WeightFile, reason: str) -> WeightsError:
        places = ", ".join(map(str, self.places()))
        return WeightsError(
            f"weights of {file.extractor}: {file.name} is not in {places}, and {reason}; fetch {file.source} on a "
            f"machine with internet and put it there as {file.name}, or name its path in the extractor's key "
            "`weights`, or use the extractor classifier or random"
        )


def checked(file: WeightFile, path: Path) -> Found:
    """Return a file that was found by its name.

    Raises:
        WeightsError: its sha256 is known and another one.
    """
    sha256 = sha256_of(path)
    origin = _origin(file, sha256)
    if origin == "custom":
        raise WeightsError(
            f"{path} has sha256 {sha256[:16]} and the published {file.name} begins with {file.sha256_start}; fetch "
            f"{file.source} again, or name this file in the extractor's key `weights` if it is meant to be another one"
        )
    return Found(path, sha256, origin)


def imported(source: Path, folder: Path) -> tuple[WeightFile, Path]:
    """Copy a weight file into a folder, under its published name; return which one it is and where it is now.

    It is known by its sha256, or by its name where that is not known.

    Raises:
        WeightsError: it is missing or none of the catalogue's.
    """
    if not source.is_file():
        raise WeightsError(f"{source} is no file; name one of {', '.join(file.name for file in CATALOGUE)}")
    sha256 = sha256_of(source)
    for file in CATALOGUE:
        by_hash = file.sha256_start and sha256.startswith(file.sha256_start)
        if by_hash or (not file.sha256_start and source.name == file.name):
            return file, _copied(source, folder / file.name)
    known = ", ".join(f"{file.name} ({file.sha256_start or 'by its name'})" for file in CATALOGUE)
    raise WeightsError(
        f"{source} (sha256 {sha256[:16]}) is none of the known files: {known}; fetch it again, or rename it if it is "
        "one of those known by name"
    )


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hex digits.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error}); mend its permissions or fetch it again") from error


def _origin(file: WeightFile, sha256: str) -> str:
    if not file.sha256_start:
        return "unverified"
    return "published" if sha256.startswith(file.sha256_start) else "custom"


def _copied(source: Path, path: Path) -> Path:
    aside = path.with_name(f".{path.name}.aside-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written ({error}); free space, or name another folder") from error
    return path


def _download(file: WeightFile, path: Path) -> None:
    """Fetch a published file, check its sha256 and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside-{os.getpid()}")
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(file.source, timeout=DOWNLOAD_TIMEOUT_S) as source, aside.open("wb") as stream:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                stream.write(chunk)
        if not digest.hexdigest().startswith(file.sha256_start):
            raise OSError(f"sha256 {digest.hexdigest()} does not start with {file.sha256_start}")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
