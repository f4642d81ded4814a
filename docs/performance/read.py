"""What the results say: medians, ratios of one run, and words for figures."""

import json
import statistics
from pathlib import Path


class Results:
    """Results by section; what was not measured is None."""

    def __init__(self, directory: Path):
        self.files = {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}

    def get(self, section: str):
        found = self.files.get(section)
        return found["result"] if found else None

    @property
    def quick(self) -> list[str]:
        """Sections of which there is only a smoke run."""
        return [name for name, found in self.files.items() if found["quick"]]

    def point(self, section: str, name: str, value):
        """The point of a series of points where `name` is `value`."""
        return next((p for p in (self.get(section) or {}).get("points", []) if p[name] == value), None)

    def cargo(self, section: str, at_end: str, what: str):
        """A result of `cargo bench`: of this series, at the last point or at the one that begins so."""
        rows = [row for row in (self.get(section) or {}).get("results", []) if row["what"] == what]
        return next((row for row in rows[::-1] if row["at"].startswith(at_end)), None)


def median(values) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def rate(point: dict | None, scenario: str, name: str = "events_per_s") -> float | None:
    """The median over rounds of a figure of a scenario."""
    return point and median(row["scenarios"][scenario].get(name) for row in point["rounds"])


def quantile(point: dict | None, scenario: str, of: str, which: str) -> float | None:
    """The median over rounds of a quantile, in milliseconds."""
    if not point:
        return None
    told = [row["scenarios"][scenario].get(of) for row in point["rounds"]]
    us = median(times and times[which] for times in told)
    return None if us is None else us / 1e3


def reference(point: dict | None, name: str) -> float | None:
    return point and median(row["references"].get(name) for row in point["rounds"])


def ratio(point: dict | None, scenario: str, to: str) -> float | None:
    """The median of the rounds' ratios to a reference or to another scenario: what slows a round slows both."""
    if not point:
        return None
    return median(
        row["scenarios"][scenario]["events_per_s"] / (row["references"].get(to) or row["scenarios"][to]["events_per_s"])
        for row in point["rounds"]
    )


def paired(pairs: list) -> float | None:
    """The median ratio of the second to the first."""
    return median(second / first for first, second in pairs)


def number(value: float | None, digits: int = 3) -> str:
    """So many significant digits at least, with commas; all of what is before the point."""
    if value is None:
        return "not told"
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        places = digits - len(str(int(abs(value))))
        return f"{round(value, min(places, 0)):,.0f}"
    return f"{float(f'{value:.{digits}g}'):g}"


def size(value: float | None) -> str:
    """Bytes in the unit that suits, by 1,000."""
    if value is None:
        return "not told"
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{number(value / unit)} {name}"
    return f"{value:.0f} B"
