"""A table from a name to a component; the table itself writes the error for an unknown name."""

import difflib
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar, Union

from pydantic import Field

from bigtrain.recipe.errors import RecipeError

Entry = TypeVar("Entry")


def nearest(name: str, known: list[str]) -> str | None:
    """Return the known name most like `name`, or None when none is alike."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return close[0] if close else None


class Registry:
    """Named components of one kind; settings classes registered here form the union that a recipe's `kind` picks
    from."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._entries: dict[str, Any] = {}

    def add(self, name: str) -> Callable[[Entry], Entry]:
        """Return a decorator that registers its target as `name`.

        Raises:
            AssertionError: the name is taken, or a settings class declares another `kind` than `name`.
        """

        def register(entry: Entry) -> Entry:
            assert name not in self._entries, f"{self.noun} '{name}' is registered twice"
            kind = getattr(entry, "model_fields", {}).get("kind")
            assert kind is None or kind.default == name, (
                f"{entry} is registered as '{name}' but has kind '{kind.default}'"
            )
            self._entries[name] = entry
            return entry

        return register

    def get(self, name: str) -> Any:
        """Return what is registered as `name`.

        Raises:
            RecipeError: nothing is; the sentence names the nearest known name and all others.
        """
        if name not in self._entries:
            close = nearest(name, self.names())
            hint = f"did you mean '{close}'?" if close else ""
            raise RecipeError(
                f"'{name}' is not a known {self.noun}; {hint} known: {', '.join(self.names())}".replace("  ", " ")
            )
        return self._entries[name]

    def names(self) -> list[str]:
        """Return all registered names, sorted."""
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def union(self) -> Any:
        """Return the type of a recipe field that holds the settings of any registered component, told apart by
        `kind`."""
        members = tuple(self._entries[name] for name in self.names())
        if len(members) == 1:
            return members[0]
        return Annotated[Union[members], Field(discriminator="kind")]  # noqa: UP007 (members are known only here)
