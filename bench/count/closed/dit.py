"""FLOPs from the config alone, the cross-check of the traced counts.  Needs no torch.  1 MAC = 2
FLOPs.

Each function returns FLOPs by class; norms and elementwise work are left out, as in fvcore's
products.
"""

from math import prod

from models.dit.windows import attended_pairs
from models.spec import DiTConfig, TextEncoderConfig, VAEConfig
from models.vae.tiling import Tiling, parts

TIME_FREQUENCIES = 256  # models.dit.model.TIME_FREQUENCIES, which needs torch to import


def attention_flops(batch: int, heads: int, n_q: int, n_kv: int, head_dim: int) -> int:
    """FLOPs of softmax(QK^T)V; softmax not counted."""
    return 4 * batch * heads * n_q * n_kv * head_dim  # QK^T and AV, 2 FLOPs a MAC each


def linear_flops(rows: int, n_in: int, n_out: int) -> int:
    return 2 * rows * n_in * n_out


def dit_forward(
    config: DiTConfig, latent_shape: tuple[int, int, int], batch: int
) -> dict[str, int]:
    """One forward of SpatioTemporalDiT at latents (T, H, W)."""
    grid = config.grid(latent_shape)
    d, length, rows = config.width, config.text_tokens, batch * prod(grid)
    patch, shared = prod(config.patch_size), config.modulation == "shared"
    linear = linear_flops(rows, config.input_channels * patch, d)
    linear += linear_flops(batch, TIME_FREQUENCIES, d) + linear_flops(batch, d, d)
    if config.text != "none":
        text_rows = batch * max(length, 1)
        linear += linear_flops(text_rows, config.text_width, d) + linear_flops(text_rows, d, d)
    linear += (
        linear_flops(batch, d, 6 * d) if shared else linear_flops(batch, d, 2 * d)
    )  # all blocks', or the last's
    linear += linear_flops(rows, d, config.out_channels * patch)
    blocks = [
        _block(config, grid, batch, index, count)
        for count in (config.depth, config.control_blocks)
        for index in range(count)
    ]
    if config.control_blocks:
        linear += linear_flops(
            rows, config.in_channels * patch, d
        ) + config.control_blocks * linear_flops(rows, d, d)
    return {
        "linear": linear + sum(block[0] for block in blocks),
        "attention": sum(block[1] for block in blocks),
        "conv": 0,
        "other": 0,
    }


def dit_train(config: DiTConfig, latent_shape: tuple[int, int, int], batch: int) -> dict[str, int]:
    """Forward and backward: each product has two of its size for its gradients, but for the first
    layers, whose inputs are data and need none.  What a fused attention kernel computes again in
    its backward is not counted."""
    forward, rows = (
        dit_forward(config, latent_shape, batch),
        batch * prod(config.grid(latent_shape)),
    )
    d, patch = config.width, prod(config.patch_size)
    first = linear_flops(rows, config.input_channels * patch, d) + linear_flops(
        batch, TIME_FREQUENCIES, d
    )
    if config.text != "none":
        first += linear_flops(batch * max(config.text_tokens, 1), config.text_width, d)
    if config.control_blocks:
        first += linear_flops(rows, config.in_channels * patch, d)
    return {
        **forward,
        "linear": 3 * forward["linear"] - first,
        "attention": 3 * forward["attention"],
    }


def _block(
    config: DiTConfig, grid: tuple[int, int, int], batch: int, index: int, count: int
) -> tuple[int, int]:
    """(linear, attention) FLOPs of block `index` of `count`."""
    n, d, length = prod(grid), config.width, config.text_tokens
    tokens = onward = n  # that attend; that go on to projection and MLP
    attention, parts = _self_attention(config, grid, batch, index), 6
    if config.text == "joint":
        kind = _joint_kind(config, index, count)
        tokens, onward = n + length, n if kind == "last dual" else n + length
        parts = {"single": 3, "dual": 12, "last dual": 8}[kind]
        attention = attention_flops(batch, config.num_heads, tokens, tokens, config.head_dim)
    linear = linear_flops(batch * tokens, d, 3 * d) + linear_flops(
        batch * onward, d, d
    )  # QKV, projection
    linear += 2 * linear_flops(batch * onward, d, config.mlp_width)  # MLP
    if config.modulation == "per_block":
        linear += linear_flops(batch, d, parts * d)  # adaLN: once a sample, not once a token
    if config.text == "cross":
        linear += 2 * linear_flops(batch * n, d, d) + linear_flops(batch * length, d, 2 * d)
        attention += attention_flops(batch, config.num_heads, n, length, config.head_dim)
    return linear, attention


def _joint_kind(config: DiTConfig, index: int, count: int) -> str:
    if index >= config.depth - config.single_blocks:
        return "single"
    return "last dual" if index == count - 1 else "dual"  # after the last, text goes no further


def _self_attention(config: DiTConfig, grid: tuple[int, int, int], batch: int, index: int) -> int:
    t, h, w = grid
    heads, e = config.num_heads, config.head_dim
    if config.attention == "windowed":
        return 4 * batch * heads * e * attended_pairs(grid, config.window, config.window_tiles)
    if config.attention == "full":
        return attention_flops(batch, heads, t * h * w, t * h * w, e)
    if index % 2 == 0:
        return attention_flops(batch * t, heads, h * w, h * w, e)  # within each frame
    return attention_flops(batch * h * w, heads, t, t, e)  # along time, at each place


def text_encode(config: TextEncoderConfig, batch: int) -> dict[str, int]:
    """One forward of TextEncoder."""
    rows, d, inner = batch * config.tokens, config.width, config.num_heads * config.head_dim
    linear = linear_flops(rows, d, inner + 2 * config.kv_heads * config.head_dim) + linear_flops(
        rows, inner, d
    )
    linear += linear_flops(rows, d, (3 if config.gated else 2) * config.ffn_width)
    attention = attention_flops(
        batch, config.num_heads, config.tokens, config.tokens, config.head_dim
    )
    return {
        "linear": config.depth * linear,
        "attention": config.depth * attention,
        "conv": 0,
        "other": 0,
    }


def vae_decode(
    config: VAEConfig,
    latent_shape: tuple[int, int, int],
    batch: int,
    chunk: int | None = None,
    tiling: Tiling | None = None,
) -> dict[str, int]:
    """Decoding latents (T, H, W), the frames of a filled last group included; in one piece, or in
    parts."""
    frames, rows, columns = latent_shape
    pieces = parts(config, frames, chunk or frames)
    tiles = tiling.tiles(rows, columns) if tiling else [(slice(0, rows), slice(0, columns))]
    macs = sum(
        _decode_macs(
            config,
            piece.last - piece.first,
            r.stop - r.start,
            c.stop - c.start,
            fresh=piece.first == 0 or not config.causal,
        )
        for piece in pieces
        for r, c in tiles
    )
    return {"linear": 0, "attention": 0, "conv": 2 * batch * macs, "other": 0}


def _decode_macs(config: VAEConfig, t: int, h: int, w: int, fresh: bool) -> int:
    """fresh: the piece begins like a clip, not from the frames that an earlier one left."""
    k, widths = 9 * config.temporal_kernel, config.channels[::-1]
    voxels = t * h * w
    macs = k * voxels * config.latent_channels * widths[0] + _res_block(
        k, voxels, widths[0], widths[0]
    )
    for level, width in enumerate(widths):
        previous = widths[max(level - 1, 0)]
        macs += _res_block(k, voxels, previous, width) + config.res_blocks * _res_block(
            k, voxels, width, width
        )
        if level < len(widths) - 1:
            if config.time_halvings[::-1][level]:
                t = 2 * t - 1 if config.first_frame_alone and fresh else 2 * t
            h, w = 2 * h, 2 * w
            voxels = t * h * w
            macs += k * voxels * width * width
    return macs + k * voxels * widths[-1] * config.in_channels


def vae_encode(
    config: VAEConfig, frames: int, height: int, width: int, batch: int
) -> dict[str, int]:
    """Encoding a clip of pixels, the frames that fill its last group included."""
    k, t, h, w = 9 * config.temporal_kernel, frames, height, width
    if not config.first_frame_alone:
        t += -t % config.temporal_factor
    voxels = t * h * w
    macs = k * voxels * config.in_channels * config.channels[0]
    for level, c in enumerate(config.channels):
        previous = config.channels[max(level - 1, 0)]
        macs += _res_block(k, voxels, previous, c) + (config.res_blocks - 1) * _res_block(
            k, voxels, c, c
        )
        if level < len(config.channels) - 1:
            if config.time_halvings[level]:
                t = (t + 1) // 2
            h, w = h // 2, w // 2
            voxels = t * h * w
            macs += k * voxels * c * c
    last = config.channels[-1]
    macs += _res_block(k, voxels, last, last) + k * voxels * last * 2 * config.latent_channels
    return {"linear": 0, "attention": 0, "conv": 2 * batch * macs, "other": 0}


def _res_block(k: int, voxels: int, c_in: int, c_out: int) -> int:
    skip = voxels * c_in * c_out if c_in != c_out else 0
    return k * voxels * (c_in * c_out + c_out * c_out) + skip


def dit_parameters(config: DiTConfig) -> int:
    """Parameters of SpatioTemporalDiT, biases and the unconditional class included."""
    d, patch, shared = config.width, prod(config.patch_size), config.modulation == "shared"

    def linear(n_in: int, n_out: int) -> int:
        return n_in * n_out + n_out

    norms = {"none": 0, "per_head": 2 * config.head_dim, "across_heads": 2 * d}[config.qk_norm]

    def modulation(parts: int) -> int:
        return parts * d if shared else linear(d, parts * d)

    mlp = linear(d, config.mlp_width) + linear(config.mlp_width, d)
    stream = linear(d, 3 * d) + norms + linear(d, d) + mlp + modulation(6)

    def block(index: int, count: int) -> int:
        if config.text == "joint":
            attended_alone = linear(d, 3 * d) + norms + modulation(2)
            return {
                "single": linear(d, 3 * d + config.mlp_width)
                + norms
                + linear(d + config.mlp_width, d)
                + modulation(3),
                "dual": 2 * stream,
                "last dual": stream + attended_alone,
            }[_joint_kind(config, index, count)]
        cross = (
            2 * d + linear(d, d) + linear(d, 2 * d) + norms + linear(d, d)
            if config.text == "cross"
            else 0
        )
        return stream + cross

    total = linear(config.input_channels * patch, d) + linear(TIME_FREQUENCIES, d) + linear(d, d)
    total += (config.num_classes + 1) * d if config.num_classes else 0
    total += linear(config.text_width, d) + linear(d, d) if config.text != "none" else 0
    total += linear(d, 6 * d) + 2 * d if shared else linear(d, 2 * d)
    total += linear(d, config.out_channels * patch) + sum(
        block(i, config.depth) for i in range(config.depth)
    )
    if config.control_blocks:
        total += linear(config.in_channels * patch, d)
        total += sum(
            block(i, config.control_blocks) + linear(d, d) for i in range(config.control_blocks)
        )
    return total
