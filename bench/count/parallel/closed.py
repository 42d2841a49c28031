"""The closed form of what one rank of an own DiT sends in one denoising step.  No torch.

Shapes as in models.parallel: B batch, N video and L text tokens, D width, P = ring x ulysses ranks
of a sequence.  Where P does not divide N, every rank sends as if it held ceil(N / P).
"""

from collections.abc import Iterator
from math import ceil, prod

from bench.count.parallel.sent import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    POINT_TO_POINT,
    Message,
    Sent,
    sent_bytes,
    summed,
)
from models.dit.spec import DiTConfig
from models.parallel.spec import Parallel

Latents = tuple[int, int, int]


def step_messages(
    config: DiTConfig,
    latent_shape: Latents,
    parallel: Parallel,
    *,
    batch: int,
    element: int,
    guided: bool,
) -> list[Sent]:
    """Of one denoising step of `batch` samples a rank.  element: bytes of one number.  Sharded
    weights are left out: `weight_messages`."""
    split = guided and parallel.cfg == 2
    forwards = 2 if guided and not split else 1
    messages = list(_forward(config, latent_shape, parallel, batch, element)) * forwards
    if split:
        answer = batch * config.in_channels * prod(latent_shape) * element
        messages.append(_message("cfg", ALL_GATHER, 2, answer))
    return summed(messages)


def _forward(
    config: DiTConfig, latent_shape: Latents, parallel: Parallel, batch: int, element: int
) -> Iterator[Message]:
    tokens = prod(config.grid(latent_shape))
    chunk = ceil(tokens / parallel.sequence)
    text = ceil(config.text_tokens / parallel.sequence) if config.text == "joint" else 0
    rows = batch * (chunk + text)
    for _ in range(config.depth + config.control_blocks):
        yield from _attention(config, parallel, rows * element)
    yield from _tensor(config, parallel, batch, chunk, text, element)
    patch = config.out_channels * prod(config.patch_size)
    if parallel.ulysses > 1:
        yield _message("ulysses", ALL_GATHER, parallel.ulysses, batch * chunk * patch * element)
    if parallel.ring > 1:
        held = batch * chunk * parallel.ulysses * patch * element
        yield _message("ring", ALL_GATHER, parallel.ring, held)


def _attention(config: DiTConfig, parallel: Parallel, bytes_a_column: int) -> Iterator[Message]:
    """Around one block's self-attention.  bytes_a_column: of the rank's tokens, one number each."""
    heads_width = config.width // parallel.tensor
    if parallel.ulysses > 1:
        for tensors in (3, 1):  # queries, keys, values in one call; the answer
            held = tensors * bytes_a_column * heads_width
            yield _message("ulysses", ALL_TO_ALL, parallel.ulysses, held)
    for _ in range(parallel.ring - 1):
        # few heads of all the Ulysses group's tokens: as many numbers
        keys_and_values = 2 * bytes_a_column * heads_width
        yield _message("ring", POINT_TO_POINT, parallel.ring, keys_and_values)


def _tensor(
    config: DiTConfig, parallel: Parallel, batch: int, chunk: int, text: int, element: int
) -> Iterator[Message]:
    """All-reduces of partial sums: after attention, cross-attention and MLP."""
    if parallel.tensor == 1:
        return

    def reduced(tokens: int) -> Message:
        held = batch * tokens * config.width * element
        return _message("tensor", ALL_REDUCE, parallel.tensor, held)

    for count in (config.depth, config.control_blocks):
        dual = config.depth - config.single_blocks
        for index in range(count):
            if config.text != "joint":
                yield from [reduced(chunk)] * (3 if config.text == "cross" else 2)
            elif index >= dual:
                yield reduced(chunk + text)
            else:
                yield from [reduced(chunk)] * 2
                last = index == count - 1  # its text goes no further
                yield from [] if last else [reduced(text)] * 2


def weight_messages(blocks: list[list[tuple[int, ...]]], ranks: int, element: int) -> list[Sent]:
    """Of sharded weights: in one forward, an all-gather of each block.  blocks: shapes of each
    block's parameters, which are cut along their first dimension and padded
    (torch.distributed.fsdp.fully_shard).  What lies outside of blocks is gathered once and kept."""
    shares = [sum(ceil(s[0] / ranks) * prod(s[1:]) for s in shapes) for shapes in blocks]
    return summed(_message("weights", ALL_GATHER, ranks, share * element) for share in shares)


def _message(axis: str, collective: str, ranks: int, tensor_bytes: int) -> Message:
    return Message(axis, collective, ranks, sent_bytes(collective, ranks, tensor_bytes))
