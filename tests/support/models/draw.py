"""One model in two dtypes."""

import torch


def same_but_rounded(wide: torch.Tensor, narrow: torch.Tensor) -> bool:
    return torch.equal(narrow, wide.to(narrow.dtype))


def assert_one_model(make) -> None:
    """make(dtype) -> pipeline and inputs: all weights and inputs of bfloat16 are those of float32,
    rounded."""
    (a, given_a), (b, given_b) = make(torch.float32), make(torch.bfloat16)
    parts = [
        (a.denoiser, b.denoiser),
        (a.vae, b.vae),
        *zip(a.text_encoders, b.text_encoders, strict=True),
    ]
    names = [
        (name, p, q)
        for x, y in parts
        for (name, p), q in zip(x.named_parameters(), y.parameters(), strict=True)
    ]
    assert [name for name, p, q in names if not same_but_rounded(p, q)] == []
    assert same_but_rounded(given_a.latents, given_b.latents)
    for one, other in (
        (given_a.condition, given_b.condition),
        (given_a.unconditional, given_b.unconditional),
    ):
        assert [k for k in one if not same_but_rounded(one[k], other[k])] == []
    assert all(map(same_but_rounded, given_a.text_embeddings, given_b.text_embeddings))
