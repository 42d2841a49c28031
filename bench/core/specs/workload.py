"""A workload: the clip that is made, from what, in how many steps."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bench.core.specs.base import MAX_PIXELS, Spec, positive, whole

Task = Literal[
    "text-to-video", "image-to-video", "video-to-video", "extend", "extend-backward", "loop"
]
MASKED_TASKS = ("image-to-video", "extend", "extend-backward", "loop")


class Workload(Spec):
    """What is generated."""

    frames: whole(10_000_000)
    height: whole(1_000_000)
    width: whole(1_000_000)
    fps: positive(1e6, low=1e-3)
    """Frames a second of the finished video; with frames it says how much video that is."""
    steps: whole(1_000_000)
    """Denoising steps."""
    guidance: Literal["none", "cfg"]
    """cfg: classifier-free guidance, two forwards a step."""
    batch: whole(100_000)
    task: Task = "text-to-video"
    """What is given beside the prompt.  image-to-video: the first frame.  extend: the first
    `given_frames`; extend-backward: the last; loop: the same clip at both ends.  These go into the
    model beside a mask. video-to-video: the whole clip, noised (SDEdit, arXiv 2108.01073); `steps`
    are those that are run."""
    given_frames: Annotated[int, Field(strict=True, ge=0, le=10**7)] = 0
    """For extend, extend-backward and loop, else 0."""

    @model_validator(mode="after")
    def _given_fits(self) -> "Workload":
        takes = self.task in ("extend", "extend-backward", "loop")
        if takes != (self.given_frames > 0):
            raise ValueError(
                f"given_frames {self.given_frames} with task {self.task}: "
                f"{'at least 1 is needed' if takes else '0 is needed'}"
            )
        most = (self.frames - 1) // (2 if self.task == "loop" else 1)
        if takes and self.given_frames > most:
            raise ValueError(
                f"given_frames {self.given_frames}: at most {most} of {self.frames} frames can be"
                f" given to {self.task}"
            )
        return self

    @model_validator(mode="after")
    def _countable(self) -> "Workload":
        pixels = self.batch * self.frames * self.height * self.width
        if pixels > MAX_PIXELS:
            raise ValueError(
                f"batch {self.batch} x frames {self.frames} x height {self.height} x width"
                f" {self.width} are {pixels:.3g} pixels; at most {MAX_PIXELS:.0e} are taken"
            )
        return self

    @property
    def encoded_frames(self) -> int:
        """Frames that the VAE encodes before the first step."""
        return {"text-to-video": 0, "image-to-video": 1, "video-to-video": self.frames}.get(
            self.task, self.given_frames
        )

    @property
    def forwards_per_step(self) -> int:
        return 2 if self.guidance == "cfg" else 1

    @property
    def video_s(self) -> float:
        """Seconds of video, all samples of the batch together."""
        return self.batch * self.frames / self.fps
