"""What every piece of configuration shares: bounds of numbers, the frozen base class,
fingerprints.  No torch."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_SECONDS = 30 * 86_400.0
MAX_PIXELS = 10**15  # of a batch of clips: ten hours of 8K at 24 fps are 3e13


def whole(high: int) -> Any:
    """A positive integer and nothing that could be turned into one (true, "8"), up to what is still
    sensible."""
    return Annotated[int, Field(strict=True, ge=1, le=high)]


def positive(high: float, low: float = 0.0) -> Any:
    """A finite positive number."""
    return Annotated[float, Field(strict=True, gt=0.0, ge=low, le=high)]


class Spec(BaseModel):
    """A frozen piece of configuration; `name` is the file's name, set by the loader."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    name: str
    description: str


def as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)]


def fingerprint(data: object) -> str:
    """Sixteen hex digits of the SHA-256 of canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
