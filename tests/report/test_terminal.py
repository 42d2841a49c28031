"""Tables in a terminal of any width."""

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench.report.tables.table import numbers, table
from bench.report.terminal import fitted, shared

SIZES = st.lists(st.tuples(st.integers(1, 28), st.integers(0, 200)), min_size=1, max_size=12)


@given(SIZES, st.integers(0, 120))
def test_columns_share_the_room_and_none_falls_under_its_least(sizes, spare):
    least = [word for word, _ in sizes]
    wanted = [word + more for word, more in sizes]
    widths = shared(least, wanted, sum(least) + spare)
    assert sum(widths) <= sum(least) + spare
    bounds = zip(least, widths, wanted, strict=True)
    assert all(low <= width <= high for low, width, high in bounds)


def test_no_word_is_cut_at_the_right_edge():
    """`claims` said "cannot te" at 120 columns, and at 100 the verdict was gone."""
    columns = ["claim", "quantity", numbers("claimed"), numbers("ours"), "verdict", numbers("why")]
    words = "Share of the datasheet's FLOP/s that a denoising step reaches on an A100"
    row = ["compute-density-a100-of-somebody", words, "0.9 of the datasheet's rate"]
    row += ["0.6984 (0.4514 to 1.081) (extrapolated)", "cannot tell", "12"]
    made = table("Claims", columns, [row])
    for width in range(40, 220):
        console = Console(width=width)
        with console.capture() as captured:
            console.print(fitted(made, console))
        lines = captured.get().splitlines()
        assert max(map(len, lines)) <= width
        text = " ".join(lines)
        assert "cannot" in text
        assert "tell" in text
        assert "12" in text
