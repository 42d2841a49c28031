"""One rank of a group, started by torch's elastic launcher (`bench.measure.group.launch`)."""

import argparse
import signal
from pathlib import Path

from bench.measure.worker.parent import die_with_parent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    # After the signal is set, since importing torch takes seconds.
    from bench.measure.group.member import take_part

    take_part(args.events, args.folder, args.device, args.threads)


if __name__ == "__main__":
    main()
