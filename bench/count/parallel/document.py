"""The document of `count --parallel --json`."""

from typing import Any

from bench.core.specs.point import Point
from bench.count.parallel.point import RankCount


def rank_document(point: Point, counted: RankCount) -> dict[str, Any]:
    """One rank's denoising step.  SI units; every number is counted."""
    parallel = counted.parallel
    counters = dict.fromkeys(counted.sent, "traced") | dict.fromkeys(counted.weights, "closed form")
    return {
        "model": point.model.name,
        "workload": point.workload.name,
        "mesh": parallel.model_dump(exclude_defaults=True),
        "mesh_words": parallel.words(),
        "ranks": parallel.ranks,
        "guided": point.workload.guidance == "cfg",
        "tokens": point.model.tokens(point.workload),
        "flops_per_rank": counted.flops,
        "bytes_sent_per_rank": counted.bytes_sent,
        "closed_form_agrees": counted.closed_form or None,
        "sent": [
            {
                "axis": sent.message.axis,
                "collective": sent.message.collective,
                "ranks": sent.message.ranks,
                "calls": sent.calls,
                "bytes_per_call": sent.message.bytes_sent,
                "bytes": sent.bytes_sent,
                "counter": counter,
            }
            for sent, counter in counters.items()
        ],
        "provenance": "counted",
    }
