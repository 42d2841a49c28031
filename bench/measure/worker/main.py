"""The process that touches the device.  Requests come as JSON lines on stdin, events go as JSON
lines to a pipe of its own (`bench.measure.worker.serve`).

It is apart from the suite so that a crash, a hang or a poisoned CUDA context costs one point.  It
dies with its parent: by the kernel's parent-death signal on Linux, and elsewhere when its stdin
closes.
"""

import argparse
import os
import signal
import sys

from bench.measure.worker.parent import die_with_parent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events-fd", type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the parent decides
    die_with_parent()
    # After the signal is set, since importing torch takes seconds.
    from bench.measure.worker.serve import serve

    with os.fdopen(args.events_fd, "w", buffering=1) as events:
        serve(sys.stdin, events, args.device, args.threads)


if __name__ == "__main__":
    main()
