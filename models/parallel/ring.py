"""Ring attention: queries stay, keys and values travel (arXiv 2310.01889).

torch's own context parallelism has no kernel for a CPU and changes its interface between releases,
so that the ring is written here: attention to one rank's keys at a time, merged by the log of each
part's sum of exponentials.

Shapes: B batch, A heads, N queries, M keys, E head_dim.
"""

import torch
from torch import Tensor

from models.parallel.mesh import Ranks

Spans = tuple[tuple[int, int], tuple[int, int]]
"""Start and count of true tokens among padded ones: the video's, the text's."""


def ring_attention(q: Tensor, k: Tensor, v: Tensor, spans: list[Spans], ring: Ranks) -> Tensor:
    """Attention of this rank's true queries to the true keys of all ranks.

    q (B, A, N, E) without padding; k, v (B, A, M, E) with it; spans: of each ring rank."""
    out, sums = None, None
    travelling = torch.stack([k, v])
    for step in range(ring.size):
        owner = (ring.index - step) % ring.size
        keys, values = (cut_out(x, spans[owner]) for x in travelling.unbind(0))
        if q.shape[2] and keys.shape[2]:
            part, part_sums = attention_with_sums(q, keys, values)
            out, sums = _merged(out, sums, part, part_sums)
        if step < ring.size - 1:
            travelling = ring.pass_on(travelling)
    return torch.zeros_like(q) if out is None else out.to(q.dtype)


def cut_out(x: Tensor, spans: Spans) -> Tensor:
    """The true tokens of x (B, A, padded, E)."""
    (_, video), (start, texts) = spans
    if video + texts == x.shape[2]:
        return x
    return torch.cat([x[:, :, :video], x[:, :, start : start + texts]], dim=2)


def attention_with_sums(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention, and for each query the log of its sum of exponentials.  -> (B, A, N, E), (B, A,
    N) in float32.  On CUDA by FlashAttention-2, or by cuDNN where SDPA is held to that."""
    aten = torch.ops.aten
    if q.device.type != "cuda":
        return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[:2]
    if q.dtype == torch.float32:
        return aten._scaled_dot_product_efficient_attention(q, k, v, None, True)[:2]
    if torch.backends.cuda.cudnn_sdp_enabled() and not torch.backends.cuda.flash_sdp_enabled():
        out, sums = aten._scaled_dot_product_cudnn_attention(q, k, v, None, True)[:2]
        return out, sums.reshape(q.shape[:3])
    return aten._scaled_dot_product_flash_attention(q, k, v)[:2]


def _merged(
    out: Tensor | None, sums: Tensor | None, part: Tensor, part_sums: Tensor
) -> tuple[Tensor, Tensor]:
    """Two parts of one softmax as one, in float32."""
    if out is None or sums is None:
        return part.float(), part_sums
    total = torch.logaddexp(sums, part_sums)
    own, other = (sums - total).exp(), (part_sums - total).exp()
    return out * own[..., None] + part * other[..., None], total
