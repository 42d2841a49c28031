"""Pictures of the learned clip, for docs/learn.py: a strip of frames and a moving one."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor


def to_frames(video: Tensor) -> list[np.ndarray]:
    """(1, 3, F, H, W) in [-1, 1] -> F arrays (H, W, 3) of bytes."""
    return list(((video[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy())


def save_strip(videos: list[tuple[Tensor, str]], path: Path, columns: int = 5) -> None:
    """A picture of evenly spaced frames, one row for each video with its caption.

    videos: (1, 3, F, H, W) in [-1, 1] and a caption, each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = np.linspace(0, videos[0][0].shape[2] - 1, columns).round().astype(int)
    figure, axes = plt.subplots(
        len(videos), columns, figsize=(2 * columns, 1.5 * len(videos) + 0.5), squeeze=False
    )
    for line, (video, caption) in zip(axes, videos, strict=True):
        frames = to_frames(video)
        for axis, i in zip(line, shown, strict=True):
            axis.imshow(frames[i])
            axis.set_axis_off()
        line[0].set_title(caption, loc="left", fontsize=9)
    figure.suptitle(
        "Big Buck Bunny, (c) copyright Blender Foundation | www.bigbuckbunny.org, CC BY 3.0",
        fontsize=7,
        y=0.02,
    )
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=80)
    plt.close(figure)
    Image.open(path).convert("RGB").quantize(192).save(path, optimize=True)  # a third of the bytes


def save_gif(videos: list[Tensor], fps: float, path: Path, scale: int = 2) -> None:
    """The videos side by side, moving.  One palette for all frames, so that what stands still does
    not flicker."""
    columns = map(to_frames, videos)
    frames = [
        Image.fromarray(np.concatenate(parts, axis=1)) for parts in zip(*columns, strict=True)
    ]
    palette = frames[len(frames) // 2].quantize(96)
    still = [
        f.resize((f.width * scale, f.height * scale), Image.Resampling.NEAREST).quantize(
            palette=palette, dither=Image.Dither.NONE
        )
        for f in frames
    ]
    still[0].save(
        path,
        save_all=True,
        append_images=still[1:],
        duration=round(1000 / fps),
        loop=0,
        optimize=True,
    )
