"""A source's address, from the words that name it."""

import csv

import pytest

from bench.core.sources import source_url
from support.paths import ROOT


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("see https://a.org/x_y; and more", "https://a.org/x_y"),
        ("DiT (arXiv 2212.09748), Table 1", "https://arxiv.org/abs/2212.09748"),
        (
            "github vllm-project/vllm-omni PR #1221 (2026-02-05)",
            "https://github.com/vllm-project/vllm-omni/pull/1221",
        ),
        (
            "Dao-AILab/flash-attention issue #1310",
            "https://github.com/Dao-AILab/flash-attention/issues/1310",
        ),
        (
            "github Wan-Video/Wan2.2@42bf4cfa README Computational Efficiency",
            "https://github.com/Wan-Video/Wan2.2/tree/42bf4cfa",
        ),
        (
            "github hao-ai-lab/FastVideo@2f3d4074 docs/inference/optimizations.md",
            "https://github.com/hao-ai-lab/FastVideo/blob/2f3d4074/docs/inference/optimizations.md",
        ),
        (
            "stas00/ml-engineering compute/accelerator/README.md@b9e29720",
            "https://github.com/stas00/ml-engineering/blob/b9e29720/compute/accelerator/README.md",
        ),
        (
            "deploybase.ai/articles/runpod-gpu-pricing: RunPod",
            "https://deploybase.ai/articles/runpod-gpu-pricing",
        ),
        ("a panel's notes (2024)", None),
        ("", None),
    ],
)
def test_addresses(text, url):
    assert source_url(text) == url


def test_every_published_latency_can_be_read_somewhere():
    for name in ("published_latency.csv", "published_multi_gpu.csv"):
        with (ROOT / "configs" / "reference" / name).open() as file:
            nowhere = [row["id"] for row in csv.DictReader(file) if not source_url(row["source"])]
        assert nowhere == []
