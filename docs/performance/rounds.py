"""Sections that `postrider bench` and `cargo bench` give by themselves: rounds, each with its references in the same run."""

import time

import machine
from gateway import Gateway, Run, endpoint

# Connections of the headline, measured longer and more often than the points between them.
HEADLINE_CONNECTIONS = (1, 64, 256)


def short(row: dict) -> dict:
    """What is kept of a scenario's row; a figure that the machine did not give is null."""
    used, deliveries, requests = row.get("gateway") or {}, row.get("deliveries") or {}, row.get("requests", row)
    return {
        "events_per_s": row["events_per_s"],
        "failed": requests["sent"] - requests["accepted"] + requests["unsent"],
        "answer_us": requests["answer_us"],
        "deliveries_per_s": deliveries.get("per_s"),
        "arrival_us": deliveries.get("arrival_us"),
        "cpu_us": used.get("cpu_us"),
        "disk_bytes": used.get("disk_bytes"),
        "rss_bytes": used.get("rss_bytes"),
    }


def round_of(said: dict) -> dict:
    """One run of `postrider bench`: references and scenarios side by side."""
    references = {name: reference["per_s"] for name, reference in said["references"].items()}
    scenarios = {row["name"]: short(row) for row in said["scenarios"]}
    return {"references": references, "scenarios": scenarios, "disk": said["disk"]}


def connections(run: Run) -> dict:
    points = []
    for count in (1, 4, 16, 64, 256):
        headline = count in HEADLINE_CONNECTIONS
        seconds, rounds = run.n(4 if headline else 2, 0.4), run.n(5 if headline else 3, 1)
        points.append({"connections": count, "rounds": []})
        for _ in range(rounds):
            said = run.bench("accept", "inbound", "cycle", "--connections", count, "--seconds", seconds)
            points[-1]["rounds"].append(round_of(said))
        run.note(f"{count} connections")
    return {"points": points}


def bodies(run: Run) -> dict:
    points = []
    for body in (128, 1 << 10, 16 << 10, 256 << 10):
        points.append({"body_bytes": body, "rounds": []})
        for _ in range(run.n(3, 1)):
            said = run.bench("accept", "cycle", "--body", body, "--seconds", run.n(3, 0.4))
            points[-1]["rounds"].append(round_of(said))
        run.note(f"bodies of {body} bytes")
    return {"points": points}


def fan_out(run: Run) -> dict:
    points = []
    for endpoints in (1, 2, 5, 10, 20):
        points.append({"endpoints": endpoints, "rounds": []})
        for _ in range(run.n(5 if endpoints == 10 else 3, 1)):
            said = run.bench("fan-out", "--endpoints", endpoints, "--seconds", run.n(3, 0.4))
            points[-1]["rounds"].append(round_of(said))
        run.note(f"{endpoints} endpoints")
    return {"points": points}


def latency(run: Run) -> dict:
    points = []
    for rate in (200, 2_000):
        points.append({"rate_per_s": rate, "rounds": []})
        for _ in range(run.n(5, 1)):
            # What is not sent in time is in the quantiles, and is told.
            said = run.bench("cycle", "--rate", rate, "--seconds", run.n(15, 1), may_fail=True)
            points[-1]["rounds"].append(round_of(said))
        run.note(f"{rate} planned per second")
    return {"points": points}


def due(run: Run) -> dict:
    return {"results": run.cargo_bench("store", *rounds(run), "due", "sled")}


def rebuild(run: Run) -> dict:
    return {"results": run.cargo_bench("journal", *rounds(run), "sled", "rebuild")}


def rounds(run: Run) -> list[str]:
    return ["--rounds", str(run.n(5, 1))]


def idle(run: Run) -> dict:
    """A gateway that nobody asks anything, and what is on the disk of the program."""
    with Gateway(run, endpoint("app", machine.free_port(), "**")) as gateway:
        # The first segments are prepared in the background.
        time.sleep(run.n(10, 2))
        process, seconds = gateway.child.pid, run.n(30, 2)
        before = machine.cpu_s(process), machine.wakeups(process)
        time.sleep(seconds)
        return {
            "seconds": seconds,
            "cpu_s": machine.cpu_s(process) - before[0],
            "wakeups": machine.wakeups(process) - before[1],
            "rss_bytes": gateway.rss_bytes(),
            "binary_bytes": run.program.stat().st_size,
        }
