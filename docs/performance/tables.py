"""The tables of the document, the last of which says what a year costs."""

import math

from charts import by_rate, kib
from read import Results, median, number, paired, quantile, rate, ratio, reference, size
from targets import headline, ms

# A flash of 64 GB of the class that boards have soldered on, as its maker guarantees it.
FLASH_BYTES = 64e9
FLASH_WRITES_BYTES = 100e12

# Of a day's deliveries, what an endpoint leaves pending that is down for an hour.
PENDING_SHARE = 1 / 24

PER_DAY = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
DAY_S = 86_400


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]


def notice(results: Results) -> list[str]:
    if not results.quick:
        return []
    what = "**From a smoke run** (`--quick`) on a busy machine, worth nothing but to see that it works"
    return [f"> {what}: {', '.join(results.quick)}."]


def conditions(results: Results) -> list[str]:
    """On what, with what and when; sections that have this in common share a line."""
    alike = {}
    for name, found in results.files.items():
        on, versions = found["machine"], found["versions"]
        machine = f"{on['processor']}, {on['cores']} cores, {size(on['memory_bytes'])} of memory, {on['kernel']}"
        what = f"{found['date'][:10]}, {versions['postrider']} ({versions['commit']}), on {machine}, {on['file_system']}"
        alike.setdefault(what, []).append((name, float(on["load"].split()[0])))
    return [
        f"- {what}; load before a section {max(load for _, load in sections):g} at most: "
        f"{', '.join(name for name, _ in sections)}."
        for what, sections in alike.items()
    ]


def connections(results: Results) -> list[str]:
    points = (results.get("connections") or {"points": []})["points"]
    rows = [
        [
            str(p["connections"]), f"{number(reference(p, 'bare'))}/s", f"{number(reference(p, 'grouped'))}/s",
            f"{number(rate(p, 'accept'))}/s", f"{ratio(p, 'accept', 'bare'):.2f}",
            f"{number(rate(p, 'inbound'))}/s", f"{ratio(p, 'inbound', 'accept'):.2f}",
            f"{number(rate(p, 'cycle'))}/s", f"{ratio(p, 'cycle', 'bare'):.2f}",
        ]
        for p in points
    ]
    head = ["connections", "bare server", "append, group sync", "published", "÷ bare", "received, Stripe", "÷ published"]
    return table([*head, "delivered, settled", "÷ bare"], rows)


def bodies(results: Results) -> list[str]:
    points = (results.get("bodies") or {"points": []})["points"]
    rows = []
    for p in points:
        moved = rate(p, "accept") * p["body_bytes"]
        rows.append([
            kib(p["body_bytes"]), f"{number(reference(p, 'bare'))}/s",
            f"{number(rate(p, 'accept'))}/s", f"{ratio(p, 'accept', 'bare'):.2f}", f"{size(moved)}/s",
            f"{number(rate(p, 'cycle'))}/s", f"{ratio(p, 'cycle', 'bare'):.2f}",
        ])
    return table(["body", "bare server", "published", "÷ bare", "bodies published", "delivered, settled", "÷ bare"], rows)


def fan_out(results: Results) -> list[str]:
    points = (results.get("fan_out") or {"points": []})["points"]
    rows = []
    for p in points:
        cpu = rate(p, "fan-out", "cpu_us")
        each = None if cpu is None else cpu / p["endpoints"]
        deliveries, events = rate(p, "fan-out", "deliveries_per_s"), rate(p, "fan-out")
        rows.append([str(p["endpoints"]), f"{number(events)}/s", f"{number(deliveries)}/s", f"{number(each, 2)} µs"])
    return table(["endpoints", "events", "deliveries", "processor time of the gateway per delivery"], rows)


def latency(results: Results) -> list[str]:
    points = (results.get("latency") or {"points": []})["points"]
    rows = []
    for p in points:
        told = [ms(quantile(p, "cycle", "arrival_us", name)) for name in ("p50", "p90", "p99", "p999")]
        answer = [ms(quantile(p, "cycle", "answer_us", name)) for name in ("p50", "p99")]
        sync = [ms(median(r["disk"]["overwrite"]["sync_us"][name] for r in p["rounds"]) / 1e3) for name in ("p50", "p99")]
        failed = sum(r["scenarios"]["cycle"].get("failed", 0) for r in p["rounds"])
        planned = f"{number(p['rate_per_s'])}/s"
        rows.append([planned, " · ".join(sync), " · ".join(answer), " · ".join(told), number(failed)])
    head = ["planned", "disk's sync, p50 · p99", "answered, p50 · p99", "delivered, p50 · p90 · p99 · p99.9"]
    return table([*head, "not sent in time, or refused"], rows)


def growth(results: Results) -> list[str]:
    rows = []
    for p in (results.get("pending") or {"points": []})["points"]:
        rows.append([f"{number(p['pending'], 2)} pending", size(p["rss_bytes"]), f"{paired(p['accepts_per_s']):.2f}", "", ""])
    for p in (results.get("stored") or {"points": []})["points"]:
        started = f"{number(median(p['start_s']), 2)} s, at {number(p['stored_at_start'], 2)}"
        accepts = f"{paired(p['accepts_per_s']):.2f}"
        rows.append([f"{number(p['stored'], 2)} stored", size(p["rss_bytes"]), accepts, started, size(p["disk_bytes"])])
    return table(["", "memory", "accepts ÷ empty", "start after SIGKILL", "disk"], rows)


def pages(results: Results) -> list[str]:
    rows = []
    for row in (results.get("due") or {"results": []})["results"]:
        if row["what"] == "due":
            rows.append([row["at"], ms(1e3 / row["per_s"]), f"{row['ratios'].get('sled', 0):.2f}"])
    return table(["", "next 100 due", "pages per second ÷ sled's own scan"], rows)


def costs(results: Results) -> list[str]:
    said = results.get("costs")
    rows = []
    for row in by_rate(said) if said else []:
        planned = f"{number(row['rate_per_s'], 2)}/s" + ("" if "body_bytes" not in row else ", closed loop")
        rows.append([planned, "1 KiB", *each(row)])
    for row in said["bodies"] if said else []:
        if row["body_bytes"] != 1_024:
            rows.append(["closed loop", kib(row["body_bytes"]), *each(row)])
    return table(["rate", "body", "processor time", "written to the disk", "times that a thread waited"], rows)


def each(row: dict) -> list[str]:
    return [f"{number(row['cpu_us'], 2)} µs", size(row["disk_bytes"]), number(row["wakeups"], 2)]


def others(results: Results) -> list[str]:
    """Single findings in words."""
    lines, drain, idle = [], results.get("drain"), results.get("idle")
    if drain:
        alone, beside = (drain[name]["p99"] / 1e3 for name in ("others_alone_us", "others_beside_us"))
        lines.append(
            f"- While {number(drain['backlog'], 2)} deliveries were drained, another endpoint got 100 events per second: "
            f"p99 from sent to delivered {ms(beside)}, {ms(alone)} without the backlog."
        )
    if idle:
        woke = number(idle["wakeups"] / idle["seconds"], 2)
        lines.append(f"- Threads of a gateway that does nothing woke {woke} times per second.")
    return lines


def capacity(results: Results) -> list[str]:
    """Unit costs times counts."""
    said, waiting = results.get("costs"), (results.get("pending") or {}).get("points")
    if not said or not waiting:
        return ["Not measured."]
    each_pending = max(waiting[-1]["rss_bytes"] - waiting[0]["rss_bytes"], 0) / max(waiting[-1]["pending"], 1)
    rows = []
    for per_day in PER_DAY:
        for body in (1 << 10, 16 << 10):
            rate_s = per_day / DAY_S
            loaded, stored = (at_body(said[name], body) for name in ("bodies", "stored"))
            cpu_us, written = (at_rate(said, rate_s, body, name) for name in ("cpu_us", "disk_bytes"))
            kept = (stored["journal_bytes"] + stored["index_bytes"]) * per_day
            memory = loaded["rss_bytes"] + per_day * PENDING_SHARE * each_pending
            year = None if written is None else written * per_day * 365
            rows.append([
                number(per_day), kib(body), f"{number(rate_s, 2)}/s", flash(kept * 7), flash(kept * 30), size(memory),
                f"{number(cpu_us * rate_s / 1e4, 2)} %", size(year), years(year),
            ])
    head = ["events per day", "body", "on average", "disk, 7 days", "disk, 30 days", "memory", "of one core"]
    return table([*head, "written per year", "flash lasts"], rows)


def at_body(rows: list[dict], body: int) -> dict:
    return next(row for row in rows if row["body_bytes"] == body)


def at_rate(said: dict, rate_s: float, body: int, name: str) -> float | None:
    """What an event costs: that of 1 KiB at this rate, and what a larger body costs on top in a closed loop."""
    small, large = (at_body(said["bodies"], bytes_)[name] for bytes_ in (1 << 10, body))
    if small is None or large is None:
        return None
    return between([(row["rate_per_s"], row[name]) for row in by_rate(said)], rate_s) + large - small


def flash(value: float) -> str:
    """Set apart where it does not fit on the flash."""
    return size(value) if value <= FLASH_BYTES else f"({size(value)})"


def years(written: float | None) -> str:
    if written is None:
        return "not told"
    lasts = FLASH_WRITES_BYTES / max(written, 1)
    return "over 50 years" if lasts > 50 else f"{number(lasts, 2)} years"


def between(known: list[tuple], rate_s: float) -> float:
    """On a line between the rates beside it, on logarithmic scales; that of the lowest or highest beyond them."""
    known = [(rate, cost) for rate, cost in known if cost]
    if rate_s <= known[0][0]:
        return known[0][1]
    for (r0, v0), (r1, v1) in zip(known, known[1:]):
        if rate_s <= r1:
            return v0 * (v1 / v0) ** (math.log(rate_s / r0) / math.log(r1 / r0))
    return known[-1][1]


# By the name between the marks in the document.
TABLES = {
    "notice": notice,
    "conditions": conditions,
    "headline": headline,
    "connections": connections,
    "bodies": bodies,
    "fan-out": fan_out,
    "latency": latency,
    "growth": growth,
    "pages": pages,
    "costs": costs,
    "others": others,
    "capacity": capacity,
}
