"""Peak bytes of the tensors that are alive while a call runs, modelled by following storages; on
meta nothing is held.

Modelled as eager execution: a tensor lives until the last reference goes, and an operator's result
beside its operands. Weights and inputs made before the call are not in it, nor are workspaces of
the kernels and what an allocator rounds up.
"""

import weakref
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves


class LiveBytes:
    """Storages seen so far and still alive."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._known: set[int] = set()

    def see(self, out: Any) -> None:
        """Take in an operator's results; views of a known storage add nothing."""
        for tensor in tree_leaves(out):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._known:
                continue
            size = storage.nbytes()
            self._known.add(key)
            self.now += size
            weakref.finalize(storage, self._gone, key, size)
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
