"""The process that starts a group's ranks by torch's elastic launcher, and says how it ended where
no rank can.  Rank 0 reads the request from this process's stdin and writes to its events.

    Started by bench.measure.worker.process; one request a group.
"""

import argparse
import json
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import Any

from bench.measure.group.marks import FAILED, named, read_marks
from bench.measure.worker.parent import die_with_parent

POLL_S = 0.1
JOIN_S = 300  # for every node's launcher
LOST = ("Connection closed by peer", "Connection reset", "recv failed", "Broken pipe", "NCCL")
"""In what a rank says whose partner went first."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events-fd", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--node", type=int, default=0)
    parser.add_argument("--endpoint")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    with os.fdopen(args.events_fd, "w", buffering=1) as events:
        reason = _too_many(args.ranks, args.device)
        ended = _run(args) if reason is None else ("skipped_unsupported", reason)
        if ended is not None:
            outcome, reason = ended
            failed = {"event": "failed", "outcome": outcome, "reason": reason, "ends": True}
            events.write(json.dumps(failed) + "\n")


def _too_many(ranks: int, device: str | None) -> str | None:
    """Why so many ranks cannot be started here."""
    if sys.platform != "linux":
        return f"parallel: {ranks} ranks are started on Linux alone"
    import torch

    cards = 0 if device == "cpu" else torch.cuda.device_count()
    if device == "cuda" and not cards:
        return "parallel: no CUDA device can be used here"
    if cards and cards < ranks:
        return f"parallel: {ranks} ranks need {ranks} GPUs, this machine has {cards}"
    cores = len(os.sched_getaffinity(0))
    if not cards and ranks > cores:
        return f"parallel: {ranks} ranks need {ranks} CPU cores, this machine has {cores}"
    return None


def _run(args: argparse.Namespace) -> tuple[str, str] | None:
    """(outcome, reason) where the group failed; None where rank 0 has said how it went."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=args.nodes,
        max_nodes=args.nodes,
        nproc_per_node=args.ranks,
        max_restarts=0,
        monitor_interval=POLL_S,
        **_rendezvous(args),
    )
    # A rank inherits no other file than stdin, so it opens this process's own end of the pipe.
    events = f"/proc/{os.getpid()}/fd/{args.events_fd}"
    command = ["-P", "-m", "bench.measure.group.rank", "--events", events]
    command += ["--folder", str(args.folder)]
    command += ["--device", args.device] if args.device else []
    command += ["--threads", str(args.threads)] if args.threads else []
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as failed:
        codes = {failure.local_rank: failure.exitcode for failure in failed.failures.values()}
        return why(codes, args.folder, args.ranks)
    return None


def _rendezvous(args: argparse.Namespace) -> dict[str, Any]:
    """Of one node by itself; over several the first one's ranks are the first."""
    if args.endpoint is None:
        rendezvous = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}
        return rendezvous | {"run_id": uuid.uuid4().hex}
    static = {"rdzv_backend": "static", "rdzv_endpoint": args.endpoint}
    return static | {"rdzv_configs": {"rank": args.node, "timeout": JOIN_S}, "run_id": "ldt-bench"}


def why(codes: dict[int, int], folder: Path, ranks: int) -> tuple[str, str]:
    """(outcome, reason) of a group whose ranks ended with these exit codes.

    A rank that was killed comes first, then the first that failed by itself: the others fail for
    want of it."""
    killed = [rank for rank, code in codes.items() if code < 0 and code != -signal.SIGTERM]
    if killed:
        number = -codes[killed[0]]
        memory = ", most likely for want of memory" if number == signal.SIGKILL else ""
        outcome = "oom" if number == signal.SIGKILL else "error"
        return outcome, f"{named(killed)} of {ranks} was killed (signal {number}){memory}"
    marks = {r: m for r, m in read_marks(folder, ranks).items() if m.state == FAILED}
    own = {r: m for r, m in marks.items() if not any(lost in m.reason for lost in LOST)}
    if own:
        first = min(own, key=lambda rank: own[rank].at)
        mark = own[first]
        alike = [rank for rank, m in own.items() if m.reason == mark.reason]
        who = "" if len(alike) == ranks else f"{named(sorted(alike))} of {ranks}: "
        return mark.outcome, f"{who}{mark.reason}"
    rank, code = min(codes.items())
    return "error", f"rank {rank} of {ranks} ended with exit code {code}"


if __name__ == "__main__":
    main()
