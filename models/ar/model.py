"""A decoder-only transformer over video tokens, with a key-value cache: the baseline that diffusion
is held against.

Generating is `prefill` (prompt and given tokens at once: many rows share each weight that is read)
and then `decode`, one token a call: every weight and the whole cache are read for one row, so
memory sets the pace and not the multipliers.

Shapes: B batch, L prompt tokens, N video tokens, D width, A heads, K heads of keys and values, E
head_dim, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models import draw
from models.ar.spec import AutoregressiveConfig
from models.layers import MLP, apply_rope, rope_angles


@dataclass
class KVCache:
    """Room for a whole context, taken once; `length` entries of it are in use."""

    k: Tensor
    """(depth, B, K, context, E), rotated."""
    v: Tensor
    cos: Tensor
    """(context, E/2)."""
    sin: Tensor
    length: int

    def first_rows(self, batch: int) -> "KVCache":
        """A view of the first samples."""
        return KVCache(self.k[:, :batch], self.v[:, :batch], self.cos, self.sin, self.length)


def allocate_cache(
    config: AutoregressiveConfig,
    batch: int,
    context: int,
    make: Callable[..., Tensor],
    device: torch.device,
) -> KVCache:
    """make(*shape) gives the entries: torch.empty to generate, random ones to time a call at some
    length."""
    shape = (config.depth, batch, config.kv_heads, context, config.head_dim)
    k, v = make(*shape), make(*shape)
    cos, sin = _angles(config, context, device, k.dtype)
    return KVCache(k, v, cos, sin, 0)


def _angles(
    config: AutoregressiveConfig, n: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    cos, sin = rope_angles((n, 1, 1), (config.head_dim, 0, 0), device)
    return cos.to(dtype), sin.to(dtype)


class AutoregressiveTransformer(nn.Module):
    """Next-token model of a clip's tokens, given a text encoder's output."""

    def __init__(self, config: AutoregressiveConfig):
        super().__init__()
        self.config = config
        self.text = nn.Linear(config.text_width, config.width, bias=False)
        self.embed = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)

    def forward(
        self, prompt: Tensor | None, tokens: Tensor, cache: KVCache | None = None
    ) -> Tensor:
        """Without a cache the logits of token 0 to N, (B, N + 1, V); with one it is filled, or
        without a prompt gone on from, and the logits are the next token's, (B, 1, V).  prompt (B,
        L, D_text), tokens (B, N), N may be 0."""
        x = self.embed(tokens)  # (B, N, D)
        if prompt is not None:
            x = torch.cat([self.text(prompt), x], dim=1)  # (B, L + N, D)
        if cache is None:
            cos, sin = _angles(self.config, x.shape[1], x.device, x.dtype)
            for block in self.blocks:
                x = block(x, cos, sin)
            return self.head(self.norm(x[:, -tokens.shape[1] - 1 :]))
        start = cache.length if prompt is None else 0
        cache.length = start + x.shape[1]
        cos, sin = cache.cos[start : cache.length], cache.sin[start : cache.length]
        for i, block in enumerate(self.blocks):
            x = block(x, cos, sin, cache.k[i], cache.v[i], start)
        return self.head(self.norm(x[:, -1:]))

    def prefill(self, prompt: Tensor, given: Tensor, cache: KVCache) -> Tensor:
        """Begin a window.  given (B, N) tokens -> logits of the next token (B, V)."""
        return self(prompt, given, cache)[:, 0]

    def decode(self, token: Tensor, cache: KVCache) -> Tensor:
        """Append one token.  token (B,) -> logits of the next one (B, V)."""
        return self(None, token[:, None], cache)[:, 0]

    @torch.no_grad()
    def generate(self, prompt: Tensor, n: int) -> Tensor:
        """n tokens in one window, each the most likely.  -> (B, n)."""
        batch, length, _ = prompt.shape
        cache = allocate_cache(
            self.config, batch, length + n, lambda *s: prompt.new_empty(s), prompt.device
        )
        logits = self.prefill(prompt, prompt.new_empty(batch, 0, dtype=torch.long), cache)
        out = [logits.argmax(-1)]
        while len(out) < n:
            out.append(self.decode(out[-1], cache).argmax(-1))
        return torch.stack(out, dim=1)

    # What the pipeline asks of every denoiser.
    def prepare(self, latents: Tensor) -> None:
        """Nothing is kept per shape."""

    def example_condition(
        self,
        latent_shape: tuple[int, int, int],
        batch: int,
        randn: Callable[..., Tensor],
        unconditional: bool,
    ) -> dict[str, Tensor]:
        """A random prompt; with guidance the empty one is as long."""
        return {"prompt": randn(batch, self.config.text_tokens, self.config.text_width)}


class Block(nn.Module):
    """Pre-norm causal attention and feed-forward.  (B, N, D) -> (B, N, D)."""

    def __init__(self, config: AutoregressiveConfig):
        super().__init__()
        self.config, inner = config, config.num_heads * config.head_dim
        self.norm1 = nn.RMSNorm(config.width, eps=1e-6)
        self.qkv = nn.Linear(
            config.width, inner + 2 * config.kv_heads * config.head_dim, bias=False
        )
        self.proj = nn.Linear(inner, config.width, bias=False)
        self.norm2 = nn.RMSNorm(config.width, eps=1e-6)
        self.mlp = (
            SwiGLU(config.width, config.ffn_width)
            if config.gated
            else MLP(config.width, config.ffn_width)
        )

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        cached_k: Tensor | None = None,
        cached_v: Tensor | None = None,
        start: int = 0,
    ) -> Tensor:
        """cached_k, cached_v (B, K, context, E): written from `start` on, and read up to there and
        what is new."""
        c = self.config
        heads = rearrange(self.qkv(self.norm1(x)), "b n (a e) -> b a n e", e=c.head_dim)
        q, k, v = heads.split([c.num_heads, c.kv_heads, c.kv_heads], dim=1)
        q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)
        if cached_k is not None and cached_v is not None:
            end = start + x.shape[1]
            cached_k[:, :, start:end], cached_v[:, :, start:end] = k, v
            k, v = cached_k[:, :, :end], cached_v[:, :, :end]
        x = x + self.proj(self._attend(q, k, v))
        return x + self.mlp(self.norm2(x))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (B, A, N, E), k and v (B, K, M, E); N is M, or 1 -> (B, N, A E)."""
        if q.shape[2] == 1:
            # One token sees all the cache, so no mask; heads that share keys become rows of one
            # product, and the cache
            # is read once and never repeated.
            q = rearrange(q, "b (k g) 1 e -> b k g e", k=self.config.kv_heads)
            return rearrange(F.scaled_dot_product_attention(q, k, v), "b k g e -> b 1 (k g e)")
        shared = self.config.num_heads // self.config.kv_heads
        k, v = (y.repeat_interleave(shared, dim=1) if shared > 1 else y for y in (k, v))
        return rearrange(
            F.scaled_dot_product_attention(q, k, v, is_causal=True), "b a n e -> b n (a e)"
        )


class SwiGLU(nn.Module):
    """down(silu(gate) * up), arXiv 2002.05202."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


def draw_token(logits: Tensor) -> Tensor:
    """One token of each row with the probability that softmax gives it.  logits (B, V) -> (B, 1).

    The largest of p_i / e_i, e_i exponential, is token i with probability p_i: i's clock of rate
    p_i rings first.  In logarithms softmax's sum falls out.  torch.multinomial reads its sum back,
    so that a GPU waits for the host at every token and no graph can be captured."""
    wide = logits.float()
    return (wide - torch.empty_like(wide).exponential_().log_()).argmax(-1, keepdim=True)


def decoding_calls(
    model: AutoregressiveTransformer,
    latents: Tensor,
    condition: dict[str, Tensor],
    unconditional: dict[str, Tensor] | None,
    seed: int,
) -> dict[str, Callable[[], Any]]:
    """forward, prefill and decode_token as calls without arguments.

    decode_token runs at the mean length of the clip's decode calls, over a cache filled at random;
    forward is the same without guidance and without drawing the token.  With guidance the empty
    prompt's rows share the call, and so the weights that are read, with the prompt's."""
    config, device = model.config, latents.device
    plan, batch = config.plan(tuple(latents.shape[2:])), latents.shape[0]
    prompt = (
        condition["prompt"]
        if unconditional is None
        else torch.cat([condition["prompt"], unconditional["prompt"]])
    )
    generator = None if device.type == "meta" else torch.Generator(device).manual_seed(seed)
    cache = allocate_cache(
        config,
        prompt.shape[0],
        plan.context,
        lambda *shape: draw.normal(*shape, generator=generator, device=device, dtype=latents.dtype),
        device,
    )
    tokens = torch.randint(
        0,
        2**config.code_bits,
        (prompt.shape[0], plan.prefill_tokens - plan.prompt + 1),
        generator=generator,
        device=device,
    )
    given, last = tokens[:, :-1], tokens[:, -1]

    def next_token(logits: Tensor) -> Tensor:
        if unconditional is not None:
            with_prompt, without = logits.chunk(2)
            logits = without + 5.0 * (with_prompt - without)
        return draw_token(logits)

    def decode(rows: int) -> Tensor:
        part = cache.first_rows(rows)
        part.length = plan.cache_length - 1
        return model.decode(last[:rows], part)

    return {
        "forward": lambda: decode(batch),
        "prefill": lambda: next_token(model.prefill(prompt, given, cache)),
        "decode_token": lambda: next_token(decode(prompt.shape[0])),
    }
