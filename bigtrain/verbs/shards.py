"""Write, index and check the tar shards that training reads, from folders, zips, tables, other shards.

Each row of `_SHARDS` is one word after `bigtrain shards`; the words are in `verbs/shard_words/`.
"""

import argparse

from bigtrain.verbs.shard_words.check import CHECK
from bigtrain.verbs.shard_words.index import INDEX
from bigtrain.verbs.shard_words.made import DIGITS, PHOTOS
from bigtrain.verbs.shard_words.packing import FOLDER, MERGE, RESIZE, TABLE, TORCHVISION, ZIP

_SHARDS = {
    "digits": DIGITS,
    "photos": PHOTOS,
    "folder": FOLDER,
    "zip": ZIP,
    "resize": RESIZE,
    "torchvision": TORCHVISION,
    "table": TABLE,
    "merge": MERGE,
    "index": INDEX,
    "check": CHECK,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words and their arguments."""
    words = parser.add_subparsers(dest="word", required=True, metavar="WORD")
    for name, word in _SHARDS.items():
        word.add_arguments(words.add_parser(name, help=word.help, description=word.help))


def run(arguments: argparse.Namespace) -> int:
    """Do what the word says; return the exit status."""
    return _SHARDS[arguments.word].run(arguments)
