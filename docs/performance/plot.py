#!/usr/bin/env python3
"""Renews the pictures and the tables of docs/performance.md from `results/`: `python3 docs/performance/plot.py`.

With `--check` nothing is written: it fails if document or pictures are not what the results give. The same results give
the same bytes, so a figure in the document that was typed by hand, or left behind by new results, is found.
"""

import argparse
import re
import sys
from pathlib import Path

from charts import CHARTS
from read import Results
from tables import TABLES

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent / "performance.md"

# Bytes of a picture; more is a sign of points that nobody can tell apart.
PICTURE_BYTES_MAX = 30_000


def pictures(results: Results) -> dict[Path, str]:
    """Every picture that there are results for."""
    drawn = {}
    for name, (draw, sections) in CHARTS.items():
        if all(results.get(section) for section in sections):
            drawn[HERE / f"{name}.svg"] = draw(results)
    return drawn


def document(text: str, results: Results) -> str:
    """The document with what stands between its marks renewed."""
    known = set(re.findall(r"<!-- results: (\S+) -->", text))
    if known != TABLES.keys():
        raise SystemExit(f"{DOCUMENT.name}: expected marks for {sorted(TABLES)}, found {sorted(known)}")
    for name, make in TABLES.items():
        lines = "\n".join(make(results))
        between = re.compile(rf"(<!-- results: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = between.sub(lambda found: found[1] + (lines + "\n" if lines else "") + found[2], text)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something is not what results give")
    args = parser.parse_args()
    results = Results(HERE / "results")
    wanted = pictures(results) | {DOCUMENT: document(DOCUMENT.read_text(), results)}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    strays = [path for path in HERE.glob("*.svg") if path not in wanted]
    large = [path for path, text in wanted.items() if path.suffix == ".svg" and len(text.encode()) > PICTURE_BYTES_MAX]
    for path in large:
        print(f"{path.name}: expected {PICTURE_BYTES_MAX} bytes at most", file=sys.stderr)
    if args.check:
        for path in stale + strays:
            print(f"{path.name} is not what docs/performance/results give: run docs/performance/plot.py", file=sys.stderr)
        return 1 if stale or strays or large else 0
    for path in stale:
        path.write_text(wanted[path])
        print(path.relative_to(HERE.parent))
    for path in strays:
        path.unlink()
    return 1 if large else 0


if __name__ == "__main__":
    sys.exit(main())
