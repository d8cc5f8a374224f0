"""The base of every settings class, and the field types that carry a unit.

A component declares its settings beside itself, as a frozen model that refuses unknown keys.
"""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bigtrain.recipe.units import parse_count, parse_duration_s, parse_share


class Settings(BaseModel):
    """A frozen pydantic model that refuses unknown keys and numbers that are not finite; fields document their unit."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


Count = Annotated[int, BeforeValidator(parse_count, json_schema_input_type=int | str), Field(ge=0)]
"""A number of things; YAML may carry a decimal suffix (64k = 64,000)."""

PositiveCount = Annotated[int, BeforeValidator(parse_count, json_schema_input_type=int | str), Field(ge=1)]
"""A number of things, at least one."""

LARGEST_BATCH_IMAGES = 65_536  # whose memory some GPU may have, for small images; more is a slip of the keyboard

BatchCount = Annotated[
    int, BeforeValidator(parse_count, json_schema_input_type=int | str), Field(ge=1, le=LARGEST_BATCH_IMAGES)
]
"""A number of images of one forward pass, at least one."""

Duration = Annotated[float, BeforeValidator(parse_duration_s, json_schema_input_type=float | str), Field(ge=0)]
"""Seconds; YAML may carry a unit (10min)."""

Share = Annotated[float, BeforeValidator(parse_share, json_schema_input_type=float | str), Field(ge=0, le=1)]
"""A part of one; YAML may carry a percentage (5%)."""
