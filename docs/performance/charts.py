"""The pictures: which results each shows, under a title that says what is to be seen in it."""

from read import Results, median, number, paired, quantile, rate, ratio, reference, size
from svg import Axis, Series, chart

KIB = 1 << 10


def kib(value: float) -> str:
    return f"{value / KIB:g} KiB" if value >= KIB else f"{value:g} B"


def along(points: list, by: str, of) -> list:
    """A line from points; what is not known is left out."""
    pairs = ((point[by], of(point)) for point in points)
    return [(x, y) for x, y in pairs if y is not None]


def connections(results: Results) -> str:
    points = results.get("connections")["points"]
    counts = [point["connections"] for point in points]
    share = ratio(points[-1], "accept", "bare")
    names = (("accept", "published"), ("inbound", "received, Stripe"), ("cycle", "delivered, settled"))
    lines = [Series(name, along(points, "connections", lambda p, s=s: rate(p, s))) for s, name in names]
    bare = Series("bare server", along(points, "connections", lambda p: reference(p, "bare")), reference=True)
    title = f"At {counts[-1]} connections durable accepts come to {number(share, 2)} of a bare HTTP server"
    return chart(title, Axis("connections", log=True, ticks=counts), Axis("events per second", log=True), [bare, *lines])


def bodies(results: Results) -> str:
    points = results.get("bodies")["points"]
    sizes = [point["body_bytes"] for point in points]
    moved = rate(points[-1], "accept") * sizes[-1]
    names = (("accept", "published"), ("cycle", "delivered, settled"))
    lines = [Series(name, along(points, "body_bytes", lambda p, s=s: rate(p, s))) for s, name in names]
    bare = Series("bare server", along(points, "body_bytes", lambda p: reference(p, "bare")), reference=True)
    title = f"Bodies of {kib(sizes[-1])} come to the disk at {size(moved)} per second"
    x = Axis("bytes of a body, 64 connections", log=True, ticks=sizes, text=kib)
    return chart(title, x, Axis("events per second", log=True), [bare, *lines])


def fan_out(results: Results) -> str:
    points = results.get("fan_out")["points"]
    line = along(points, "endpoints", lambda p: rate(p, "fan-out", "deliveries_per_s"))
    events = along(points, "endpoints", lambda p: rate(p, "fan-out"))
    title = f"{number(line[0][1])} deliveries per second to one endpoint, {number(line[-1][1])} to {line[-1][0]} for each event"
    x = Axis("endpoints that take each event", log=True, ticks=[point["endpoints"] for point in points])
    return chart(title, x, Axis("per second"), [Series("deliveries", line), Series("events", events, reference=True)])


def latency(results: Results) -> str:
    points, names = results.get("latency")["points"], ("p50", "p90", "p99", "p999")
    lines = [
        Series(f"{number(p['rate_per_s'])}/s", [(i, quantile(p, "cycle", "arrival_us", n)) for i, n in enumerate(names)])
        for p in points
    ]
    disk = [median(r["disk"]["overwrite"]["sync_us"][n] / 1e3 for p in points for r in p["rounds"]) for n in names]
    lines.append(Series("one sync of the disk", list(enumerate(disk)), reference=True))
    last = quantile(points[0], "cycle", "arrival_us", "p99")
    title = f"99 of 100 events are delivered {number(last, 2)} ms after they were sent, at {points[0]['rate_per_s']}/s"
    x = Axis("share of events", ticks=[0, 1, 2, 3], text=lambda i: ("50 %", "90 %", "99 %", "99.9 %")[int(i)])
    return chart(title, x, Axis("milliseconds from planned to arrived", log=True), lines)


def memory(results: Results) -> str:
    points = results.get("pending")["points"]
    line = [(point["pending"], point["rss_bytes"]) for point in points]
    each = (line[-1][1] - line[0][1]) / max(line[-1][0] - line[0][0], 1)
    title = f"A pending delivery takes {number(each)} bytes of memory"
    y = Axis("resident memory", text=size)
    target = Series("target", [(line[0][0], 250e6), (line[-1][0], 250e6)], reference=True)
    return chart(title, Axis("deliveries pending"), y, [target, Series("gateway", line)])


def growth(results: Results) -> str:
    lines, ends = [], []
    for section, name in (("pending", "pending"), ("stored", "stored")):
        points = [p for p in (results.get(section) or {"points": []})["points"] if p[name] > 100]
        lines.append(Series(name, along(points, name, lambda p: paired(p["accepts_per_s"]))))
        ends += [point[name] for point in points]
    target = Series("target", [(min(ends), 0.9), (max(ends), 0.9)], reference=True)
    last = lines[-1].points[-1]
    title = f"With {number(last[0])} events stored a gateway accepts {number(last[1], 2)} of what an empty one does"
    x = Axis("events stored, or deliveries pending", log=True)
    return chart(title, x, Axis("accepts per second ÷ those of an empty gateway"), [target, *lines])


def start(results: Results) -> str:
    line = along(results.get("stored")["points"], "stored_at_start", lambda p: median(p["start_s"]))
    title = f"After SIGKILL with {number(line[-1][0])} events stored the first is answered in {number(line[-1][1], 2)} s"
    target = Series("target", [(line[0][0], 2.0), (line[-1][0], 2.0)], reference=True)
    x = Axis("events stored", log=True)
    return chart(title, x, Axis("seconds from start to the first answer"), [target, Series("start", line)])


def wear(results: Results) -> str:
    said = results.get("costs")
    line = along(by_rate(said), "rate_per_s", lambda p: p["disk_bytes"])
    title = f"A full cycle writes {size(line[-1][1])} under load, and {size(line[0][1])} where each event is alone"
    target = Series("target", [(line[0][0], 1_900), (line[-1][0], 1_900)], reference=True)
    x = Axis("events per second, bodies of 1 KiB", log=True)
    y = Axis("bytes written to the disk for each", log=True, text=size)
    return chart(title, x, y, [target, Series("gateway", line)])


def processor(results: Results) -> str:
    line = along(by_rate(results.get("costs")), "rate_per_s", lambda p: p["cpu_us"])
    title = f"A full cycle takes {number(line[-1][1], 2)} µs of a core under load"
    target = Series("target", [(line[0][0], 90), (line[-1][0], 90)], reference=True)
    x = Axis("events per second, bodies of 1 KiB", log=True)
    y = Axis("processor time of the gateway for each, in µs", log=True)
    return chart(title, x, y, [target, Series("gateway", line)])


def by_rate(said: dict) -> list[dict]:
    """What a cycle costs at each rate; last in a closed loop."""
    closed = next(row for row in said["bodies"] if row["body_bytes"] == KIB)
    return [*said["rates"], closed | {"rate_per_s": closed["events_per_s"]}]


def retention(results: Results) -> str:
    said = results.get("retention")
    samples, buckets = said["samples"], 20
    line, before = [], samples[0]
    for row in samples[1:]:
        if row[1] - before[1] >= said["events"] / buckets:
            line.append((row[1], (row[1] - before[1]) / (row[0] - before[0])))
            before = row
    first = said["first_tenth_per_s"]
    target = Series("first tenth", [(line[0][0], first), (line[-1][0], first)], reference=True)
    kept = size(said["retention_bytes"])
    title = f"Through a journal of {kept} the last tenth passes at {number(said['last_tenth_per_s'] / first, 2)} of the first"
    return chart(title, Axis("events so far"), Axis("accepts per second"), [target, Series("accepted", line)])


def drain(results: Results) -> str:
    said = results.get("drain")
    line = [(at_s, drained) for at_s, drained in said["samples"]]
    cycle = median(said["cycle_per_s"])
    end_s = line[-1][0]
    share = said["drained_per_s"] / cycle
    title = f"{number(said['backlog'])} deliveries due at once are drained at {number(share, 2)} of the cycle's rate"
    at_cycle = Series("at the cycle's rate", [(0, 0), (end_s, min(end_s * cycle, said["backlog"]))], reference=True)
    return chart(title, Axis("seconds"), Axis("deliveries made"), [at_cycle, Series("drained", [(0, 0), *line])])


# By file; each needs these sections.
CHARTS = {
    "connections": (connections, ["connections"]),
    "bodies": (bodies, ["bodies"]),
    "fan-out": (fan_out, ["fan_out"]),
    "latency": (latency, ["latency"]),
    "memory": (memory, ["pending"]),
    "growth": (growth, ["pending", "stored"]),
    "start": (start, ["stored"]),
    "wear": (wear, ["costs"]),
    "processor": (processor, ["costs"]),
    "drain": (drain, ["drain"]),
    "retention": (retention, ["retention"]),
}
