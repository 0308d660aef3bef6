"""Damage files of every format, seeded, and see that the command line stands it.

    python -m fuzz --minutes 10              cases in turn over all formats
    python -m fuzz --only gguf,onnx          of some formats
    python -m fuzz --case 0:gguf:17 --keep F one case again, its files kept

Every run has to end within 20 seconds with exit code 0, 1 or 2 and a hint behind each error,
without a trace, control characters, a gigabyte more memory than a good file takes, writing outside
its folder, a connection, a process, or code of a pickle. A case is made anew from its name alone.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

# Before torch is imported: a fork keeps no threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.dont_write_bytecode = True

from fuzz.cases import SEEDS, Case, Judged, planned, prepared  # noqa: E402


def main() -> int:
    told = _arguments()
    kinds = told.only.split(",") if told.only else list(SEEDS)
    counts: Counter[str] = Counter()
    codes: Counter[int] = Counter()
    bad: Counter[str] = Counter()
    guarded: Counter[str] = Counter()
    stopped: list[bool] = []  # by Ctrl-C: the counts are told nevertheless
    end = time.monotonic() + 60 * told.minutes
    with prepared() as cases:
        if told.case:
            judged = cases.judged(Case.named(told.case), told.keep)
            _told(judged)
            sys.stdout.write(judged.ran.out.decode(errors="replace"))
            sys.stdout.write(judged.ran.err.decode(errors="replace"))
            return bool(judged.faults)
        signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
        for case in planned(told.seed, kinds):
            if stopped or time.monotonic() > end or counts.total() == told.cases > 0:
                break
            judged = cases.judged(case)
            counts[case.kind] += 1
            codes[judged.ran.code] += 1
            if judged.faults:
                bad[case.kind] += 1
                _told(judged)
            elif judged.unforeseen:
                guarded[case.kind] += 1
                print(f"guarded {case.name}: {judged.unforeseen[:300]}", flush=True)
    for kind in kinds:
        print(f"{kind:20} {counts[kind]:6} cases, {bad[kind]} bad, {guarded[kind]} guarded alone")
    ended = ", ".join(f"{code}: {number}" for code, number in sorted(codes.items()))
    print(f"{counts.total()} cases of seed {told.seed}, {bad.total()} bad; exit codes {ended}")
    return bool(bad)


def _told(judged: Judged) -> None:
    verdict = "; ".join(judged.faults) or "good"
    words = " ".join(judged.arguments)
    print(f"case {judged.case.name}: {verdict} ({judged.ran.seconds:.1f} s) [{words}]", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5, help="to go on for (default 5)")
    parser.add_argument("--cases", type=int, default=0, help="to stop after, if that is earlier")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument("--only", help=f"formats, with commas: {', '.join(SEEDS)}")
    parser.add_argument("--case", help="one case by its name, SEED:FORMAT:NUMBER")
    parser.add_argument("--keep", type=Path, help="folder for the files of that case")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
