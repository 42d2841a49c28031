"""Two git revisions of a repository, each in a worktree, and a stage of both timed in turns."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.core.errors import EnvironmentFault, UserError
from bench.core.presets import is_path
from bench.measure.turns.turns import MODULE, Asked, Block, Side, take_turns, time_until_clear
from bench.studies.compare.shared import THRESHOLD
from bench.studies.compare.verdict import Verdict, judge

HERE = "the working tree"


@dataclass(frozen=True)
class Checkout:
    """A revision's files."""

    name: str
    folder: Path
    """Where `ldt-bench` would be called from."""
    code: Path | None
    """This package's own source in it; None: the installed one is run."""


@dataclass(frozen=True)
class StepChange:
    """A stage of one point at two revisions.  Provenance: measured in turns; FLOPs counted."""

    point: str
    stage: str
    a_s: float
    b_s: float
    ratio: float
    """Seconds of b over seconds of a."""
    low: float
    high: float
    pairs: int
    """Of processes, each with a few rounds."""
    flops_a: int
    flops_b: int
    threshold: float
    verdict: Verdict


@contextlib.contextmanager
def checkout(revision: str | None) -> Iterator[Checkout]:
    """A revision in a worktree of its own, which is gone afterwards; None: the files as they are.

    Raises UserError for what is no revision, EnvironmentFault without git."""
    top = Path(_git("rev-parse", "--show-toplevel"))
    within = Path.cwd().resolve().relative_to(top.resolve())
    if revision is None:
        yield Checkout(HERE, Path.cwd(), _own_code(top, HERE))
        return
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="ldt-bench-") as folder:
        tree = Path(folder) / "tree"
        _git("worktree", "add", "--detach", "--quiet", str(tree), commit)
        try:
            yield Checkout(revision, tree / within, _own_code(tree, revision))
        finally:
            _git("worktree", "remove", "--force", str(tree))


def is_revision(text: str) -> bool:
    """Does git know a commit of this name here?"""
    try:
        _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}")
    except (UserError, EnvironmentFault):
        return False
    return True


def steps_of(
    a: Checkout,
    b: Checkout,
    points: Sequence[Asked],
    *,
    threshold: float | None,
    max_s: float,
    watch: Callable[[str], None] = lambda said: None,
) -> list[StepChange]:
    """Each point's stage at both, in turns.  max_s: of one point; where its ratio is unclear, it is
    measured again within it.  Raises UserError where a side cannot build a point."""
    return [_step(a, b, point, threshold, max_s, watch) for point in points]


def _step(
    a: Checkout,
    b: Checkout,
    asked: Asked,
    threshold: float | None,
    max_s: float,
    watch: Callable[[str], None],
) -> StepChange:
    pairs = _Pairs(a, b, asked, watch)

    def limit() -> float:
        return THRESHOLD[pairs.device] if threshold is None else threshold

    def is_clear(ratio: tuple[float, float, float]) -> bool:
        return judge(*ratio, limit()) != "UNCLEAR"

    turns = time_until_clear(pairs.block, is_clear, time.monotonic, max_s)
    return StepChange(
        point=asked.label,
        stage=asked.stage,
        a_s=median(s for block in turns.blocks for s in block.a_s),
        b_s=median(s for block in turns.blocks for s in block.b_s),
        ratio=turns.ratio[0],
        low=turns.ratio[1],
        high=turns.ratio[2],
        pairs=len(turns.blocks),
        flops_a=pairs.flops[0],
        flops_b=pairs.flops[1],
        threshold=limit(),
        verdict=judge(*turns.ratio, limit()),
    )


@dataclass
class _Pairs:
    """Fresh pairs of processes, one after another."""

    a: Checkout
    b: Checkout
    asked: Asked
    watch: Callable[[str], None]
    taken: int = 0
    flops: tuple[int, int] = (0, 0)
    device: str = "cpu"

    def block(self) -> Block:
        """Both build at once, and then take turns."""
        count = self.taken == 0
        self.taken += 1
        self.watch(f"{self.asked.label}: pair {self.taken}")
        with _side(self.a, self.asked, count) as a, _side(self.b, self.asked, count) as b:
            (flops_a, _), (flops_b, self.device) = a.built(), b.built()
            if count:
                self.flops = flops_a, flops_b
            return take_turns([a.visit, b.visit])


def _side(checkout: Checkout, asked: Asked, count: bool) -> Side:
    if is_path(asked.model) and not (checkout.folder / asked.model).is_file():
        raise UserError(f"{checkout.name}: it has no {asked.model}")
    return Side(checkout.name, checkout.folder, asked, count=count, code=checkout.code)


def _own_code(tree: Path, name: str) -> Path | None:
    """A checkout of this package runs its own code."""
    if not (tree / "bench" / "cli.py").is_file():
        return None
    if not (tree / Path(*MODULE.split(".")).with_suffix(".py")).is_file():
        raise UserError(f"{name}: this revision of ldt-bench is older than timing in turns")
    return tree


def _git(*words: str) -> str:
    """What git says, without its line end."""
    try:
        done = subprocess.run(
            ["git", *words],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError:
        raise EnvironmentFault("git was not found; revisions need it") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"no commit {words[-1][:60]}"])[-1]
        raise UserError(f"git {words[0]}: {said.removeprefix('fatal: ')}")
    return done.stdout.strip()
