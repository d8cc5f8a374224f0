"""Opens what `data.shards` names: reads the indexes, joins them to one, and finds the files of its shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bigtrain.data.files import LocalFiles, ShardFiles
from bigtrain.data.index import INDEX_NAME, FolderIndex, ShardEntry
from bigtrain.data.location import Location, locations
from bigtrain.data.staging.cache import GIB, Cache
from bigtrain.data.staging.fetch import read_small
from bigtrain.data.staging.files import StagedFiles
from bigtrain.data.staging.patience import Patience
from bigtrain.data.staging.sources import FolderSource, Source, UrlSource, load_libraries
from bigtrain.recipe.errors import DataError

MAX_INDEX_BYTES = 1 << 30  # of a million shards with a thousand classes each it would have more; nobody has those


@dataclass(frozen=True)
class Staging:
    """Where shards are copied to before they are read, and how much may lie there."""

    folder: Path
    limit_gib: float | None = None
    """None: as much as the disk has."""


@dataclass(frozen=True)
class _Folder:
    """One folder of shards: where it lies, what its index says of all, and those of its shards that are wanted."""

    location: Location
    index: FolderIndex
    entries: tuple[ShardEntry, ...]

    @property
    def source(self) -> Source:
        """What its files are copied from."""
        if self.location.scheme is None:
            return FolderSource(_path(self.location))
        return UrlSource(self.location.folder, self.location.scheme)


def open_places(place: str | Path, staging: Staging | None) -> tuple[FolderIndex, ShardFiles]:
    """Open the shards that a recipe names.

    Args:
        place: a folder, or as text also a brace pattern or URLs; see `location`.
        staging: None: local shards are read where they lie.

    Raises:
        DataError: the place is none that is read, an index or a shard is missing or damaged, folders do not fit each
            other, or the copies cannot be made.
    """
    patience = Patience()
    wanted = _by_folder(place)
    remote = next((location.folder for location in wanted if location.scheme is not None), None)
    if staging is None and remote is not None:
        raise DataError(f"data.shards: {remote} is read from copies only; name a folder for them by data.cache_dir")
    for scheme in {location.scheme for location in wanted if location.scheme is not None}:
        load_libraries(scheme)
    folders = [_open(location, names, patience) for location, names in wanted.items()]
    index = _joined(folders)
    if staging is None:
        paths = tuple(_path(folder.location) for folder in folders for _ in folder.entries)
        return index, LocalFiles(str(place), index, paths)
    limit_bytes = None if staging.limit_gib is None else int(staging.limit_gib * GIB)
    cache = Cache(staging.folder, limit_bytes, patience)
    return index, StagedFiles(str(place), index, [each.source for each in folders for _ in each.entries], cache)


def _by_folder(place: str | Path) -> dict[Location, list[str] | None]:
    """Return the folders that a place names, each with the names of the shards that are wanted of it; None: all."""
    if isinstance(place, Path):
        return {Location(str(place)): None}
    try:
        found = locations(place)
    except ValueError as error:
        raise DataError(f"data.shards: {error}") from error
    folders: dict[Location, list[str] | None] = {}
    for each in found:
        folder = Location(each.folder, None, each.scheme)
        wanted = folders.setdefault(folder, [] if each.shard else None)
        if wanted is None and (each.shard or found.count(each) > 1):
            raise DataError(f"data.shards: {folder.folder} is named twice, so its samples would be too; name it once")
        if wanted is not None:
            wanted.append(each.shard or "")
    return folders


def _open(location: Location, names: Sequence[str] | None, patience: Patience) -> _Folder:
    if location.scheme is None:
        index = FolderIndex.read(_path(location))
    else:
        data = read_small(UrlSource(location.folder, location.scheme), INDEX_NAME, MAX_INDEX_BYTES, patience)
        index = FolderIndex.parse(data, f"{location.folder}/{INDEX_NAME}")
    entries = index.shards if names is None else _chosen(index, names, location.folder)
    if location.scheme is None:
        refuse_wrong_sizes(_path(location), entries)
    return _Folder(location, index, entries)


def _chosen(index: FolderIndex, names: Sequence[str], where: str) -> tuple[ShardEntry, ...]:
    unknown = sorted(set(names) - {entry.name for entry in index.shards})
    if unknown or len(set(names)) < len(names):
        fault = f"{unknown[0] or where} is no shard" if unknown else f"{max(names, key=names.count)} is named twice"
        more = f" (and {len(unknown) - 1} more)" if unknown[1:] else ""
        raise DataError(
            f"data.shards: {fault}{more} of {where}, whose {INDEX_NAME} lists {len(index.shards)}, the first "
            f"{index.shards[0].name}; name shards that are there, each once, or the folder for all of them"
        )
    return tuple(entry for entry in index.shards if entry.name in set(names))


def _joined(folders: Sequence[_Folder]) -> FolderIndex:
    """Return one index of all folders' shards, in the order in which the folders are named."""
    first = folders[0]
    for other in folders[1:]:
        for what in ("resolution", "channels", "classes", "pairing"):
            ours, theirs = getattr(first.index, what), getattr(other.index, what)
            if ours != theirs:
                raise DataError(
                    f"data.shards: {other.location.folder} has other {what} ({_short(theirs)}) than "
                    f"{first.location.folder} ({_short(ours)}); name folders that fit each other"
                )
    entries = tuple(entry for folder in folders for entry in folder.entries)
    if entries == first.index.shards:
        return first.index
    joined = first.index.model_copy(update={"shards": entries})
    if not joined.num_samples:
        raise DataError("data.shards: none of the shards that it names holds a sample; name others")
    return joined


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _path(location: Location) -> Path:
    return Path(location.folder).expanduser()


def refuse_wrong_sizes(folder: Path, entries: Sequence[ShardEntry]) -> None:
    """Compare every shard's size on disk with the index, so that a cut shard stops a run before its first step.

    Raises:
        DataError: a shard is missing or has another size.
    """
    for entry in entries:
        try:
            found_bytes = (folder / entry.name).stat().st_size
        except OSError as error:
            raise DataError(
                f"shard {entry.name}, which index.json lists, is missing in {folder} ({error.strerror}); copy it "
                "from its source"
            ) from error
        if found_bytes != entry.bytes:
            raise DataError(
                f"shard {entry.name} in {folder} has {found_bytes} bytes where index.json says {entry.bytes} (cut "
                "short?); copy it again from its source"
            )
