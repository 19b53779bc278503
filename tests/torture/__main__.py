"""Run all parts, print what was tried and what became of it; exit code 1 if anything was wrong."""

import argparse
import os
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from torture.tally import Tally

PARTS = {
    "readers": "hostile images before every command that reads images",
    "loaders": "hostile models, indices and other files of ours before all that load them",
    "flips": "single bits flipped in cached features, embeddings and cluster files",
    "server": "hostile images sent to a server, and lying in the collection that it serves",
    "fuzz": "fuzzing of the triplet parser, the partition reader and the model header",
    "compiled": "compile killed at over twenty instants, and hostile compiled files",
    "commands": "every command with odd values of every flag, and odd inputs",
    "kills": "every long command killed at random moments, and run again",
    "interrupts": "every command stopped by Ctrl-C or SIGTERM at random moments",
    "raters": "a server killed a hundred times while people answer its questions",
    "faults": "full disks, closed folders, damaged checkpoints",
}
CHOOSING = {"kills", "faults"}


def main():
    parser = argparse.ArgumentParser(
        prog="torture", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="COMMAND",
        help="of kills and faults, those of the commands of these names, such as 'sample .gz'",
    )
    args = parser.parse_args()
    chosen = {} if args.only is None else {"only": args.only}
    if chosen and not set(args.parts) <= CHOOSING:
        parser.error(f"--only needs --parts, of {' and '.join(sorted(CHOOSING))}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that all is taken away
    # A job in the background of a script ignores Ctrl-C, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    whole = Tally()
    began = time.monotonic()
    for name in args.parts:
        print(f"{name}: {PARTS[name]}", flush=True)
        tally = Tally()
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="torture-") as folder:
            os.environ["DEEP_RANKING_CACHE"] = str(Path(folder) / "cache")
            import_module(f"torture.{name}").run(tally, Path(folder), args.seed, **chosen)
        print(f"  {describe(tally)}; {time.monotonic() - start:.0f} s", flush=True)
        whole.add(tally)
    print(f"\n{describe(whole)}; {(time.monotonic() - began) / 60:.1f} minutes")
    print("Nothing lost." if whole.is_clean else "NOT CLEAN: see the lines above.")
    return 0 if whole.is_clean else 1


def describe(tally):
    """Give the counts in one line."""
    counts = {
        "inputs": tally.tried,
        "accepted": tally.accepted,
        "refused": tally.refused,
        "kills survived": tally.kills,
        "interrupts": tally.interrupts,
        "faults survived": tally.faults,
        "states lost": tally.lost,
        "crashes": tally.crashes,
        "hangs": tally.hangs,
        "wrong answers": tally.wrong,
    }
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
