"""How much do the cards of a result differ?  cards."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.commands.parts.options import Json
from bench.commands.parts.output import print_json, show

ResultDirs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RESULT_DIR...", help="A merged result, or several of one kind of card."
    ),
]


def cards(result_dirs: ResultDirs, as_json: Json = False) -> int | None:
    """Lay cards of one kind beside one another, by the points that several of them measured.

    The seconds of each are a factor of the typical card's. Exit code 1 where a card is further than
    10 % from it."""
    from bench.calibrate.cards import cards_of
    from bench.core.errors import UserError
    from bench.report.tables.doctor import cards_document, cards_table
    from bench.results.store import read_records

    records = [record for directory in result_dirs for record in read_records(directory)]
    kinds = {record.environment.device_name for record in records}
    if len(kinds) > 1:
        raise UserError(f"cards of one kind are compared, found {', '.join(sorted(kinds))}")
    compared = cards_of(records)
    if not compared.cards:
        raise UserError(_why_none(records))
    if as_json:
        print_json(cards_document(compared))
    else:
        show(cards_table(compared, records))
    return 1 if any(card.off for card in compared.cards) else None


def _why_none(records: list[Any]) -> str:
    """Why no card can be held against another."""
    from bench.results.environment import cards_in

    environments = [record.environment for record in records]
    if several := cards_in(environments):
        return (
            f"{several}; no point was measured on two of them: measure shards (run --shard), which"
            " share the anchors"
        )
    if environments[0].device == "cpu":
        return "this result is of a CPU, which has no UUID to tell it from another: cards are GPUs"
    if environments[0].device_uuid_hash is None:
        return "this result is of a GPU whose UUID is not known: it cannot be told from another"
    return "this result is of one card alone: there is nothing to compare it with"
