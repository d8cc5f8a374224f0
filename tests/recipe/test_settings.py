"""The base of every settings class."""

import pytest
from pydantic import ValidationError

from bigtrain.recipe.settings import Count, Duration, PositiveCount, Settings, Share


class ToySettings(Settings):
    count: Count = 0
    """How many."""
    positive: PositiveCount = 1
    duration: Duration = 0.0
    share: Share = 0.0
    rate: float = 1.0


def test_suffixes_become_numbers():
    toy = ToySettings(count="64k", positive="1M", duration="10min", share="5%", rate="1e-4")
    assert toy == ToySettings(count=64_000, positive=1_000_000, duration=600, share=0.05, rate=1e-4)


@pytest.mark.parametrize(
    "values",
    [{"counts": 1}, {"count": -1}, {"count": 1.5}, {"positive": 0}, {"duration": -1}, {"share": 1.1}, {"share": "101%"},
     {"rate": float("nan")}, {"rate": float("inf")}, {"count": "many"}],
)  # fmt: skip
def test_what_breaks_a_rule_is_refused(values):
    with pytest.raises(ValidationError):
        ToySettings(**values)


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError):
        ToySettings().count = 3


def test_a_field_knows_what_it_is_for():
    assert ToySettings.model_fields["count"].description == "How many."


def test_editors_accept_suffixes():
    fields = ToySettings.model_json_schema(mode="validation")["properties"]
    for name in ("count", "positive", "duration", "share"):
        assert {"string", "integer", "number"} & {part.get("type") for part in fields[name]["anyOf"]} >= {"string"}
