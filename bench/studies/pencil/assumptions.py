"""Everything that the pencil estimate puts in by hand."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Assumptions:
    """Everything the chain puts in by hand.  Units in the names."""

    h100_flops_per_s: float = 989.4e12  # bf16 dense datasheet rate, taken at 100 %
    seconds_per_month: float = 30 * 86_400.0  # implied: 1.08e25 over 4,211 months
    dit_params: float = 675e6
    dit_step: float = 524e9  # printed as FLOP; DiT's table counts multiply-accumulates
    steps: int = 250
    dit_training_flop: float = 1e21
    dit_batch: int = 256
    dit_training_steps: float = 3e6
    sora_params: float = 20e9
    params_ratio: float = 30.0  # 29.6, rounded
    pixels_ratio: float = 1.0  # of a frame, over DiT's 512x512; the pencil is linear in them
    video_s: int = 60
    fps: int = 24
    temporal_compression: int = 8
    sora_video_printed: float = 708e15  # 707.4e15 rounded: the printed 5.03 minutes come from it
    data_low: float = 4.0
    data_high: float = 10.0
    video_share: float = 0.5  # of training data; images are then not counted at all
    llama_params: float = 70e9
    gpt4_active_params: float = 2 * 220e9  # two experts
    document_tokens: int = 1000
    instagram_images_per_day: float = 95e6
    imagenet_images: float = 14e6
    minutes_per_h100_hour_rounded: float = 5.0
    demand_printed: float = 10.7e6
    meta_h100: float = 650e3
    training_passes: float = 3.0  # forward and backward: once and twice the forward's products

    @property
    def frames(self) -> int:
        return self.video_s * self.fps

    @property
    def latent_frames(self) -> float:
        return self.frames / self.temporal_compression

    @property
    def sora_step(self) -> float:
        return self.dit_step * self.params_ratio * self.pixels_ratio * self.latent_frames

    @property
    def sora_video(self) -> float:
        return self.sora_step * self.steps

    @property
    def minutes_per_h100_hour(self) -> float:
        """A11, with the unrounded FLOP of a video."""
        return self.h100_flops_per_s * 3600 / self.sora_video * self.video_s / 60

    @property
    def sora_training_flop(self) -> tuple[float, float]:
        step = self.params_ratio * self.pixels_ratio * self.latent_frames
        scale = self.dit_training_flop * step * self.video_share
        return scale * self.data_low, scale * self.data_high
