"""What a version of a library is known to do to a measurement.  No torch."""

VAE_STAGES = ("vae_decode", "vae_encode", "condition_encode")


def slow_conv3d(torch_version: str) -> str | None:
    """Why 3D convolutions on CUDA are slow under this torch; None where they are not."""
    if not torch_version.startswith("2.9."):
        return None
    return (
        f"torch {torch_version} runs bfloat16 conv3d without cuDNN (pytorch#174051): a VAE takes 10"
        " to 20 times as long; install 2.8, or 2.10 to 2.13"
    )


def fault_of(device: str, torch_version: str, stages: tuple[str, ...]) -> str | None:
    """What a record of these stages is to say of the software that it was made with.  device: cpu
    or cuda."""
    touched = device == "cuda" and any(stage in VAE_STAGES for stage in stages)
    return slow_conv3d(torch_version) if touched else None
