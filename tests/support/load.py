"""A file to load, a suite, and a mistake that is one line."""

import pytest

from bench.core.errors import UserError


def one_line(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


SUITE = {
    "description": "one",
    "ceilings": False,
    "point_timeout_s": 9,
    "sampling": {
        "target_relative_half_width": 0.5,
        "min_samples": 3,
        "max_samples": 6,
        "max_s": 0.2,
    },
    "points": [{"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32"}],
    "headline": {"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32"},
}
