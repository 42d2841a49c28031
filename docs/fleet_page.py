"""The table of docs/fleet.md, as `fleet --gpu h100-sxm` shows it: the published sum and ours."""

from bench.commands.studies.fleet import article
from bench.core.load import load
from bench.core.specs.demand import Demand
from bench.report.fleet.tables import article_table, people
from bench.report.render import to_markdown
from bench.studies.fleet.article import lines
from bench.studies.fleet.plan import plan
from bench.studies.fleet.servers import single_cards

DEMAND, MODEL, GPU = "uploads", "sora-20b", "h100-sxm"


def article_block(found: object) -> str:
    """Factor by factor, and the fleet with its interval."""
    demand = load(Demand, DEMAND)
    server = single_cards(demand, MODEL, None, GPU)
    planned = plan(demand, server)
    rows = lines(article(), demand, server, planned.fleet)
    how, gpus = server.provenance, planned.gpus
    said = (
        f"GPUs at the peak: {people(gpus.value)} ({people(gpus.low)} to {people(gpus.high)}, 90 %;"
        f" {how})."
    )
    return f"{to_markdown(article_table(article(), rows, how))}\n\n{said}\n"
