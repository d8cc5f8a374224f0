"""What `data.shards` names: folders, shards in folders, and URLs of them, told apart and checked before any is opened.

A place is a folder with `index.json`, or one `.tar` of such a folder. Braces stand for several: `{a,b}` and
`train-{000000..000099}.tar`. Nothing here is a command, and no URL may carry a secret: recipes, logs and error texts
hold it for everybody to read.
"""

import math
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from bigtrain.recipe.registry import nearest

SCHEMES = ("http", "https", "s3", "gs")
MAX_PLACES = 1_000_000  # that one text may stand for
SHARD_SUFFIX = ".tar"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")
_SECRETS = re.compile(r"(?<=://)[^/\s'\"]*@|\?[^\s'\",)]*")


@dataclass(frozen=True)
class Location:
    """One place: a folder (a local path or a URL without a slash at its end), and one of its shards or all of them."""

    folder: str
    shard: str | None = None
    scheme: str | None = None
    """None: a local path."""


def locations(text: str) -> tuple[Location, ...]:
    """Return the places that a text stands for, in the order in which it names them.

    Raises:
        ValueError: it names a command, a scheme that is not known, a URL with a secret in it, or is no pattern.
    """
    return tuple(_location(part) for part in _expanded(text))


def without_secrets(text: str) -> str:
    """Return a message without what URLs in it may give away: user names, passwords, signatures in queries."""
    return _SECRETS.sub("", text)


def _expanded(text: str) -> list[str]:
    choices = [_choices(inside) for inside in _BRACES.findall(text)]
    rest = _BRACES.split(text)[::2]
    if any("{" in part or "}" in part for part in rest):
        raise ValueError("its braces do not match or stand inside one another; write each pair by itself")
    count = math.prod(map(len, choices))
    if count > MAX_PLACES:
        raise ValueError(f"its braces stand for {count} places, over {MAX_PLACES}; name folders instead of shards")
    found = [rest[0]]
    for choice, tail in zip(choices, rest[1:], strict=True):
        found = [head + middle + tail for head in found for middle in choice]
    return found


def _choices(inside: str) -> list[str]:
    span = _RANGE.fullmatch(inside)
    if span is None:
        return inside.split(",")
    first, last = int(span[1]), int(span[2])
    if not 0 <= last - first < MAX_PLACES:
        raise ValueError(f"{{{inside[:40]}}} runs backwards or over {MAX_PLACES} numbers; write the first one first")
    padded = any(end != "0" and end.startswith("0") for end in span.groups())
    width = max(map(len, span.groups())) if padded else 0
    return [f"{number:0{width}d}" for number in range(first, last + 1)]


def _location(text: str) -> Location:
    if "::" in text:
        raise ValueError("'::' chains URLs, which are never followed; name the place itself")
    named = _SCHEME.match(text)
    if named is None:
        return _cut(text, None)
    scheme = named[1].lower()
    if scheme not in SCHEMES:
        raise ValueError(_unknown(scheme))
    _check_url(text)
    return _cut(scheme + text[len(scheme) :].rstrip("/"), scheme)


def _unknown(scheme: str) -> str:
    known = ", ".join(f"{name}://" for name in SCHEMES)
    if scheme == "file":
        return "file: is no place that shards are read from; write the path itself"
    close = nearest(scheme, list(SCHEMES))
    hint = f"did you mean {close}://?" if close else "write a folder (./ before one with a colon);"
    return f"{scheme}: is no place that shards are read from, and commands are never run; {hint} known: {known}"


def _check_url(text: str) -> None:
    """Refuse what a URL of a folder does not need; no sentence repeats it, since it may be a secret."""
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("a URL in it holds a space or a character that is not plain ASCII; percent-encode it")
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise ValueError(
            "a URL in it holds a user name or password, which everybody could read in the run's recipe; leave them "
            "out (http reads ~/.netrc; s3 and gs read their usual variables and files)"
        )
    if "?" in text or "#" in text:
        raise ValueError("a URL in it has a query or fragment, which may be a secret; name the folder by its path")
    if not parts.netloc or not text.partition(":")[2].startswith("//"):
        raise ValueError(
            "a URL in it names no host or bucket; write it as in https://HOST/FOLDER or s3://BUCKET/FOLDER"
        )
    if ".." in parts.path.split("/"):
        raise ValueError("a URL in it climbs with '..'; write the path that it means")


def _cut(text: str, scheme: str | None) -> Location:
    if not text.endswith(SHARD_SUFFIX):
        return Location(text, None, scheme)
    folder, slash, shard = text.rpartition("/")
    return Location(folder or slash or ".", shard, scheme)
