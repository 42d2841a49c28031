"""The auto-regressive model: its cache changes nothing, its counts are exact, its calls add up to
the clip."""

import math

import pytest
import torch
from scipy.stats import chisquare
from torch.utils._python_dispatch import TorchDispatchMode

from models.ar.model import AutoregressiveTransformer, allocate_cache, decoding_calls, draw_token
from models.layers import init_benchmark_weights
from support.models.autoregressive import SMALL, changed
from support.models.own import CPU


def built(config):
    model = AutoregressiveTransformer(config).double()
    init_benchmark_weights(model, 0)
    return model


def inputs(config, n, batch=2):
    return (
        torch.randn(batch, config.text_tokens, config.text_width, dtype=torch.double),
        torch.randint(0, config.vocabulary, (batch, n)),
    )


@pytest.mark.parametrize(
    "config",
    [SMALL, changed(kv_heads=4, gated=False), changed(kv_heads=1)],
    ids=["grouped", "as many, GELU", "one"],
)
def test_decoding_with_the_cache_equals_the_whole_forward(config):
    model, (prompt, tokens) = built(config), inputs(config, 9)
    whole = model(prompt, tokens)  # (2, 10, V)
    cache = allocate_cache(
        config, 2, 16, lambda *s: torch.full(s, torch.nan, dtype=torch.double), CPU
    )
    step = [model.prefill(prompt, tokens[:, :4], cache)]
    step += [model.decode(tokens[:, i], cache) for i in range(4, 9)]
    assert cache.length == 7 + 9
    torch.testing.assert_close(torch.stack(step, dim=1), whole[:, 4:], rtol=1e-5, atol=1e-5)


def test_generating_is_choosing_the_likeliest_of_the_whole_forward():
    model, (prompt, _) = built(SMALL), inputs(SMALL, 0)
    made = model.generate(prompt, 6)
    assert torch.equal(made, model(prompt, made[:, :-1]).argmax(-1))


def test_it_equals_a_plain_reference():
    """Written from the papers' formulas: complex rotary factors, softmax by hand, a loop over
    heads."""
    model, (prompt, tokens) = built(SMALL), inputs(SMALL, 5, batch=1)
    c, n = SMALL, 12

    def norm(x):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6)

    def rotate(x):  # (n, 6)
        freqs = torch.tensor(
            [10_000.0 ** (-2 * i / c.head_dim) for i in range(c.head_dim // 2)], dtype=torch.double
        )
        turn = torch.polar(
            torch.ones(n, 3, dtype=torch.double),
            torch.arange(n, dtype=torch.double)[:, None] * freqs,
        )
        return torch.view_as_real(
            torch.view_as_complex(x.reshape(n, 3, 2).contiguous()) * turn
        ).reshape(n, 6)

    x = torch.cat([prompt[0] @ model.text.weight.T, model.embed.weight[tokens[0]]])
    for block in model.blocks:
        heads = (
            (norm(x) @ block.qkv.weight.T).reshape(n, 8, 6).unbind(1)
        )  # 4 queries, 2 keys, 2 values
        out = []
        for a in range(4):
            scores = rotate(heads[a]) @ rotate(heads[4 + a // 2]).T / math.sqrt(6)
            scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)
            out.append(scores.softmax(-1) @ heads[6 + a // 2])
        x = x + torch.cat(out, dim=-1) @ block.proj.weight.T
        gate, up = (norm(x) @ block.mlp.gate_up.weight.T).chunk(2, -1)
        x = x + (gate / (1 + torch.exp(-gate)) * up) @ block.mlp.down.weight.T
    logits = norm(x)[6:] @ model.head.weight.T
    # the rotary table is float32, as everywhere here
    torch.testing.assert_close(model(prompt, tokens)[0], logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_are_drawn_as_often_as_softmax_says(dtype):
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, -3.0, 1.5], dtype=dtype)
    draws = 50_000
    torch.manual_seed(3)
    drawn = draw_token(logits.expand(draws, -1))
    assert drawn.shape == (draws, 1)
    expected = draws * logits.double().softmax(-1)
    assert chisquare(drawn.flatten().bincount(minlength=7).numpy(), expected.numpy()).pvalue > 0.01


class Operators(TorchDispatchMode):
    """Names of what runs."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("stage", ["prefill", "decode_token"])
def test_no_token_waits_for_the_host(stage):
    """Operators that read a number back, or whose output's shape is a number read back: a graph can
    hold none of them."""
    model = built(SMALL).float()
    latents = torch.randn(1, SMALL.code_bits, 2, 2, 2)
    prompt = {"prompt": torch.randn(1, SMALL.text_tokens, SMALL.text_width)}
    calls = decoding_calls(model, latents, prompt, prompt, 0)
    with torch.inference_mode(), Operators() as seen:
        calls[stage]()
    assert "argmax" in seen.names
    assert not seen.names & {
        "multinomial",
        "_local_scalar_dense",
        "item",
        "nonzero",
        "is_nonzero",
        "equal",
        "masked_select",
        "unique",
        "_unique2",
    }
