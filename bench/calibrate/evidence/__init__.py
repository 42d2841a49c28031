"""What others published, and what a card's own records say, as evidence of one cost model for all
cards: fitted together, shipped with the package, and asked for a forecast of any point."""
