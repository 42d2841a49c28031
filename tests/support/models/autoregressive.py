"""The smallest auto-regressive model."""

from models.ar.spec import AutoregressiveConfig

SMALL = AutoregressiveConfig(
    code_bits=5,
    other_vocabulary=3,
    width=24,
    depth=2,
    num_heads=4,
    head_dim=6,
    kv_heads=2,
    ffn_width=20,
    gated=True,
    text_width=10,
    text_tokens=7,
    window=3,
    overlap=1,
)


def changed(**fields):
    return AutoregressiveConfig(**{**vars(SMALL), **fields})
