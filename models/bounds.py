"""Bounds of a config's numbers, written beside each field: `depth: Annotated[int, Within(1,
1_000)]`.

Far over anything built, and small enough that counting ends.  `check_bounds` holds them for whoever
builds a config in Python; pydantic, which builds those from YAML, finds in the same annotation that
true and "8" are no numbers.
"""

import dataclasses
import difflib
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints


@dataclasses.dataclass(frozen=True)
class Exact:
    """The type as annotated, nothing that could be turned into it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        return {**handler(source), "strict": True}  # called by pydantic, if there is one


@dataclasses.dataclass(frozen=True)
class Within(Exact):
    """low <= value <= high; for a tuple each entry."""

    low: float
    high: float


Size = Annotated[int, Within(1, 1_000_000)]
"""Channels, widths, tokens."""
SizeOrNone = Annotated[int, Within(0, 1_000_000)]
"""The same where 0 stands for none."""
Few = Annotated[int, Within(1, 10_000)]
"""Heads, factors, tiles."""
FewOrNone = Annotated[int, Within(0, 10_000)]
Depth = Annotated[int, Within(1, 1_000)]
"""Blocks: a thousand are counted in a minute."""
DepthOrNone = Annotated[int, Within(0, 1_000)]
Flag = Annotated[bool, Exact()]
Triple = tuple[Few, Few, Few]
"""Along (time, height, width)."""


def check_bounds(config: Any) -> None:
    """Raises ValueError naming the field, its value and its bounds."""
    for name, bound in _bounds(type(config)):
        value = getattr(config, name)
        for entry in value if isinstance(value, tuple) else (value,):
            if entry is not None and not bound.low <= entry <= bound.high:  # NaN is in no range
                shown, which = (
                    (list(value), "each entry") if isinstance(value, tuple) else (value, "it")
                )
                raise ValueError(
                    f"{name} is {shown}: {which} must be at least {bound.low:,} and at most"
                    f" {bound.high:,}"
                )


def check_arguments(name: str, value: Any) -> None:
    """The same for the free arguments of a public class: no number that could not be a size, no
    depth that never ends. Raises ValueError."""
    if isinstance(value, dict):
        for key, inner in value.items():
            check_arguments(f"{name}.{key}", inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            check_arguments(name, inner)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        most = 1_000 if any(word in name for word in ("layers", "blocks", "depth")) else 10_000_000
        if not abs(value) <= most:
            raise ValueError(f"{name} is {value}: it must be at most {most:,}")


@cache
def _bounds(cls: type) -> list[tuple[str, Within]]:
    hints = get_type_hints(cls, include_extras=True)
    return [
        (f.name, bound)
        for f in dataclasses.fields(cls)
        for bound in list(_within(hints[f.name]))[:1]
    ]


def _within(hint: Any) -> Iterator[Within]:
    if get_origin(hint) is Annotated:
        yield from (m for m in hint.__metadata__ if isinstance(m, Within))
    else:
        for part in get_args(hint):
            yield from _within(part)


def require_one_of(owner: object, **accepted: tuple[str, ...]) -> None:
    """Raises ValueError naming the field, its value, and the words that it takes."""
    for name, words in accepted.items():
        value = getattr(owner, name)
        if value not in words:
            close = difflib.get_close_matches(str(value), words, n=1)
            raise ValueError(
                f"{name} {value!r}: accepted are {', '.join(words)}"
                + (f"; did you mean {close[0]}?" if close else "")
            )


def nearest_multiples(value: int, base: int) -> str:
    """In words, for a message."""
    low = value // base * base
    return f"{low} or {low + base}" if low > 0 else f"{base}"


def divide_into_patches(
    latent_shape: tuple[int, int, int], patch: tuple[int, int, int]
) -> tuple[int, int, int]:
    """(T, H, W) latents -> patches along each axis.  Raises ValueError where they do not divide."""
    for axis, size, step in zip(("frames", "rows", "columns"), latent_shape, patch, strict=True):
        if size % step:
            raise ValueError(
                f"{size} latent {axis} do not divide into patches of {step}; "
                f"nearest: {nearest_multiples(size, step)}"
            )
    t, h, w = (size // step for size, step in zip(latent_shape, patch, strict=True))
    return t, h, w
