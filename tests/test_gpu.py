"""The same code path on a CUDA device.  Run with: python -m pytest -m gpu"""

import json
from pathlib import Path

import pytest
import torch
from conftest import cli

from bench.core.load import load, load_point
from bench.core.spec import Suite
from bench.core.store import point_records, read_records
from bench.measure.clock import CudaClock
from bench.measure.environment import choose_device, describe
from bench.measure.telemetry import read_telemetry

pytestmark = pytest.mark.gpu


def test_micro_suite_on_cuda(micro_suite, tmp_path):
    done = cli("run", str(micro_suite), "--device", "cuda", "--out", str(tmp_path), timeout=300)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["outcomes"]["ok"] == 6
    for record in point_records(read_records(Path(summary["result_dir"]))):
        assert record.environment.device == "cuda"
        assert record.memory.peak_allocated >= record.memory.weights


def test_events_include_all_queued_work():
    device = choose_device("cuda")
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    clock = CudaClock(device)
    clock.time(lambda: a @ a)
    one, ten = clock.time(lambda: a @ a), clock.time(lambda: [a @ a for _ in range(10)])
    assert 5 < ten / one < 20


def test_out_of_memory_is_an_outcome(micro_suite, tmp_path):
    suite = load(Suite, str(micro_suite)).model_dump(mode="json", exclude={"name"})
    suite |= {"ceilings": False, "points": [{
        "model": ["tiny"], "workload": ["tiny-image"], "recipe": ["eager-fp32"], "set": {"denoiser.width": 2**18}}]}
    path = tmp_path / "oom.yaml"
    path.write_text(json.dumps(suite))
    done = cli("run", str(path), "--device", "cuda", "--out", str(tmp_path), timeout=300)
    assert json.loads(done.stdout.splitlines()[-1])["outcomes"]["oom"] == 1


def test_telemetry_and_environment_of_the_card():
    device = choose_device("cuda")
    environment, telemetry = describe(device), read_telemetry(device)
    assert environment.cuda
    assert environment.device_uuid_hash
    assert telemetry.sm_clock_hz is not None or telemetry.reason


@pytest.mark.parametrize("attention", ["flash", "cudnn", "efficient"])
def test_attention_backends_give_the_same_output(attention):
    from bench.count.count import DTYPES
    from bench.measure.sdpa import sdpa_backend
    from models.pipeline import build_pipeline, example_inputs

    point = load_point("tiny", "tiny-clip", "eager-bf16")
    model, device = point.model, choose_device("cuda")
    pipeline = build_pipeline(model.denoiser, model.vae, model.text_encoders, device=device, dtype=DTYPES["bf16"], seed=0)
    inputs = example_inputs(pipeline, batch=1, channels=4, latent_shape=model.latent_shape(point.workload), device=device,
                            dtype=DTYPES["bf16"], seed=1)

    def output(backend: str) -> torch.Tensor:
        with torch.inference_mode(), sdpa_backend(backend):
            return pipeline.predict(inputs.latents, inputs.t, inputs.condition).float()

    reference = output("math")
    assert (output(attention) - reference).norm() / reference.norm() < 0.03     # bf16 has 8 bits: 0.4 % an operation
