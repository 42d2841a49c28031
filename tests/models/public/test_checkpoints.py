"""Weights shared with public DiTs: the same outputs, and what is said of files that cannot be
loaded."""

import pickle

import pytest
import torch
from diffusers import DiTTransformer2DModel, WanTransformer3DModel
from safetensors.torch import save_file

from bench.core.load import load
from bench.core.specs.model import Model
from models.dit.model import SpatioTemporalDiT
from models.layers import init_benchmark_weights
from models.public.checkpoints import SiT, from_diffusers, load_dit, to_diffusers
from models.spec import DiTConfig
from support.models.specs import DIT

IMAGE = {**DIT, "positions": "sincos", "num_classes": 10, "out_channels": 8}


def own(config: DiTConfig, seed: int = 0) -> SpatioTemporalDiT:
    model = SpatioTemporalDiT(config).eval()
    init_benchmark_weights(model, seed)
    return model


def public(config: DiTConfig, sample_size: int) -> DiTTransformer2DModel:
    return DiTTransformer2DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_layers=config.depth,
        patch_size=config.patch_size[1],
        sample_size=sample_size,
        num_embeds_ada_norm=config.num_classes,
        norm_eps=1e-6,
    ).eval()


@pytest.mark.parametrize(("preset", "depth"), [("dit-s-2", 12), ("dit-xl-2", 2)])
@torch.no_grad()
def test_equals_diffusers_dit_on_the_same_weights(preset, depth):
    """S/2 as it is, XL/2's width with two blocks, gates not zero.  Tolerance: 1e-5 of the output's
    size, in float32."""
    fields = {**vars(load(Model, preset).denoiser), "depth": depth}
    model = own(DiTConfig(**fields))
    model.time_frequency_shift = 1
    theirs = public(model.config, 16)
    theirs.load_state_dict(to_diffusers(model), strict=True)
    x, t, labels = torch.randn(2, 4, 16, 16), torch.tensor([3, 870]), torch.tensor([7, 1000])
    expected = theirs(x, timestep=t, class_labels=labels).sample
    got = model(x[:, :, None], t / 1000, labels=labels)[:, :, 0]
    assert expected.std() > 0.1
    assert (got - expected).abs().max() < 1e-5 * expected.abs().max()
    model.blocks[0].modulation.linear.bias += 0.1  # the test can fail
    assert (model(x[:, :, None], t / 1000, labels=labels)[:, :, 0] - expected).abs().max() > 1e-2


@torch.no_grad()
def test_diffusers_weights_come_in_and_go_out(tmp_path):
    model, other = own(DiTConfig(**IMAGE)), own(DiTConfig(**IMAGE), seed=5)
    save_file(
        {k: v.contiguous() for k, v in to_diffusers(model).items()}, tmp_path / "dit.safetensors"
    )
    load_dit(other, tmp_path / "dit.safetensors")
    assert other.time_frequency_shift == 1
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def official(model: SpatioTemporalDiT) -> dict[str, torch.Tensor]:
    """The model's weights as facebookresearch/DiT names them, written out here so as not to lean on
    the converter."""
    state, out = model.state_dict(), {"pos_embed": torch.zeros(1, 16, 64)}
    for kind in ("weight", "bias"):
        out |= {
            f"x_embedder.proj.{kind}": state[f"patch_embed.{kind}"],
            f"t_embedder.mlp.0.{kind}": state[f"time_embed.fc1.{kind}"],
            f"t_embedder.mlp.2.{kind}": state[f"time_embed.fc2.{kind}"],
            f"final_layer.linear.{kind}": state[f"final_layer.linear.{kind}"],
            f"final_layer.adaLN_modulation.1.{kind}": state[f"final_layer.modulation.{kind}"],
        }
        for i in range(model.config.depth):
            for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
                out[f"blocks.{i}.{part}.{kind}"] = state[f"blocks.{i}.{part}.{kind}"]
            out[f"blocks.{i}.adaLN_modulation.1.{kind}"] = state[
                f"blocks.{i}.modulation.linear.{kind}"
            ]
    out["x_embedder.proj.weight"] = out["x_embedder.proj.weight"].view(64, 4, 2, 2)
    out["y_embedder.embedding_table.weight"] = state["label_embed.weight"]
    return out


@torch.no_grad()
def test_equals_diffusers_wan_on_the_same_weights(tmp_path):
    """Shared modulation, QK-norm across heads, cross-attention, 3D RoPE: Wan 2.1's block,
    reduced."""
    theirs = WanTransformer3DModel(
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=24,
        ffn_dim=112,
        text_dim=20,
        in_channels=4,
        out_channels=4,
        freq_dim=256,
    ).eval()
    init_benchmark_weights(theirs, 0)
    model = own(
        DiTConfig(
            **{
                **DIT,
                "width": 48,
                "mlp_ratio": 112 / 48,
                "text": "cross",
                "text_width": 20,
                "text_tokens": 9,
                "modulation": "shared",
                "qk_norm": "across_heads",
                "rope_axes": (8, 8, 8),
            }
        )
    )
    save_file(theirs.state_dict(), tmp_path / "wan.safetensors")
    load_dit(model, tmp_path / "wan.safetensors")
    x, t, text = torch.randn(2, 4, 3, 4, 6), torch.tensor([3.0, 870.0]), torch.randn(2, 9, 20)
    expected = theirs(x, t, text).sample
    assert expected.std() > 0.1
    assert (model(x, t / 1000, text=text) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("wrapped", [False, True])
@torch.no_grad()
def test_official_torch_files_load(tmp_path, wrapped):
    model, other = own(DiTConfig(**IMAGE)), own(DiTConfig(**IMAGE), seed=5)
    state = official(model)
    torch.save({"ema": state} if wrapped else state, tmp_path / "dit.pt")
    load_dit(other, tmp_path / "dit.pt")
    x, t, labels = torch.randn(1, 4, 1, 8, 8), torch.rand(1), torch.tensor([3])
    assert torch.equal(model(x, t, labels=labels), other(x, t, labels=labels))


@torch.no_grad()
def test_sit_turns_time_and_velocity_round():
    model = own(DiTConfig(**IMAGE))
    x, labels = torch.randn(1, 4, 1, 8, 8), torch.tensor([3])
    got = SiT(model)(x, torch.tensor([0.25]), labels=labels)
    torch.testing.assert_close(got, -model(x, torch.tensor([0.75e-3]), labels=labels)[:, :4])


def test_embedders_that_differ_between_blocks_are_refused():
    state = public(DiTConfig(**IMAGE), 8).state_dict()
    with pytest.raises(ValueError, match=r"norm1\.emb.* differs from block 0's"):
        from_diffusers(state)


class Bad:
    def __reduce__(self):
        return (print, ("executed",))


def test_files_that_cannot_be_loaded_are_one_line(tmp_path, capsys):
    model = own(DiTConfig(**IMAGE))
    narrow = official(model)
    narrow["final_layer.linear.bias"] = torch.zeros(3)
    lacking = {k: v for k, v in official(model).items() if k != "blocks.1.attn.qkv.bias"}
    torch.save(narrow, tmp_path / "narrow.pt")
    torch.save(lacking, tmp_path / "lacking.pt")
    torch.save({**official(model), "blocks.2.attn.qkv.bias": torch.zeros(1)}, tmp_path / "deep.pt")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Bad()))
    torch.save({"x": Bad()}, tmp_path / "code.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"12345678{")
    (tmp_path / "weights.npz").write_bytes(b"")
    for name, words in {
        "narrow.pt": r"final_layer.linear.bias has shape \(3,\), the config needs \(32,\)",
        "lacking.pt": r"blocks.1.attn.qkv.bias is missing \(1 of",
        "deep.pt": r"blocks.2.attn.qkv.bias has no place",
        "other.pt": "neither DiT's, SiT's, Wan's nor diffusers' names",
        "list.pt": "a mapping of names to tensors is expected",
        "pickle.pt": "not executed|damaged",
        "code.pt": "not executed",
        "torn.safetensors": "not a safetensors file",
        "weights.npz": ".npz is not one of",
        "absent.pt": "no such file",
    }.items():
        with pytest.raises(ValueError, match=words) as caught:
            load_dit(model, tmp_path / name)
        assert "\n" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out
