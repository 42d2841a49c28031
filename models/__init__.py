"""The models that are measured: PyTorch modules, usable without the harness.  `models.spec` needs no torch."""
