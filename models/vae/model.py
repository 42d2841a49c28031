"""Video VAE: 3D convolutions, causal or symmetric in time.  Shapes: B batch, C channels, T H W.

Reads top-down: VideoVAE, Encoder3d, Decoder3d, their blocks.  The config is
`models.spec.VAEConfig`.  No norm pools over time or space, so that a clip decoded in parts can
equal the clip decoded whole (`models.vae.parts`).

Every layer takes (x, state).  Without a state it pads time with zeros, as for a whole clip.  With
one, a dict from layer to its last input frames, it goes on where the part before ended.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import draw, kernels
from models.vae.spec import VAEConfig

State = dict[nn.Module, Tensor]
"""Last input frames of each convolution along time, by layer; empty before the first part."""


class VideoVAE(nn.Module):
    """Encode (B, C, F, H, W) pixels in [-1, 1] to latents and back (KL autoencoder, arXiv
    2112.10752)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder3d(config)
        self.decoder = Decoder3d(config)

    def encode(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """video (B, C, F, H, W) -> mean and log-variance, each (B, C_latent, T, H/s, W/s).

        Raises ValueError for a frame count or size the VAE cannot take."""
        frames, height, width = video.shape[2:]
        self.config.latent_shape(frames, height, width)
        missing = -frames % self.config.temporal_factor
        if missing and not self.config.first_frame_alone:
            video = torch.cat([video, video[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)
        mean, logvar = self.encoder(video).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)  # Stable Diffusion's bounds: exp stays finite

    def decode(self, latents: Tensor, frames: int | None = None) -> Tensor:
        """latents (B, C_latent, T, H, W) -> (B, C, F, s H, s W); `frames` cuts the filled last
        group off."""
        video = self.decoder(latents)
        return video if frames is None else video[:, :, :frames]


def reparameterise(
    mean: Tensor, logvar: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Sample mean + sigma * noise, same shape as mean."""
    noise = draw.normal(*mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + (0.5 * logvar).exp() * noise


class Encoder3d(nn.Module):
    """Pixels to 2 C_latent channels (mean, log-variance)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths = config.channels
        layers: list[nn.Module] = [conv(config, config.in_channels, widths[0])]
        for level, width in enumerate(widths):
            previous = widths[max(level - 1, 0)]
            layers += [
                ResBlock(config, previous if i == 0 else width, width)
                for i in range(config.res_blocks)
            ]
            if level < len(widths) - 1:
                layers.append(Downsample(config, width, halve_time=config.time_halvings[level]))
        layers += [
            ResBlock(config, widths[-1], widths[-1]),
            Head(config, widths[-1], 2 * config.latent_channels),
        ]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, state: State | None = None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        for layer in self.layers:
            x = layer(x, state)
        return x


class Decoder3d(nn.Module):
    """Latents to pixels: the encoder mirrored, with one more residual block per level."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths = config.channels[::-1]
        layers: list[nn.Module] = [
            conv(config, config.latent_channels, widths[0]),
            ResBlock(config, widths[0], widths[0]),
        ]
        for level, width in enumerate(widths):
            previous = widths[max(level - 1, 0)]
            layers += [
                ResBlock(config, previous if i == 0 else width, width)
                for i in range(config.res_blocks + 1)
            ]
            if level < len(widths) - 1:
                layers.append(
                    Upsample(config, width, double_time=config.time_halvings[::-1][level])
                )
        layers.append(Head(config, widths[-1], config.in_channels))
        self.layers = nn.ModuleList(layers)

    def forward(self, z: Tensor, state: State | None = None) -> Tensor:
        z = z.contiguous(memory_format=torch.channels_last_3d)
        for layer in self.layers:
            z = layer(z, state)
        return z


class TimePaddedConv3d(nn.Conv3d):
    """3D convolution padded in space by kernel // 2 and in time by `time_padding` (front, back)
    frames of zeros.

    Weights, and so what it gives, lie channels last: the layout that oneDNN and cuDNN compute
    in."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int],
        time_padding: tuple[int, int],
    ):
        symmetric = time_padding[0] == time_padding[1]
        super().__init__(
            c_in,
            c_out,
            kernel,
            stride,
            padding=(time_padding[0] if symmetric else 0, kernel[1] // 2, kernel[2] // 2),
        )
        self.weight = nn.Parameter(
            self.weight.detach().contiguous(memory_format=torch.channels_last_3d)
        )
        self.time_padding = None if symmetric else time_padding
        self.kept = kernel[0] - stride[0]  # frames the next part still needs

    def forward(
        self, x: Tensor, state: State | None = None, norm: "ChannelNorm | None" = None
    ) -> Tensor:
        """norm: convolve SiLU of the normed x instead of x."""
        return self.convolve(self.lay_out(x, state, norm), state)

    def lay_out(
        self, x: Tensor, state: State | None = None, norm: "ChannelNorm | None" = None
    ) -> Tensor:
        """What is convolved: x, normed where asked, behind its padding or the frames before it.

        Apart from `convolve`, so that a caller can let go of x in between: it is a third of the
        peak otherwise."""
        if not (torch.is_grad_enabled() or torch.compiler.is_compiling()):
            return self._laid_out(x, state, norm)
        x = x if norm is None else F.silu(norm(x))
        if self.time_padding is None:
            return x
        return (
            F.pad(x, (0, 0, 0, 0, *self.time_padding))
            if state is None or self not in state
            else torch.cat([state[self], x], dim=2)
        )

    def convolve(self, x: Tensor, state: State | None = None) -> Tensor:
        """Of what `lay_out` gave."""
        if state is not None and self.time_padding is not None:
            state[self] = x[
                :, :, x.shape[2] - self.kept :
            ].clone()  # a view would keep the whole part alive
        return kernels.conv3d(x, self.weight, self.bias, self.stride, self.padding)

    def _laid_out(self, x: Tensor, state: State | None, norm: "ChannelNorm | None") -> Tensor:
        """x, normed where asked, written once: behind its padding, or behind the frames before
        it."""
        before = None if state is None else state.get(self)
        front, back = self.time_padding or (0, 0)
        if before is not None:
            front = before.shape[2]
        if norm is None and not front and not back:
            return x
        b, c, t, h, w = x.shape
        room = torch.empty(
            (b, c, front + t + back, h, w),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last_3d,
        )
        if before is not None:
            room[:, :, :front] = before
        elif front:
            room[:, :, :front] = 0
        if back:
            room[:, :, front + t :] = 0
        inside = room[:, :, front : front + t]
        if norm is None:
            inside.copy_(x)
        else:
            F.silu(norm.into(x, inside), inplace=True)
        return room


def conv(
    config: VAEConfig, c_in: int, c_out: int, stride: tuple[int, int, int] = (1, 1, 1)
) -> TimePaddedConv3d:
    """The VAE's convolution: 3 x 3 in space, temporal_kernel in time, with the padding its time
    rule asks for."""
    k = config.temporal_kernel
    if k == 1:
        padding = (0, 0)
    elif stride[0] == 2 and not config.first_frame_alone:
        padding = (1, 0)  # latent i sees frames 2i-1 .. 2i+1: its own group and the frame before it
    else:
        padding = (2, 0) if config.causal else (1, 1)
    return TimePaddedConv3d(c_in, c_out, (k, 3, 3), stride, padding)


class ChannelNorm(nn.Module):
    """RMS norm over channels at each place and time, as in Wan 2.1's VAE: GroupNorm would pool over
    time."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, H, W) -> same."""
        scale = torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-6)
        return x * scale * self.weight[:, None, None, None]

    def into(self, x: Tensor, out: Tensor) -> Tensor:
        """The same, written to `out`, without gradients."""
        if kernels.is_plain_cpu(x) and x.dtype is torch.bfloat16:
            scale = kernels.mean_square_of_channels(x).add_(1e-6).rsqrt_()
        else:
            norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)  # (B, 1, T, H, W), x read once
            scale = norm.square_().div_(x.shape[1]).add_(1e-6).rsqrt_()
        return torch.mul(x, scale, out=out).mul_(self.weight[:, None, None, None])


class ResBlock(nn.Module):
    """Two normed convolutions with a skip.  (B, C_in, T, H, W) -> (B, C_out, T, H, W)."""

    def __init__(self, config: VAEConfig, c_in: int, c_out: int):
        super().__init__()
        self.norm1, self.conv1 = ChannelNorm(c_in), conv(config, c_in, c_out)
        self.norm2, self.conv2 = ChannelNorm(c_out), conv(config, c_out, c_out)
        self.skip = nn.Conv3d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, state: State | None = None) -> Tensor:
        y = self.conv1(x, state, self.norm1)
        y = self.conv2.lay_out(y, state, self.norm2)  # what conv1 gave is let go of here
        y = self.conv2.convolve(y, state)
        return y + self.skip(x) if torch.is_grad_enabled() else y.add_(self.skip(x))


class Downsample(nn.Module):
    """Halve height and width, and time where asked, by a strided convolution."""

    def __init__(self, config: VAEConfig, channels: int, *, halve_time: bool):
        super().__init__()
        self.conv = conv(config, channels, channels, (2 if halve_time else 1, 2, 2))

    def forward(self, x: Tensor, state: State | None = None) -> Tensor:
        return self.conv(x, state)


class Upsample(nn.Module):
    """Double height and width, and time where asked (but for a first frame that stands alone), then
    convolve."""

    def __init__(self, config: VAEConfig, channels: int, *, double_time: bool):
        super().__init__()
        self.double_time = double_time
        self.first_alone = double_time and config.first_frame_alone
        self.conv = conv(config, channels, channels)

    def forward(self, x: Tensor, state: State | None = None) -> Tensor:
        x = kernels.repeat_places(x, (2 if self.double_time else 1, 2, 2))
        starts = (
            state is None or self.conv not in state
        )  # of the clip: later parts have no first frame
        x = self.conv.lay_out(x[:, :, 1:] if self.first_alone and starts else x, state)
        return self.conv.convolve(x, state)


class Head(nn.Module):
    """Norm, SiLU, convolution."""

    def __init__(self, config: VAEConfig, c_in: int, c_out: int):
        super().__init__()
        self.norm, self.conv = ChannelNorm(c_in), conv(config, c_in, c_out)

    def forward(self, x: Tensor, state: State | None = None) -> Tensor:
        return self.conv(x, state, self.norm)
