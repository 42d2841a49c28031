"""What a DiT config chooses: text, modulation, attention patterns, packed requests, conditions,
side branch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.dit.attention import Layout
from models.dit.windowed import (
    WindowPlan,
    flex_takes,
    flex_windows,
    tiled_windows,
    window_attention,
)
from models.dit.windows import attended_pairs, axis_spans
from models.spec import DiTConfig
from support.models.own import KINDS, dit, inputs
from support.models.specs import DIT

CPU = torch.device("cpu")


def in_double(condition):
    return {k: v.double() if v.is_floating_point() else v for k, v in condition.items()}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_packed_requests_equal_each_alone(kind):
    """Different durations, aspects, times and conditions in one pass."""
    model = dit(**KINDS[kind]).double()
    requests = [
        inputs(model, shape, seed) for seed, shape in enumerate([(1, 8, 8), (3, 4, 6), (4, 6, 4)])
    ]
    requests = [(x.double(), t, in_double(c)) for x, t, c in requests]
    packed = model.forward_packed(
        [x for x, _, _ in requests],
        torch.cat([t for _, t, _ in requests]),
        [c for _, _, c in requests],
    )
    for (x, t, c), out in zip(requests, packed, strict=True):
        alone = model(x, t, **c)
        assert alone.std() > 0.05
        torch.testing.assert_close(out, alone, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_packed_requests_with_prompts_of_different_length():
    model = dit(**KINDS["dual, single"])
    xs, t = [torch.randn(1, 4, 1, 4, 4), torch.randn(1, 4, 2, 4, 4)], torch.rand(2)
    texts = [torch.randn(1, 3, 12), torch.randn(1, 9, 12)]
    packed = model.forward_packed(xs, t, [{"text": text} for text in texts])
    for i in range(2):
        torch.testing.assert_close(
            packed[i], model(xs[i], t[i : i + 1], text=texts[i]), rtol=1e-4, atol=1e-5
        )


def test_packing_says_what_it_cannot_take():
    model = dit()
    with pytest.raises(ValueError, match="1 latents, 2 times, 1 conditions"):
        model.forward_packed([torch.randn(1, 4, 1, 4, 4)], torch.rand(2), [{}])
    with pytest.raises(ValueError, match="has batch 2: it must be 1"):
        model.forward_packed([torch.randn(2, 4, 1, 4, 4)] * 2, torch.rand(2), [{}, {}])


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("plain", "sincos")])
@torch.no_grad()
def test_every_weight_and_condition_reaches_the_output(kind):
    """No part of a config is decoration: each weight, when changed, changes what comes out."""
    model = dit(**KINDS[kind]).double()
    x, t, condition = inputs(model, (2, 4, 4))
    x, condition = x.double(), in_double(condition)
    base = model(x, t, **condition)
    for name in condition:
        other = dict(condition)
        other[name] = other[name] + 1 if name != "mask" else 1 - other[name]
        assert not torch.equal(model(x, t, **other), base), name
    for name, p in model.named_parameters():
        if name.endswith("text.attn.norm.q.weight"):
            continue  # in a last dual block text asks and nobody hears the answer (so in SD3)
        saved = p.clone()
        p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(7), dtype=p.dtype))
        assert not torch.equal(model(x, t, **condition), base), name
        p.copy_(saved)


@torch.no_grad()
def test_a_control_branch_with_zero_outputs_changes_nothing():
    """ControlNet's start: zero output layers leave the base model as it was."""
    model = dit(control_blocks=2)
    x, t, condition = inputs(model, (2, 4, 4))
    for out in model.control.outs:
        out.weight.zero_()
        out.bias.zero_()
    model_alone = dit()
    model_alone.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith("control.")}
    )
    torch.testing.assert_close(model(x, t, **condition), model_alone(x, t))


@torch.no_grad()
def test_what_is_not_given_is_not_seen():
    """Latents outside the mask do not reach the model."""
    model = dit(masked_condition=True)
    x, t, condition = inputs(model, (3, 4, 4))
    base = model(x, t, **condition)
    given = condition["given"].clone()
    given[:, :, 1:] += 1  # the mask says that the first frame alone is given
    assert torch.equal(model(x, t, **{**condition, "given": given}), base)
    given[:, :, 0] += 1
    assert not torch.equal(model(x, t, **{**condition, "given": given}), base)


@torch.no_grad()
def test_shared_modulation_holds_fewer_weights_and_qk_norm_bounds_scores():
    per_block, shared = dit(), dit(modulation="shared")
    # a block: 6 D (D + 1) against 6 D; once: final 2 D (D + 1) against shared 6 D (D + 1) + 2 D
    d = 64
    saved = 2 * (6 * d * (d + 1) - 6 * d) + 2 * d * (d + 1) - 6 * d * (d + 1) - 2 * d
    assert (
        sum(p.numel() for p in per_block.parameters()) - sum(p.numel() for p in shared.parameters())
        == saved
    )
    model = dit(qk_norm="per_head")
    q, k, _ = model.blocks[0].attn.project(1000 * torch.randn(1, 6, 64), None)
    torch.testing.assert_close(q.pow(2).mean(-1), torch.ones(1, 2, 6), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(k.pow(2).mean(-1), torch.ones(1, 2, 6), rtol=1e-3, atol=1e-3)


# --- windows ---


@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from([1, 3, 5]))
def test_spans_cover_an_axis_and_see_themselves(size, tile, tiles):
    spans = axis_spans(size, tile, tiles)
    assert [i for s in spans for i in s.query] == list(range(size))
    for s in spans:
        assert set(s.query) <= set(s.keys)
        assert len(s.keys) <= tiles * tile
    if tiles * tile >= size:
        assert all(len(s.keys) == size for s in spans)


def test_pairs_of_a_sliding_tile_window():
    # 4 tiles of 2 tokens an axis, 3 seen by each: 8 * 6 pairs an axis, cubed over three
    assert attended_pairs((8, 8, 8), (2, 2, 2), (3, 3, 3)) == (8 * 6) ** 3
    # HunyuanVideo's published setting: (30, 48, 80) tokens, tiles (6, 8, 8), 3 x 3 x 3 of 5 x 6 x
    # 10 seen: 9 % of the pairs
    share = attended_pairs((30, 48, 80), (6, 8, 8), (3, 3, 3)) / (30 * 48 * 80) ** 2
    assert share == pytest.approx(27 / 300)


def dense(q, k, v, plan):
    order, _ = plan.order
    n = order.numel()
    place, first, last = plan.seen
    inside = (
        (place[:, None, :] >= first[:, :, None]) & (place[:, None, :] < last[:, :, None])
    ).all(0)  # tile order
    mask = torch.zeros(n, n, dtype=torch.bool)
    mask[order[:, None], order[None, :]] = inside
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask), mask


GRIDS = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))


@settings(max_examples=30, deadline=None)
@given(GRIDS, st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.sampled_from([1, 3])] * 3))
def test_tiles_equal_dense_attention_under_the_same_mask(grid, window, tiles):
    plan = WindowPlan(grid, window, tiles, CPU)
    q, k, v = torch.randn(3, 2, 2, grid[0] * grid[1] * grid[2], 8, dtype=torch.double)
    expected, mask = dense(q, k, v, plan)
    torch.testing.assert_close(tiled_windows(q, k, v, plan), expected)
    assert mask.sum() == attended_pairs(grid, window, tiles)
    assert window_attention(q, k, v, plan).shape == q.shape


def test_tiles_in_several_goes_equal_one(monkeypatch):
    plan = WindowPlan((4, 4, 4), (2, 2, 2), (3, 1, 3), CPU)
    q, k, v = torch.randn(3, 1, 2, 64, 8)
    whole = tiled_windows(q, k, v, plan)
    monkeypatch.setattr("models.dit.windowed.GATHERED_ELEMENTS", 1)
    torch.testing.assert_close(tiled_windows(q, k, v, plan), whole)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_equals_the_tiles():
    plan = WindowPlan((3, 5, 6), (2, 2, 3), (1, 3, 1), CPU)
    q, k, v = torch.randn(3, 1, 2, 90, 16)
    torch.testing.assert_close(
        flex_windows(q, k, v, plan, compiled=False),
        tiled_windows(q, k, v, plan),
        rtol=1e-4,
        atol=1e-5,
    )
    assert flex_takes(64)
    assert not flex_takes(72)
    assert not flex_takes(8)


@torch.no_grad()
def test_a_window_that_holds_the_grid_is_full_attention():
    full = dit()
    windowed = dit(attention="windowed", window=(2, 2, 2), window_tiles=(3, 3, 3))
    windowed.load_state_dict(full.state_dict())
    x, t = torch.randn(1, 4, 3, 8, 8), torch.rand(1)
    torch.testing.assert_close(windowed(x, t), full(x, t), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text": "cross"}, "text cross with text_width 0: at least 1 is needed"),
        ({"text_width": 3}, "text none with text_width 3: 0 is needed"),
        ({"text": "joint", "text_width": 3}, "text joint with text_tokens 0: at least 1"),
        (
            {"text": "pooled", "text_width": 3, "text_tokens": 4},
            "text pooled with text_tokens 4: 0 is needed",
        ),
        ({"single_blocks": 1}, "single_blocks 1 with text none"),
        (
            {"text": "joint", "text_width": 3, "text_tokens": 4, "attention": "factorised"},
            "attention factorised with joint",
        ),
        (
            {"text": "joint", "text_width": 3, "text_tokens": 4, "single_blocks": 3},
            "single_blocks 3 is more than depth 2",
        ),
        ({"control_blocks": 3}, "control_blocks 3 is more than depth 2"),
        ({"attention": "windowed"}, "window None with attention windowed: three numbers"),
        ({"window": (1, 1, 1)}, "with attention full: null is needed"),
        (
            {"attention": "windowed", "window": (1, 1, 1), "window_tiles": (1, 2, 1)},
            "odd numbers are needed",
        ),
        (
            {"attention": "windowed", "window": (0, 1, 1), "window_tiles": (1, 1, 1)},
            "each entry must be at least 1",
        ),
        ({"text_tokens": -1}, "text_tokens is -1: it must be at least 0"),
    ],
)
def test_impossible_choices_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        DiTConfig(**{**DIT, **change})


def test_layout_lengths():
    layout = Layout(((1, 2, 3), (2, 2, 2)), torch.zeros(14, 4))
    assert layout.packed
    assert layout.lengths == (6, 8)
    assert layout.spread(torch.ones(2, 4)).shape == (1, 14, 4)
