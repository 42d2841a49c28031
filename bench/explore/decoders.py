"""The fields that the explore page takes of a record and of a calibration; msgspec skips the rest.

Bounds keep what is divided by, and printed as JSON, finite and positive.  Needs msgspec.
"""

from typing import Annotated

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=1e-12, lt=1e9)]
Whole = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
Work = Annotated[int, msgspec.Meta(ge=0)]


class Timing(msgspec.Struct):
    """Of a stage."""

    median_s: Seconds
    low_s: Seconds
    high_s: Seconds
    n: Work


class Count(msgspec.Struct):
    """Of a stage's FLOPs."""

    linear_flops: Work
    attention_flops: Work
    conv_flops: Work
    other_flops: Work


class Workload(msgspec.Struct):
    """With the properties of bench.core.specs.workload.Workload that are used."""

    frames: Whole
    height: Whole
    width: Whole
    fps: Annotated[float, msgspec.Meta(gt=0, lt=1e9)]
    steps: Whole
    batch: Whole
    guidance: str

    @property
    def video_s(self) -> float:
        return self.batch * self.frames / self.fps

    @property
    def forwards_per_step(self) -> int:
        return 2 if self.guidance == "cfg" else 1


class Point(msgspec.Struct):
    """What was measured."""

    workload: Workload


class Environment(msgspec.Struct):
    """Where."""

    gpu: str
    device_name: str


class Memory(msgspec.Struct):
    """Peak."""

    peak_allocated: Work | None = None


class Energy(msgspec.Struct):
    """Of one call."""

    energy_j: Annotated[float, msgspec.Meta(gt=0, lt=1e15)]


class Telemetry(msgspec.Struct):
    """Of a stage."""

    energy: Energy | None = None


class Group(msgspec.Struct):
    of_one_sample: int


class Record(msgspec.Struct):
    """A line of records.jsonl."""

    schema_version: int
    kind: str
    fingerprint: str
    outcome: str
    suite: str
    started_utc: str
    environment: Environment
    reason: str | None = None
    model: str = ""
    workload: str = ""
    recipe: str = ""
    tokens: int | None = None
    point: Point | None = None
    counts: dict[str, Count] = {}
    timings: dict[str, Timing] = {}
    memory: Memory | None = None
    telemetry: dict[str, Telemetry] | None = None
    group: Group | None = None


class Errors(msgspec.Struct):
    """Held out."""

    mean: Annotated[float, msgspec.Meta(ge=0, lt=1e9)]


class Fit(msgspec.Struct):
    """Of one set of recipes."""

    leave_one_out: Errors | None = None
    recipes: list[str] = []
    dtype: str = "fp32"


class Headline(msgspec.Struct):
    """The suite's point."""

    model: str


class Calibration(msgspec.Struct):
    """calibration.json."""

    gpu: str
    device_name: str
    suite: str
    headline_recipe: str
    fits: dict[str, Fit]
    headline: Headline | None = None


RECORD_DECODER = msgspec.json.Decoder(Record)
CALIBRATION_DECODER = msgspec.json.Decoder(Calibration)
