"""The two branches of classifier-free guidance, each on ranks of its own."""

from torch import Tensor

from models.parallel.mesh import Ranks


class Branches:
    """Rank 0 of the axis answers with the condition, rank 1 without."""

    def __init__(self, ranks: Ranks):
        self.ranks = ranks

    @property
    def conditional(self) -> bool:
        """Does this rank answer with the condition?"""
        return self.ranks.index == 0

    def both(self, mine: Tensor) -> tuple[Tensor, Tensor]:
        """This rank's answer -> the answers with and without the condition."""
        with_condition, without = self.ranks.gather(mine).unbind(0)
        return with_condition, without
