"""What an operator is said to take, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from bench.calibrate.cost.parameters import NAMES
from bench.calibrate.cost.seconds import Priced, seconds_by_class
from bench.calibrate.cost.work import Work
from support.calibrations import (
    BARE,
    CEILINGS,
    THETA,
    operators,
    theta,
    work,
)
from support.fits.observations import synthetic
from support.records import count


def test_sums_alone_are_priced_as_one_large_operator_of_each_class():
    """8e14 FLOP at half of 800e12 take 2 s, others as linear; 6e14 of attention at a quarter of
    600e12 take 4 s."""
    made = Work.of(
        count(
            linear_flops=8 * 10**14,
            other_flops=8 * 10**14,
            attention_flops=6 * 10**14,
            kernels=7,
            bytes_elementwise=10**12,
        )
    )
    parts = seconds_by_class(
        made,
        theta(
            linear_efficiency=0.5,
            attention_efficiency=0.25,
            conv_efficiency=None,
            memory_efficiency=1.0,
            kernel_s=0.1,
            call_s=0.25,
        ),
        BARE,
    )
    assert parts == pytest.approx(
        {
            "linear": 4.0,
            "attention": 4.0,
            "cross_attention": 0.0,
            "conv": 0.0,
            "activation": 0.0,
            "memory": 0.5,
            "kernel": 0.7,
            "fixed": 0.25,
        }
    )


def test_a_small_product_fills_the_multipliers_less():
    """Half-size 64 at the ceiling's probe of 1024 cubed: (1 + 3 x 64 / 1024) / (1 + 3 x 64 / 64) =
    1.1875 / 4."""
    device = replace(BARE, gemm_size=(1024, 1024, 1024))
    small = operators(("linear", 64, 64, 64, 2 * 64**3, 0, 0, 1))
    probe = operators(("linear", 1024, 1024, 1024, 2 * 1024**3, 0, 0, 1))
    at = theta(linear_efficiency=1.0, linear_half_size=64.0)
    assert seconds_by_class(probe, at, device)["linear"] == pytest.approx(2 * 1024**3 / 800e12)
    assert seconds_by_class(small, at, device)["linear"] == pytest.approx(
        2 * 64**3 / 800e12 * 4 / 1.1875
    )
    huge = operators(("linear", 10**6, 10**6, 10**6, 2 * 10**18, 0, 0, 1))
    assert seconds_by_class(huge, at, device)["linear"] == pytest.approx(
        2 * 10**18 / 800e12
    )  # never over the ceiling


def test_a_product_takes_its_arithmetic_or_its_bytes_whichever_is_longer():
    """A token of an 8,192-wide layer: 134e6 FLOP take 0.17 us, its 134 MB of weights 67 us at 2e12
    bytes/s."""
    row = operators(("linear", 0, 0, 0, 2 * 8192**2, 2 * 8192**2, 0, 1))
    assert seconds_by_class(row, theta(linear_efficiency=1.0), BARE)["linear"] == pytest.approx(
        2 * 8192**2 / 2e12
    )


def test_copies_run_at_the_speed_of_the_cache_they_fit():
    device = replace(BARE, ladder=((1e6, 8e12), (1e8, 2e12)))
    at = theta(memory_efficiency=0.5)
    for moved, rate in ((10**5, 8e12), (10**6, 8e12), (10**7, 4e12), (10**8, 2e12), (10**9, 2e12)):
        row = operators(("memory", 0, 0, 0, 0, moved, 0, 3))
        assert seconds_by_class(row, at, device)["memory"] == pytest.approx(3 * moved / rate / 0.5)


def test_only_a_cpu_pages_in_large_results_anew():
    large = operators(("memory", 0, 0, 0, 0, 2 * 10**8, 10**8, 1))
    at = theta(memory_efficiency=1.0)
    assert seconds_by_class(large, at, BARE)["memory"] == pytest.approx(1e-4)
    assert seconds_by_class(large, at, replace(BARE, fresh_bytes_per_s=5e9))[
        "memory"
    ] == pytest.approx(1e-4 + 0.02)
    small = operators(("memory", 0, 0, 0, 0, 2 * 10**6, 10**6, 1))
    assert seconds_by_class(small, at, replace(BARE, fresh_bytes_per_s=5e9))[
        "memory"
    ] == pytest.approx(1e-6)


def test_only_a_cpu_has_the_slow_convolution():
    row = operators(("small_conv", 100, 32, 864, 4 * 10**12, 0, 0, 1))
    at = theta(conv_efficiency=0.5, conv_half_size=0.0, small_conv_efficiency=1.0)
    assert seconds_by_class(row, at, BARE)["conv"] == pytest.approx(0.02)
    assert seconds_by_class(row, at, replace(BARE, small_conv_flops_per_s=1e12))[
        "conv"
    ] == pytest.approx(4.0)


def test_cross_attention_is_told_apart_by_its_lengths():
    row = operators(
        ("attention", 1024, 77, 64, 6 * 10**12, 0, 0, 1),
        ("attention", 1024, 1024, 64, 6 * 10**12, 0, 0, 2),
    )
    parts = seconds_by_class(
        row,
        theta(attention_efficiency=0.5, attention_half_length=24.0, attention_half_head=16.0),
        BARE,
    )
    one = 6e12 / 600e12 / 0.5
    assert parts["attention"] == pytest.approx(2 * one * (1 + 24 * 2 / 1024 + 16 / 64))
    assert parts["cross_attention"] == pytest.approx(one * (1 + 24 * (1 / 1024 + 1 / 77) + 16 / 64))


def test_works_add_and_scale():
    a, b = (o.work for o in synthetic(0.0, n=2))
    alone = Priced([a, b], CEILINGS).seconds(THETA)
    assert Priced([a * 50 + b], CEILINGS).seconds(THETA)[0] == pytest.approx(
        50 * alone[0] + alone[1]
    )


def test_slopes_are_the_derivatives_of_the_seconds():
    """Central differences at parameters on either side of the kinks: a share at its ceiling, a
    product bound by its bytes."""
    rng = np.random.default_rng(5)
    works = [work(rng, conv=i % 2 == 0)[0] for i in range(8)]
    priced = Priced(works, CEILINGS)
    step = 1e-6
    for _ in range(5):
        theta = THETA * np.exp(0.5 * rng.standard_normal(len(NAMES)))
        found = priced.slopes(theta)
        assert found.shape == (8, len(NAMES))
        for i in range(len(NAMES)):
            moved = np.zeros(len(NAMES))
            moved[i] = step
            more, less = (priced.seconds(theta * np.exp(sign * moved)) for sign in (1, -1))
            expected = np.log(more / less) / (2 * step)
            np.testing.assert_allclose(found[:, i], expected, atol=1e-6, err_msg=NAMES[i])
        assert np.abs(found).sum() > 1.0
