"""A suite whose points take known seconds, and a worker that counts by a fake."""

from types import SimpleNamespace

from bench.core.specs.suite import Sampling, Suite
from bench.measure.worker.process import JobFailed
from bench.measure.worker.protocol import CountReply
from support.records import counted

PLAN = Sampling(target_relative_half_width=0.02, min_samples=7, max_samples=60, max_s=1.2)


class FakeWorker:
    """Counts every point at so many FLOPs a step."""

    def __init__(self, flops=10**12, fails=False):
        self.flops, self.fails, self.counted = flops, fails, []
        self.environment = SimpleNamespace(gpu="cpu", device="cpu", device_name="here")

    def run(self, request, timeout_s):
        self.counted.append(request.job)
        if self.fails:
            raise JobFailed("error", "no")
        return CountReply(counts={"denoise_step": counted(linear_flops=self.flops)})


def suite_of(*points, headline="tiny-clip") -> Suite:
    return Suite.model_validate(
        {
            "name": "s",
            "description": "",
            "ceilings": False,
            "sampling": PLAN.model_dump(),
            "point_timeout_s": 60.0,
            "points": [{"model": m, "workload": w, "recipe": "eager-fp32"} for m, w in points],
            "headline": {"model": "tiny", "workload": headline, "recipe": "eager-fp32"},
        }
    )
