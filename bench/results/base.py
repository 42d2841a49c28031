"""Types that every part of a record shares."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=1e-12, lt=1e9)]
"""Of something that was timed: rates and logarithms are taken of it."""
Positive = Annotated[float, Field(gt=1e-100, lt=1e100)]
"""Products and quotients of a few are still numbers."""
Work = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())
