#!/usr/bin/env python3
"""Measures what docs/performance.md tells: `python3 docs/performance/measure.py`, or with the names of some sections.

Each section writes `docs/performance/results/SECTION.json` as soon as it is done, so a run can be broken off and taken up
again section by section. Then `python3 docs/performance/plot.py` renews the document. Needs Linux, cargo, and Python 3
with nothing else.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import lives
import machine
import rounds
from gateway import Run, environment

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = HERE / "results"

# In this order; minutes on a quiet machine of two cores.
SECTIONS = {
    "idle": (1, rounds.idle, "memory and processor time of a gateway that does nothing; the binary"),
    "connections": (8, rounds.connections, "accept, inbound, cycle and a bare server at 1 to 256 connections"),
    "steady": (3, lives.steady, "a minute of accepts; how far the key space lags"),
    "bodies": (3, rounds.bodies, "accept and cycle with bodies of 128 B to 256 KiB"),
    "fan_out": (4, rounds.fan_out, "deliveries with 1 to 20 endpoints for each event"),
    "latency": (4, rounds.latency, "from sent to delivered at 200/s and 2,000/s"),
    "costs": (4, lives.costs, "processor time and bytes written for a cycle, by body and by rate; bytes stored"),
    "pending": (6, lives.pending, "memory and accepts with up to 1,000,000 deliveries pending"),
    "due": (3, rounds.due, "the next 100 due of up to 1,000,000, beside sled's own scan"),
    "drain": (3, lives.drain, "1,000,000 deliveries due at one moment"),
    "dead": (3, lives.dead, "others' throughput beside a dead endpoint with 500,000 pending"),
    "start": (3, lives.start, "start after SIGKILL with 1,000,000 events, with and without dedup keys"),
    "rebuild": (2, rounds.rebuild, "a lost key space built anew, beside sled's own inserts"),
    "stored": (7, lives.stored, "accepts, start and disk with up to 10,000,000 events stored"),
    "retention": (5, lives.retention, "10,000,000 events through a journal of 100 MB"),
}


def arguments() -> argparse.Namespace:
    about = "\n".join(f"  {name:<12} {minutes:>2} min  {what}" for name, (minutes, _, what) in SECTIONS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"sections:\n{about}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="what to measure; all of it by default")
    parser.add_argument("--quick", action="store_true", help="a smoke run: small counts, short times, one round")
    parser.add_argument("--missing", action="store_true", help="only what has no result of a full run yet")
    parser.add_argument("--program", type=Path, help="the binary [default: that of `cargo build --release`]")
    parser.add_argument("--data", type=Path, help="a directory on the disk that is measured [default: the build's]")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results go")
    args = parser.parse_args()
    unknown = [name for name in args.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no such section: {', '.join(unknown)}; expected some of {', '.join(SECTIONS)}")
    return args


def build(target: Path) -> Path:
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    return target / "release" / "postrider"


def has_full(path: Path) -> bool:
    return path.exists() and not json.loads(path.read_text())["quick"]


def measure(name: str, run: Run, results: Path, version: str) -> None:
    minutes, section, what = SECTIONS[name]
    print(f"{name}: {what}" + ("" if run.quick else f" (about {minutes} min)"), flush=True)
    before, began = machine.describe(run.data), time.monotonic()
    run.commands.clear()
    said = section(run)
    result = {
        "section": name,
        "quick": run.quick,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "machine": before,
        "versions": {"postrider": version, "commit": machine.commit(ROOT), "python": platform.python_version()},
        "commands": list(run.commands),
        "result": rounded(said),
    }
    results.mkdir(parents=True, exist_ok=True)
    # Whole or not at all, so that what is broken off leaves the result before it.
    part = results / f"{name}.json.part"
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(results / f"{name}.json")


def rounded(value):
    """Five digits are more than any of it is worth."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> int:
    args = arguments()
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    program = (args.program or build(target)).resolve()
    data = (args.data or target / "performance").resolve()
    data.mkdir(parents=True, exist_ok=True)
    if machine.file_system(data) == "tmpfs":
        print("the directory is in memory, where syncs cost nothing: give --data on a disk", file=sys.stderr)
    run = Run(program=program, root=ROOT, data=data, quick=args.quick)
    names = args.sections or list(SECTIONS)
    if args.missing:
        names = [name for name in names if not has_full(args.results / f"{name}.json")]
    asked = subprocess.run([program, "--version"], capture_output=True, text=True, env=environment(), check=True)
    if not args.quick:
        print(f"{len(names)} sections, about {sum(SECTIONS[name][0] for name in names)} min", flush=True)
    failed = []
    for name in names:
        try:
            measure(name, run, args.results, asked.stdout.strip())
        except Exception as error:  # The other sections are worth having all the same.
            failed.append(name)
            print(f"{name} FAILED: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
