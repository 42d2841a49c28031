"""What one rank sends, by collective and axis.  No torch.

Bytes are those that leave a rank: of an all-to-all all rows but its own; of an all-gather its part
once to each other rank (a ring hands it on as often); of a reduce-scatter all parts but its own; an
all-reduce is both (Thakur et al., 2005, "Optimization of Collective Communication Operations in
MPICH").
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

ALL_TO_ALL, ALL_GATHER, ALL_REDUCE = "all-to-all", "all-gather", "all-reduce"
REDUCE_SCATTER, POINT_TO_POINT = "reduce-scatter", "point-to-point"


@dataclass(frozen=True, order=True)
class Message:
    """One collective call as one rank sees it."""

    axis: str
    collective: str
    ranks: int
    """That take part."""
    bytes_sent: int
    """By this rank, in this call."""


def sent_bytes(collective: str, ranks: int, tensor_bytes: int) -> int:
    """Of one call.  tensor_bytes: what this rank puts in, its own row of an all-to-all included."""
    others = ranks - 1
    match collective:
        case "all-to-all" | "reduce-scatter":
            return tensor_bytes * others // ranks
        case "all-gather":
            return tensor_bytes * others
        case "all-reduce":
            return 2 * tensor_bytes * others // ranks
        case "point-to-point":
            return tensor_bytes
    raise ValueError(f"collective {collective!r}")


@dataclass(frozen=True)
class Sent:
    """Calls of one kind and size along one axis."""

    message: Message
    calls: int

    @property
    def bytes_sent(self) -> int:
        return self.calls * self.message.bytes_sent


def summed(messages: Iterable[Message]) -> list[Sent]:
    """Equal calls together, sorted."""
    return [Sent(message, calls) for message, calls in sorted(Counter(messages).items())]
