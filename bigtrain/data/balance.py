"""How often each class occurs in an epoch: `none`, `class` or `temperature(T)`.

An epoch has as many positions as the part has samples, N. Of a class with n_k > 0 samples it holds exactly c_k:

`none`            c_k = n_k.
`class`           c_k = N / K over the K classes that have samples.
`temperature(T)`  c_k in proportion to n_k ** (1 / T): T = 1 is `none`, and the larger T, the closer to `class`
                  (Arivazhagan et al. 2019, arXiv:1907.05019).

Fractions are rounded by largest remainder (of equal ones, the smaller label first), so that the c_k sum to N. Samples
without a label keep their own number of positions, and the classes share what is left. Shares are reckoned with decimal
numbers in software, so that every machine rounds alike.
Axes: K labels.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from bigtrain.data.index import NO_LABEL
from bigtrain.data.shuffle import Integers
from bigtrain.recipe.errors import DataError

DIGITS = 50  # of decimal sums
TIED = 30  # decimals to which remainders are equal: well above the rounding of the sums, far below any difference
_TEMPERATURE = re.compile(r"^temperature\((.*)\)$")


@dataclass(frozen=True)
class Balance:
    """A law and its temperature; `str()` gives the text that `parse` reads."""

    law: Literal["none", "class", "temperature"] = "none"
    temperature: float = 1.0
    """Of `temperature`: above 0 and finite."""

    @classmethod
    def parse(cls, text: str) -> "Balance":
        """Read "none", "class" or "temperature(2)".

        Raises:
            ValueError: it is none of them, or the temperature is no finite number above 0.
        """
        for law in ("none", "class"):
            if text == law:
                return cls(law)
        match = _TEMPERATURE.match(text)
        if match is None:
            raise ValueError(f"'{text}' is no balance of classes; write none, class, or for example temperature(2)")
        try:
            temperature = float(match[1])
        except ValueError as error:
            raise ValueError(f"'{match[1]}' in '{text}' is no number; write for example temperature(2)") from error
        if not 0 < temperature < math.inf:
            raise ValueError(f"the temperature in '{text}' is not above 0 and finite; write for example temperature(2)")
        return cls("temperature", temperature)

    def __str__(self) -> str:
        short = f"{self.temperature:g}"
        number = short if float(short) == self.temperature else repr(self.temperature)
        return f"temperature({number})" if self.law == "temperature" else self.law

    def places(self, label_K: Integers, size_K: Integers) -> Integers:
        """Return how many positions of an epoch each label takes, int64 [K].

        Args:
            label_K: labels that occur, each once; -1: samples without one.
            size_K: samples of each, above 0.

        Raises:
            DataError: the temperature is so low that a class would never be seen.
        """
        places_K = size_K.copy()
        chosen_K = label_K != NO_LABEL
        if self.law != "none" and chosen_K.any():
            places_K[chosen_K] = self._shared(size_K[chosen_K].tolist())
        if (places_K == 0).any():
            rare = int(np.argmin(places_K))
            raise DataError(
                f"data.balance: {self} leaves class {label_K[rare]}, which has {size_K[rare]} of {size_K.sum()} "
                "samples, without a place in any epoch; raise the temperature"
            )
        return places_K

    def _shared(self, sizes: Sequence[int]) -> list[int]:
        with localcontext(Context(prec=DIGITS)):
            weights = [self._weight(size, max(sizes)) for size in sizes]
            total, sum_of_weights = sum(sizes), sum(weights)
            shares = [total * weight / sum_of_weights for weight in weights]
            places = [int(share) for share in shares]
            by_remainder = sorted(range(len(shares)), key=lambda at: round(places[at] - shares[at], TIED))
        for at in by_remainder[: total - sum(places)]:
            places[at] += 1
        return places

    def _weight(self, size: int, largest: int) -> Decimal:
        """Return what a class's share is in proportion to, over that of the largest class (which keeps it finite)."""
        if self.law == "class":
            return Decimal(1)
        return ((Decimal(size).ln() - Decimal(largest).ln()) / Decimal(self.temperature)).exp()


NO_BALANCE = Balance()


def _from_recipe(value: object) -> object:
    return Balance.parse(value) if isinstance(value, str) else value


BalanceText = Annotated[
    Balance,
    BeforeValidator(_from_recipe),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^(none|class|temperature\(.*\))$"}),
]
"""A balance of classes as a recipe writes it."""
