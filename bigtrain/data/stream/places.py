"""The shards that `data.shards` names where they are read from end to end: folders of tars, tars, URLs of tars."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bigtrain.data.location import SHARD_SUFFIX, Location, locations
from bigtrain.data.staging.sources import FolderSource, Source, UrlSource, load_libraries
from bigtrain.recipe.errors import DataError

SUFFIXES = (SHARD_SUFFIX, ".tar.gz", ".tgz")


@dataclass(frozen=True)
class StreamShard:
    """One shard by its name, and where it is read from."""

    name: str
    source: Source


def find_shards(place: str) -> tuple[StreamShard, ...]:
    """Return the shards that a recipe names, in its order; of a folder by name.

    Raises:
        DataError: one is not there or named twice, a folder holds none or is a URL, which cannot be listed, or the
            package that a URL needs is not installed.
    """
    try:
        found = locations(place)
    except ValueError as error:
        raise DataError(f"data.shards: {error}") from error
    for scheme in {location.scheme for location in found if location.scheme is not None}:
        load_libraries(scheme)
    shards = [shard for location in found for shard in _shards(location)]
    places = [f"{shard.source.where}/{shard.name}" for shard in shards]
    if len(set(places)) < len(places):
        twice = next(each for each in places if places.count(each) > 1)
        raise DataError(f"data.shards: {twice} is named twice, so it would be drawn twice as often; name it once")
    return tuple(shards)


def _shards(location: Location) -> Iterator[StreamShard]:
    folder, name = location.folder, location.shard
    if name is None and folder.endswith(SUFFIXES):  # compressed ones are no shards to `locations`
        folder, slash, name = folder.rpartition("/")
        folder = folder or slash or "."
    if location.scheme is not None:
        if name is None:
            raise DataError(
                f"data.shards: {folder} is no shard, and nothing lists the files of a URL; name them, such as "
                f"{folder}/{{000000..000099}}.tar"
            )
        yield StreamShard(name, UrlSource(folder, location.scheme))
        return
    path = Path(folder).expanduser()
    names = [name] if name is not None else _listed(path)
    for each in names:
        if not (path / each).is_file():
            raise DataError(f"data.shards: shard {each} is missing in {path}; restore it, or name other shards")
        yield StreamShard(each, FolderSource(path))


def _listed(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DataError(f"data.shards: {folder} is no folder; name the one that holds the shards")
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(SUFFIXES) and each.name[0] != ".")
    if not names:
        raise DataError(f"data.shards: {folder} holds no shard ({', '.join(SUFFIXES)}); name the folder of the shards")
    return names
