"""The targets, and what was measured of each."""

from dataclasses import dataclass

from read import Results, median, number, paired, quantile, rate, ratio, size


@dataclass
class Target:
    """A line of the table: met if the figure is at least, or at most, the limit."""

    what: str
    least: bool
    limit: float
    value: float | None
    section: str
    show: object = number

    def line(self) -> str:
        wanted = f"{'≥' if self.least else '≤'} {self.show(self.limit)}"
        by = f"`{self.section}`"
        if self.value is None:
            return f"| {self.what} | {wanted} | not measured | | {by} |"
        share = number(self.value / self.limit, 2)
        met = self.value >= self.limit if self.least else self.value <= self.limit
        return f"| {self.what} | {wanted} | {self.show(self.value)} | {share if met else f'**{share}**'} | {by} |"


def unit(name: str, digits: int = 2):
    """Shows a figure with its unit."""
    return lambda value: f"{number(value, digits)} {name}"


ms, seconds, us, whole_bytes = unit("ms"), unit("s"), unit("µs"), unit("B", 4)


def per_s(value: float) -> str:
    return f"{number(value)}/s"


def percent(value: float) -> str:
    return f"{number(value * 100, 2)} %"


def share(value: float) -> str:
    return f"{value:.2f}"


def targets(results: Results) -> list[Target]:
    return [*intake(results), *cycle(results), *backlog(results), *lasting(results)]


def intake(results: Results) -> list[Target]:
    at = {count: results.point("connections", "connections", count) for count in (1, 64, 256)}
    rows = []
    for count, limit in ((64, 0.45), (256, 0.65)):
        minute = results.point("steady", "connections", count)
        over = minute and minute["events_per_s"] / median(minute["bare_per_s"])
        what = f"published, no taker ÷ bare server, {count} connections"
        rows += [
            Target(what, True, limit, ratio(at[count], "accept", "bare"), "connections", share),
            Target(f"the same over {minute['seconds'] if minute else 60} s", True, limit, over, "steady", share),
            Target("key space's lag at its end ÷ after 10 s", False, 1.0, lag(minute), "steady", share),
        ]
    appended, overwritten = (ratio(at[1], "accept", name) for name in ("append", "overwrite"))
    received = ratio(at[64], "inbound", "accept")
    return [
        *rows,
        Target("published, 1 connection ÷ append + fdatasync", True, 0.85, appended, "connections", share),
        Target("published, 1 connection ÷ overwrite + fdatasync", True, 0.6, overwritten, "connections", share),
        Target("received, Stripe, deduplicated ÷ published", True, 0.7, received, "connections", share),
    ]


def lag(minute: dict | None) -> float | None:
    return minute and minute["lag_late"]["records"] / max(minute["lag_early"]["records"], 1)


def cycle(results: Results) -> list[Target]:
    at = results.point("connections", "connections", 64)
    wide = results.point("fan_out", "endpoints", 10)
    costs = next((row for row in (results.get("costs") or {}).get("bodies", []) if row["body_bytes"] == 1_024), {})
    rows = [
        Target("full cycle, 64 connections", True, 16_500, rate(at, "cycle"), "connections", per_s),
        Target("full cycle ÷ bare server", True, 0.15, ratio(at, "cycle", "bare"), "connections", share),
        Target("fan-out 10, deliveries", True, 30_000, rate(wide, "fan-out", "deliveries_per_s"), "fan_out", per_s),
        Target("processor time per cycle", False, 90, costs.get("cpu_us"), "costs", us),
        Target("written to the disk per cycle", False, 1_900, costs.get("disk_bytes"), "costs", whole_bytes),
    ]
    for planned, limit in ((200, 8), (2_000, 15)):
        late = beyond_the_disk(results.point("latency", "rate_per_s", planned))
        what = f"p99 from sent to delivered, {number(planned)}/s, beyond the disk's own"
        rows.append(Target(what, False, limit, late, "latency", ms))
    return rows


def beyond_the_disk(point: dict | None) -> float | None:
    """What the 99th percentile is above that of one sync, in milliseconds."""
    if not point:
        return None
    sync = median(row["disk"]["overwrite"]["sync_us"]["p99"] for row in point["rounds"])
    return max(quantile(point, "cycle", "arrival_us", "p99") - sync / 1e3, 0)


def backlog(results: Results) -> list[Target]:
    most = ((results.get("pending") or {}).get("points") or [None])[-1]
    count = number(most["pending"], 2) if most else "1,000,000"
    page = results.cargo("due", "1000000" if "due" not in results.quick else "100000", "due")
    drained, dead = results.get("drain"), results.get("dead") or {}
    beside = number(dead.get("pending", 500_000))
    accepts = most and paired(most["accepts_per_s"])
    rows = [
        Target(f"{count} pending a day ahead: memory", False, 250e6, most and most["rss_bytes"], "pending", size),
        Target("the same: next 100 due", False, 1, page and 1e3 / page["per_s"], "due", ms),
        Target("the same: accepts ÷ those of an empty gateway", True, 0.9, accepts, "pending", share),
        Target(
            f"{number(drained['backlog'] if drained else 1_000_000, 2)} due at one moment: drained ÷ cycle", True, 0.8,
            drained and drained["drained_per_s"] / median(drained["cycle_per_s"]), "drain", share,
        ),
    ]
    for kind in ("hangs", "refuses"):
        what = f"others' deliveries beside an endpoint that {kind}, {beside} due"
        rows.append(Target(what, True, 0.95, paired(dead[kind]) if kind in dead else None, "dead", share))
    return rows


def lasting(results: Results) -> list[Target]:
    started, idle, through = results.get("start"), results.get("idle"), results.get("retention")
    built = results.cargo("rebuild", "", "rebuild")
    events = number(started["events"], 2) if started else "1,000,000"
    rebuilt = built and built["ratios"].get("sled")
    passed = number(through["events"], 2) if through else "10,000,000"
    return [
        Target(f"start after SIGKILL, {events} events", False, 2, started and median(started["accept"]), "start", seconds),
        Target("the same, each with a dedup key", False, 5, started and median(started["inbound"]), "start", seconds),
        Target("rebuild of a lost key space ÷ sled's inserts", True, 0.8, rebuilt, "rebuild", share),
        Target("idle: memory", False, 20e6, idle and idle["rss_bytes"], "idle", size),
        Target("idle: processor", False, 0.001, idle and idle["cpu_s"] / idle["seconds"], "idle", percent),
        Target(
            f"{passed} events through {size(through['retention_bytes']) if through else '100 MB'}: last tenth ÷ first",
            True, 0.9, through and through["last_tenth_per_s"] / through["first_tenth_per_s"], "retention", share,
        ),
        Target("the same: most on the disk", False, 200e6, through and through["disk_bytes_max"], "retention", size),
        Target("release binary", False, 15e6, idle and idle["binary_bytes"], "idle", size),
    ]


def headline(results: Results) -> list[str]:
    head = ["| what | target | measured | ÷ target | section |", "| --- | --- | --- | --- | --- |"]
    return head + [target.line() for target in targets(results)]
