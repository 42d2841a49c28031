"""ldt-bench: a latent-diffusion-transformer benchmark harness.  Data flows configs -> models ->
count -> measure -> calibrate -> report; `docs/architecture.md` says which room holds what."""
