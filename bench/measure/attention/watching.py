"""Every attention call of a model that runs, seen from outside: own models', and those of libraries
that call SDPA by its name."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from models import kernels
from models.dit import attention, windowed

See = Callable[..., Tensor]
"""(attend, q, k, v, and the call's other arguments) -> what attend gives for them."""
Place = tuple[Any, str]
"""A module, and a name in it that models call."""
SDPA: Place = (F, "scaled_dot_product_attention")
OWN: Place = (kernels, "attention")
FLEX: Place = (windowed, "flex_windows")
WINDOWS: Place = (attention, "window_attention")


class Enough(Exception):
    """Ends a call from within."""


@contextlib.contextmanager
def watching(see: See, windows: Place = FLEX) -> Iterator[None]:
    """Every attention call within goes through `see`.  windows: where windowed attention is seen:
    FLEX, whose tiles are seen one by one where it is not taken, or WINDOWS, over all tokens.

    Names are replaced rather than a torch function mode pushed: FlexAttention is compiled by itself
    inside a call, and a mode on the stack would be compiled into it."""
    inside = False

    def through(attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def seen(query: Tensor, key: Tensor, value: Tensor, *args: Any, **given: Any) -> Tensor:
            nonlocal inside
            if inside:  # own attention calls SDPA in its turn
                return attend(query, key, value, *args, **given)
            inside = True
            try:
                return see(attend, query, key, value, *args, **given)
            finally:
                inside = False

        return seen

    @contextlib.contextmanager
    def replaced_by(by: Callable[..., Any], other: Callable[..., Any]) -> Iterator[None]:
        with by(other), _put(SDPA, through):
            yield

    with contextlib.ExitStack() as stack:
        for place in (SDPA, OWN, windows):
            stack.enter_context(_put(place, through))
        # It puts a recipe's own attention in SDPA's place, within the call.
        by_recipe = (kernels, "attention_by")
        stack.enter_context(_put(by_recipe, lambda by: functools.partial(replaced_by, by)))
        yield


@contextlib.contextmanager
def _put(place: Place, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """What a name stands for, wrapped for a while."""
    before = getattr(*place)
    setattr(*place, wrap(before))
    try:
        yield
    finally:
        setattr(*place, before)


@dataclass
class Sightings:
    """How often each shape of attention call came."""

    counts: dict[tuple, int] = field(default_factory=dict)
    work: dict[tuple, int] = field(default_factory=dict)

    def add(self, q: Tensor, k: Tensor) -> tuple:
        """Count a call by its shape -> that shape."""
        shape = (tuple(q.shape), tuple(k.shape), q.dtype)
        self.counts[shape] = self.counts.get(shape, 0) + 1
        self.work[shape] = q.numel() * k.shape[-2]
        return shape

    @property
    def largest(self) -> tuple:
        """The shape with the most products."""
        return max(self.work, key=self.work.__getitem__)
