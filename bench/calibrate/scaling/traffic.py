"""What one rank sends in a denoising step, by axis, of any transformer.

An own DiT has an exact closed form (bench.count.parallel.closed).  Of public models this takes the
width and the number of their blocks, and leaves text tokens out.
"""

from dataclasses import dataclass

from models.parallel.spec import Parallel

RING_CALLS = 5
"""A hop sends keys and values, and three kernels join the two partial answers.  One published pair
says so: Wan 2.2 5B on two H800s, ring 14.7 s, Ulysses 14.5 s (vllm-omni #1221)."""
ELEMENT_BYTES = 2  # bf16, which all of these rows run in


@dataclass(frozen=True)
class Forward:
    """One forward of one sample, as far as a mesh needs it."""

    tokens: int
    width: int
    """Columns of a block's queries."""
    blocks: int
    params: float

    @property
    def columns(self) -> int:
        """Of all blocks together."""
        return self.width * self.blocks


@dataclass(frozen=True)
class Traffic:
    """Of one rank and one forward."""

    bytes_sent: float
    """Activations: nothing hides them."""
    weight_bytes: float
    """Of sharded weights, which the next block's gather hides in part."""
    calls: float


def traffic_of(forward: Forward, parallel: Parallel) -> Traffic:
    """Zero on one rank.  Engines send queries, keys, values and the answer one by one."""
    rows = forward.tokens / parallel.sequence
    tensor = rows * forward.columns / parallel.tensor * ELEMENT_BYTES
    sent, calls = 0.0, 0.0
    if parallel.ulysses > 1:
        sent += 4 * tensor * (parallel.ulysses - 1) / parallel.ulysses
        calls += 4 * forward.blocks
    if parallel.ring > 1:
        sent += 2 * tensor * (parallel.ring - 1)
        calls += RING_CALLS * (parallel.ring - 1) * forward.blocks
    if parallel.tensor > 1:
        reduced = rows * forward.columns * ELEMENT_BYTES
        sent += 2 * 2 * reduced * (parallel.tensor - 1) / parallel.tensor
        calls += 2 * forward.blocks
    weights = 0.0
    if parallel.shard_weights:
        others = (parallel.ranks - 1) / parallel.ranks
        weights = forward.params * ELEMENT_BYTES * others
        calls += forward.blocks
    return Traffic(sent, weights, calls)
