"""The models that are measured: PyTorch modules, usable without the harness.  `models.spec` needs
no torch."""

import logging
import os

# diffusers looks for every optional package as it is imported.  What it then says of a torchao
# whose CUDA kernels this build
# of PyTorch cannot load concerns none of what is run here, and would stand before the output of
# every command.
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
