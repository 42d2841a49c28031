"""The tables of docs/evidence.md, from the shipped evidence."""

from h100_plan import table

from bench.calibrate.evidence.card import shipped_held_out, shipped_scatter

WAYS = {
    "row": "Each row left out",
    "size": "All rows of one model and size left out",
    "model": "All rows of one model left out",
    "source": "All rows of one source left out",
    "card": "All rows of one card left out",
}
HELD_OUT_HEAD = [
    "card",
    "rows",
    "mean error",
    "worst",
    "inside the 90 % interval",
    "one MFU of the card",
    "two rates of the card",
    "one MFU of all cards",
]


def held_out_block(found: object) -> str:
    """How right forecasts were, of docs/evidence.md: each card with rows, and all together."""
    shipped = shipped_held_out()
    text = ""
    for by in WAYS:
        rows = [
            (
                e.gpu or "all",
                str(e.n),
                f"{e.error:.1%}",
                f"{e.worst:.0%} ({e.worst_row})",
                f"{e.inside:.0%}",
                *(
                    "–" if x is None else f"{x:.1%}"
                    for x in (e.one_mfu, e.two_rates, e.one_mfu_of_all_cards)
                ),
            )
            for e in shipped
            if e.by == by
        ]
        text += f"\n{WAYS[by]}:\n\n" + table(HELD_OUT_HEAD, rows)
    return text


def scatter_block(found: object) -> str:
    """The fitted scatters, of docs/evidence.md."""
    rows = [(name.replace("_", ", "), f"{x:.1%}") for name, x in shipped_scatter()]
    return table(["of", "standard deviation of the logarithm"], rows)
