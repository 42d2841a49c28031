"""Modelled lower bound of the bytes a denoiser moves, from its config alone: the cross-check of
bench.count.traffic, and what `analytic` shows without torch.  Every product and attention reads its
operands and writes its result once."""

from math import prod

from bench.count.closed.dit import TIME_FREQUENCIES
from models.spec import DiTConfig


def linear_elements(rows: int, n_in: int, n_out: int) -> int:
    """Input, weight, bias and output."""
    return rows * n_in + n_in * n_out + n_out + rows * n_out


def dit_bytes(
    config: DiTConfig, latent_shape: tuple[int, int, int], batch: int, element: int
) -> int:
    """Of one forward with pooled text or none and adaLN in each block.  Raises ValueError for
    another kind."""
    if (
        config.text not in ("none", "pooled")
        or config.modulation != "per_block"
        or config.control_blocks
    ):
        raise ValueError(
            f"text {config.text}, modulation {config.modulation}, control_blocks"
            f" {config.control_blocks}: bytes are in closed form for text none or pooled,"
            " modulation per_block and no control_blocks"
        )
    d, rows, patch = config.width, batch * prod(config.grid(latent_shape)), prod(config.patch_size)
    total = linear_elements(rows, config.input_channels * patch, d) + linear_elements(
        rows, d, config.out_channels * patch
    )
    total += (
        linear_elements(batch, TIME_FREQUENCIES, d)
        + linear_elements(batch, d, d)
        + linear_elements(batch, d, 2 * d)
    )
    if config.text == "pooled":
        total += linear_elements(batch, config.text_width, d) + linear_elements(batch, d, d)
    block = (
        linear_elements(rows, d, 3 * d)
        + linear_elements(rows, d, d)
        + linear_elements(batch, d, 6 * d)
    )
    block += linear_elements(rows, d, config.mlp_width) + linear_elements(rows, config.mlp_width, d)
    block += 4 * rows * d  # attention: Q, K, V in, one out
    return element * (total + config.depth * block)
