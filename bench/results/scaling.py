"""What is counted and predicted of a step on several ranks, as a record keeps it."""

from typing import Annotated, Literal

from pydantic import Field

from bench.core.quantity import Quantity
from bench.results.base import Positive, Strict

Count = Annotated[int, Field(ge=0)]


class Message(Strict):
    """Calls of one collective and size along one axis of a mesh.  Provenance: counted."""

    axis: str
    collective: str
    ranks: Annotated[int, Field(ge=2)]
    """That take part."""
    bytes_sent: Count
    """By one rank in one call."""
    calls: Count


class StepOnRanks(Strict):
    """A denoising step on a mesh, predicted before it was measured, from what one rank and the
    links did.  Provenance: fitted."""

    step_s: Quantity
    """Its 90 % interval is that of the fit's parameters alone: what no part of the model names, the
    held-out error says."""
    compute_s: Positive
    """A rank's own operators, while the other ranks are at work."""
    communication_s: Annotated[float, Field(ge=0.0)]
    one_rank_s: Positive
    """The same step on one rank."""
    one_rank: Literal["measured", "fitted"]
    efficiency: Positive
    """one_rank_s over the ranks of a sample times step_s."""
    flops_per_rank: Count
    messages: list[Message]
    stages_fitted: Annotated[int, Field(ge=1)]
    """Measured stages of one rank that the fit rests on."""
