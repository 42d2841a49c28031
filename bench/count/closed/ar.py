"""FLOPs, parameters and bytes of an auto-regressive model from its config alone; no torch.  1 MAC =
2 FLOPs.

The attention of a prefill is counted as the full square, as both tracing counters do: what a kernel
skips above the diagonal is not taken off.
"""

from bench.count.closed.bytes import linear_elements
from bench.count.closed.dit import attention_flops, linear_flops
from models.ar.spec import AutoregressiveConfig, Decoding


def stages(
    config: AutoregressiveConfig, latent_shape: tuple[int, int, int], batch: int, rows: int
) -> dict[str, dict[str, int]]:
    """FLOPs by class of one call of each stage.  rows: samples in a call, with guidance twice the
    batch."""
    plan = config.plan(latent_shape)
    return {
        "forward": decode_flops(config, batch, plan.cache_length),
        "prefill": prefill_flops(config, rows, plan),
        "decode_token": decode_flops(config, rows, plan.cache_length),
    }


def prefill_flops(config: AutoregressiveConfig, rows: int, plan: Decoding) -> dict[str, int]:
    """Prompt and given tokens at once; the head runs on the last alone."""
    n = plan.prefill_tokens
    linear = _blocks_linear(config, rows * n) + linear_flops(
        rows * plan.prompt, config.text_width, config.width
    )
    return {
        "linear": linear + linear_flops(rows, config.width, config.vocabulary),
        "attention": config.depth * attention_flops(rows, config.num_heads, n, n, config.head_dim),
        "conv": 0,
        "other": 0,
    }


def decode_flops(config: AutoregressiveConfig, rows: int, length: int) -> dict[str, int]:
    """One token a row over a cache of `length` entries, its own among them."""
    return {
        "linear": _blocks_linear(config, rows)
        + linear_flops(rows, config.width, config.vocabulary),
        "attention": config.depth
        * attention_flops(rows, config.num_heads, 1, length, config.head_dim),
        "conv": 0,
        "other": 0,
    }


def video_flops(config: AutoregressiveConfig, latent_shape: tuple[int, int, int], rows: int) -> int:
    """All prefills and decode calls of a clip.  Every prefill is taken as long as those that go on
    from a window."""
    plan = config.plan(latent_shape)
    decoded = plan.decode_calls * sum(decode_flops(config, rows, 0).values())
    read = config.depth * attention_flops(rows, config.num_heads, 1, plan.attended, config.head_dim)
    return plan.prefill_calls * sum(prefill_flops(config, rows, plan).values()) + decoded + read


def _blocks_linear(config: AutoregressiveConfig, rows: int) -> int:
    d, inner = config.width, config.num_heads * config.head_dim
    one = linear_flops(rows, d, inner + 2 * config.kv_heads * config.head_dim) + linear_flops(
        rows, inner, d
    )
    return config.depth * (one + linear_flops(rows, d, _ffn_matrices(config) * config.ffn_width))


def _ffn_matrices(config: AutoregressiveConfig) -> int:
    return 3 if config.gated else 2


def autoregressive_parameters(config: AutoregressiveConfig) -> int:
    """Parameters of AutoregressiveTransformer."""
    d = config.width
    return (
        2 * config.vocabulary * d
        + config.text_width * d
        + config.depth * _block_parameters(config)
        + d
    )


def _block_parameters(config: AutoregressiveConfig) -> int:
    d, inner = config.width, config.num_heads * config.head_dim
    biases = 0 if config.gated else config.ffn_width + d  # models.layers.MLP has them
    return (
        d * (inner + 2 * config.kv_heads * config.head_dim)
        + inner * d
        + 2 * d
        + _ffn_matrices(config) * d * config.ffn_width
        + biases
    )


def cache_elements(config: AutoregressiveConfig, rows: int, length: int) -> int:
    """Keys and values."""
    return 2 * config.depth * rows * config.kv_heads * config.head_dim * length


def decode_bytes(config: AutoregressiveConfig, rows: int, length: int, element: int) -> int:
    """Modelled lower bound of one decode call: every matrix and the cache read once.  Of the
    embedding table, one row."""
    attended = (
        cache_elements(config, rows, length)
        + config.depth * 2 * rows * config.num_heads * config.head_dim
    )
    return element * (
        _products_elements(config, rows)
        + _linear_elements(rows, config.width, config.vocabulary)
        + attended
    )


def prefill_bytes(config: AutoregressiveConfig, rows: int, plan: Decoding, element: int) -> int:
    """Modelled lower bound of a prefill: a matrix serves all tokens; attention reads Q, K, V and
    writes once."""
    n = rows * plan.prefill_tokens
    total = _products_elements(config, n) + _linear_elements(
        rows * plan.prompt, config.text_width, config.width
    )
    total += _linear_elements(rows, config.width, config.vocabulary)
    return element * (total + config.depth * 4 * n * config.num_heads * config.head_dim)


def video_bytes(
    config: AutoregressiveConfig, latent_shape: tuple[int, int, int], rows: int, element: int
) -> int:
    """Of a clip, modelled lower bound."""
    plan = config.plan(latent_shape)
    return (
        plan.prefill_calls * prefill_bytes(config, rows, plan, element)
        + plan.decode_calls * decode_bytes(config, rows, 0, element)
        + element * cache_elements(config, rows, plan.attended)
    )


def _products_elements(config: AutoregressiveConfig, rows: int) -> int:
    d, inner, ffn = config.width, config.num_heads * config.head_dim, config.ffn_width
    block = _linear_elements(
        rows, d, inner + 2 * config.kv_heads * config.head_dim
    ) + _linear_elements(rows, inner, d)
    if config.gated:
        block += _linear_elements(rows, d, 2 * ffn) + _linear_elements(rows, ffn, d)
    else:
        block += linear_elements(rows, d, ffn) + linear_elements(rows, ffn, d)
    return config.depth * block


def _linear_elements(rows: int, n_in: int, n_out: int) -> int:
    return linear_elements(rows, n_in, n_out) - n_out  # no bias
