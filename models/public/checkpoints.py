"""Public DiT, SiT and Wan weights in and out of SpatioTemporalDiT.

Four layouts are known: `facebookresearch/DiT` (SiT has the same names), diffusers'
DiTTransformer2DModel and WanTransformer3DModel, and our own. Files are safetensors, or torch files
read with `weights_only`, so that nothing in them is executed.
"""

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from models.dit.model import TIME_SCALE, SpatioTemporalDiT
from models.dit.spec import DiTConfig

State = dict[str, Tensor]

# facebookresearch/DiT's name -> ours, {} for a block's number.  Both have ".weight" and ".bias".
OFFICIAL = {
    "x_embedder.proj": "patch_embed",
    "t_embedder.mlp.0": "time_embed.fc1",
    "t_embedder.mlp.2": "time_embed.fc2",
    "y_embedder.embedding_table": "label_embed",
    "blocks.{}.attn.qkv": "blocks.{}.attn.qkv",
    "blocks.{}.attn.proj": "blocks.{}.attn.proj",
    "blocks.{}.mlp.fc1": "blocks.{}.mlp.fc1",
    "blocks.{}.mlp.fc2": "blocks.{}.mlp.fc2",
    "blocks.{}.adaLN_modulation.1": "blocks.{}.modulation.linear",
    "final_layer.linear": "final_layer.linear",
    "final_layer.adaLN_modulation.1": "final_layer.modulation",
}
# diffusers' name -> ours.  Every block there has time and label embedders of its own; a converted
# public checkpoint
# holds the same weights in each, and the forward uses the block's.
DIFFUSERS = {
    "pos_embed.proj": "patch_embed",
    "transformer_blocks.{}.norm1.linear": "blocks.{}.modulation.linear",
    "transformer_blocks.{}.attn1.to_out.0": "blocks.{}.attn.proj",
    "transformer_blocks.{}.ff.net.0.proj": "blocks.{}.mlp.fc1",
    "transformer_blocks.{}.ff.net.2": "blocks.{}.mlp.fc2",
    "proj_out_1": "final_layer.modulation",
    "proj_out_2": "final_layer.linear",
}
DIFFUSERS_EMBEDDERS = {
    "timestep_embedder.linear_1": "time_embed.fc1",
    "timestep_embedder.linear_2": "time_embed.fc2",
    "class_embedder.embedding_table": "label_embed",
}
# WanTransformer3DModel's name -> ours.
WAN = {
    "patch_embedding": "patch_embed",
    "proj_out": "final_layer.linear",
    "condition_embedder.time_embedder.linear_1": "time_embed.fc1",
    "condition_embedder.time_proj": "shared_modulation",
    "condition_embedder.time_embedder.linear_2": "time_embed.fc2",
    "condition_embedder.text_embedder.linear_1": "text_embed.fc1",
    "condition_embedder.text_embedder.linear_2": "text_embed.fc2",
    "blocks.{}.attn1.to_out.0": "blocks.{}.attn.proj",
    "blocks.{}.attn1.norm_q": "blocks.{}.attn.norm.q",
    "blocks.{}.attn1.norm_k": "blocks.{}.attn.norm.k",
    "blocks.{}.attn2.to_q": "blocks.{}.cross.q",
    "blocks.{}.attn2.to_out.0": "blocks.{}.cross.proj",
    "blocks.{}.attn2.norm_q": "blocks.{}.cross.norm.q",
    "blocks.{}.attn2.norm_k": "blocks.{}.cross.norm.k",
    "blocks.{}.norm2": "blocks.{}.norm_cross",
    "blocks.{}.ffn.net.0.proj": "blocks.{}.mlp.fc1",
    "blocks.{}.ffn.net.2": "blocks.{}.mlp.fc2",
}
_EMBEDDER = "transformer_blocks.{}.norm1.emb."


def read_state(path: Path) -> State:
    """Tensors of a .safetensors, .pt, .pth or .bin file.

    Raises ValueError, in one line, for a file that is missing, damaged, of another kind, or that
    holds code."""
    if not path.is_file():
        raise ValueError(f"checkpoint {path}: no such file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"checkpoint {path}: not a safetensors file ({error})") from None
    if path.suffix not in (".pt", ".pth", ".bin"):
        raise ValueError(
            f"checkpoint {path}: {path.suffix or 'no suffix'} is not one of .safetensors, .pt,"
            " .pth, .bin"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # UnpicklingError, RuntimeError or EOFError, depending on what the file is
        reason = (
            "it holds more than tensors, and is not executed"
            if "weights_only" in str(error)
            else "it is damaged"
        )
        raise ValueError(f"checkpoint {path}: {reason}; save the tensors as .safetensors") from None
    for key in (
        "ema",
        "model",
        "state_dict",
    ):  # DiT's training files hold the averaged weights beside others
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise ValueError(f"checkpoint {path}: a mapping of names to tensors is expected")
    return state


def load_dit(model: SpatioTemporalDiT, path: Path) -> None:
    """Load a public or own checkpoint into the model, on its device and in its dtype.

    Raises ValueError, in one line, for a file that cannot be read, a layout that is not known,
    missing or unexpected names, and wrong shapes."""
    load_dit_state(model, read_state(path), f"checkpoint {path}")


def load_dit_state(model: SpatioTemporalDiT, state: State, what: str) -> None:
    """Load tensors of any of the four layouts into the model.  what: they are, for messages.
    Raises as load_dit."""
    if "x_embedder.proj.weight" in state:
        state = from_official(state)
    elif "pos_embed.proj.weight" in state:
        state = from_diffusers(state)
        model.time_frequency_shift = 1
    elif "patch_embedding.weight" in state:
        state = from_wan(state)
    elif "patch_embed.weight" not in state:
        raise ValueError(
            f"{what}: neither DiT's, SiT's, Wan's nor diffusers' names "
            f"(first: {next(iter(state), 'none')})"
        )
    _load(model, state, what)


def from_official(state: State) -> State:
    """facebookresearch/DiT's (and SiT's) names -> ours.  The fixed positions are computed, not
    loaded."""
    return {
        _rename(name, OFFICIAL): _as_linear(name, value)
        for name, value in state.items()
        if name != "pos_embed"
    }


def from_diffusers(state: State) -> State:
    """DiTTransformer2DModel's names -> ours; the first block's embedders stand for all.

    Raises ValueError where another block's embedders differ from them: one embedder cannot hold
    both."""
    out: State = {}
    for name, value in state.items():
        embedder = re.fullmatch(r"transformer_blocks\.(\d+)\.norm1\.emb\.(.*)\.(weight|bias)", name)
        if embedder:
            first = state[_EMBEDDER.format(0) + name.split(".norm1.emb.")[1]]
            if not torch.equal(first, value):
                raise ValueError(f"{name} differs from block 0's: these weights are not a DiT's")
            out[f"{DIFFUSERS_EMBEDDERS[embedder[2]]}.{embedder[3]}"] = value
        elif ".attn1.to_q." in name:
            out |= _fused(state, name, "to_q", "qkv", "attn.qkv")
        elif not re.search(r"\.attn1\.to_[kv]\.", name):
            out[_rename(name, DIFFUSERS)] = _as_linear(name, value)
    return out


def from_wan(state: State) -> State:
    """WanTransformer3DModel's names -> ours (text-to-video: cross-attention to text alone)."""
    out: State = {}
    for name, value in state.items():
        if name == "scale_shift_table":
            out["final_layer.table"] = value[0]
        elif name.endswith(".scale_shift_table"):
            out[name.replace("scale_shift_table", "modulation.table")] = value[0]
        elif ".attn1.to_q." in name:
            out |= _fused(state, name, "to_q", "qkv", "attn.qkv")
        elif ".attn2.to_k." in name:
            out |= _fused(state, name, "to_k", "kv", "cross.kv")
        elif not re.search(r"\.attn1\.to_[kv]\.|\.attn2\.to_v\.", name):
            out[_rename(name, WAN)] = value.flatten(1) if value.ndim == 5 else value
    return out


def to_diffusers(model: SpatioTemporalDiT) -> State:
    """Our weights under DiTTransformer2DModel's names.

    Raises ValueError for a config that class cannot hold."""
    config = model.config
    _require_image_dit(config)
    state, out = model.state_dict(), {}
    ours = {value: key for key, value in DIFFUSERS.items()}
    embedders = {value: key for key, value in DIFFUSERS_EMBEDDERS.items()}
    for name, value in state.items():
        stem, kind = name.rsplit(".", 1)
        if stem in embedders:
            for block in range(config.depth):
                out[f"{_EMBEDDER.format(block)}{embedders[stem]}.{kind}"] = (
                    value.clone()
                )  # safetensors shares none
        elif stem.endswith("attn.qkv"):
            block = stem.split(".")[1]
            for part, third in zip("qkv", value.chunk(3), strict=True):
                out[f"transformer_blocks.{block}.attn1.to_{part}.{kind}"] = third
        else:
            renamed = _rename(name, ours)
            if renamed == "pos_embed.proj.weight":
                _, ph, pw = config.patch_size
                value = value.unflatten(1, (config.in_channels, ph, pw))
            out[renamed] = value
    return out


class SiT(nn.Module):
    """A SiT checkpoint behind our convention.  SiT (arXiv 2401.08740) has t = 1 at the data and
    feeds it unscaled; we have t = 1 at the noise.  Its velocity points the other way, and of its 2
    C channels the first C are velocity."""

    def __init__(self, model: SpatioTemporalDiT):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """x (B, C, T, H, W), t (B,) in [0, 1], 1 = noise -> velocity d x / d t (B, C, T, H, W)."""
        return -self.model(x, (1 - t) / TIME_SCALE, **condition)[:, : x.shape[1]]


def _fused(state: State, name: str, first: str, parts: str, ours: str) -> State:
    """The separate projections that `name` is the first of, as our fused one."""
    block, kind = re.search(r"\.(\d+)\.", name)[1], name.rsplit(".", 1)[1]
    return {
        f"blocks.{block}.{ours}.{kind}": torch.cat(
            [state[name.replace(first, f"to_{part}")] for part in parts]
        )
    }


def _require_image_dit(config: DiTConfig) -> None:
    wanted = {
        "text": "none",
        "modulation": "per_block",
        "qk_norm": "none",
        "positions": "sincos",
        "attention": "full",
        "masked_condition": False,
        "control_blocks": 0,
    }
    for name, value in wanted.items():
        if getattr(config, name) != value:
            raise ValueError(f"{name} {getattr(config, name)}: diffusers' DiT has {value}")
    if config.patch_size[0] != 1 or not config.num_classes:
        raise ValueError(
            f"patch_size {list(config.patch_size)}, num_classes {config.num_classes}: diffusers'"
            " DiT takes images and class labels"
        )


def _rename(name: str, names: dict[str, str]) -> str:
    stem, kind = name.rsplit(".", 1)
    number = re.search(r"\.(\d+)\.", stem + ".")
    for theirs, ours in names.items():
        block = number[1] if number else ""
        if theirs.format(block) == stem:
            return f"{ours.format(block)}.{kind}"
    raise ValueError(f"{name} is no part of a DiT")


def _as_linear(name: str, value: Tensor) -> Tensor:
    """A patch convolution's weight (D, C, p, p) as our linear layer's (D, C p p)."""
    return value.flatten(1) if name.endswith("proj.weight") and value.ndim == 4 else value


def _load(model: nn.Module, state: State, what: str) -> None:
    wanted = model.state_dict()
    for name, value in wanted.items():
        if name not in state:
            raise ValueError(
                f"{what}: {name} is missing ({len(wanted.keys() - state.keys())} of {len(wanted)}"
                " are)"
            )
        if state[name].shape != value.shape:
            raise ValueError(
                f"{what}: {name} has shape {tuple(state[name].shape)}, the config needs"
                f" {tuple(value.shape)}"
            )
    extra = sorted(state.keys() - wanted.keys())
    if extra:
        raise ValueError(f"{what}: {extra[0]} has no place in the config ({len(extra)} have none)")
    model.load_state_dict(state)
