"""Sections that need a gateway with a past: what is pending, stored, dead, recycled, killed."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time

import machine
from gateway import TYPE_OF_ACCEPT, TYPE_OF_CYCLE, Failed, Gateway, Run, endpoint, environment, since

MB = 1_000_000

# Retention of nearly everything: what is measured is how the cost grows.
KEEP_ALL = '[retention]\nbytes = "60GiB"\n'

# Small segments, so that a part of one is nothing beside what is stored.
SMALL_SEGMENTS = """
[limits]
segment_bytes = "2MiB"
batch_bytes = "1MiB"
body_bytes = "512KiB"
api_body_bytes = "512KiB"
"""

# A day, in seconds: the first attempt fails at once, and the second is that far away.
DAY_AHEAD = "retry = { schedule_s = [86400], jitter = 0.0 }"

# An endpoint that only fails is tried as often per second as it has places, from 64 on: so many that a million first attempts
# take two minutes.
OFTEN_TRIED = "[limits]\nin_flight = 8192\nendpoint_in_flight = 8192\n"


def pairs(run: Run, scenario: str, gateways: list[Gateway], seconds: float, rounds: int) -> list:
    """The rates of two gateways, which take turns, and turns at being first: what else the machine does hits both."""
    rows = []
    for number in range(rounds):
        order = gateways if number % 2 == 0 else gateways[::-1]
        loads = [gateway.load(scenario, "--seconds", seconds)["events_per_s"] for gateway in order]
        rows.append(loads if number % 2 == 0 else loads[::-1])
    return rows


def steady(run: Run) -> dict:
    """A minute of accepts, beside a bare server before and after it; how far the key space lags."""
    points = []
    for count in (64, 256):
        seconds, early_s = run.n(60, 3), run.n(10, 1)
        with Bare(run) as bare, Gateway(run, KEEP_ALL) as gateway:
            references = [bare.per_s(count, run.n(5, 0.5))]
            lags = []
            with Watch(lambda: lags.append(lag(gateway))):
                row = gateway.load("accept", "--connections", count, "--seconds", seconds)
            references.append(bare.per_s(count, run.n(5, 0.5)))
        ended_s = lags[-1]["at_s"]
        points.append({
            "connections": count,
            "seconds": seconds,
            "events_per_s": row["events_per_s"],
            "bare_per_s": references,
            "early_s": early_s,
            "lag_early": mean_lag(lags, ended_s - seconds + early_s / 2, ended_s - seconds + early_s * 1.5),
            "lag_late": mean_lag(lags, ended_s - early_s, ended_s),
        })
        run.note(f"{count} connections for {seconds} s")
    return {"points": points}


def lag(gateway: Gateway) -> dict:
    said, at_s = gateway.metrics(), time.monotonic()
    return {"at_s": at_s} | {name: said[f"postrider_applier_lag_{name}"] for name in ("records", "bytes")}


def mean_lag(lags: list[dict], from_s: float, until_s: float) -> dict:
    """It rises and falls every second with what is handed on, so means over some seconds are compared."""
    seen = [row for row in lags if from_s <= row["at_s"] <= until_s] or lags[-1:]
    return {name: sum(row[name] for row in seen) / len(seen) for name in ("records", "bytes")}


class Watch:
    """Takes a look every quarter of a second while a block runs."""

    def __init__(self, look):
        self.look, self.over = look, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self) -> None:
        while not self.over.wait(0.25):
            self.look()

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.thread.join()


class Bare:
    """The server that `postrider bench` compares with: it reads a request and answers."""

    def __init__(self, run: Run):
        self.run = run

    def __enter__(self) -> "Bare":
        command = [self.run.program, "bench", "--bare-server"]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
        self.address = self.child.stdout.readline().strip()
        return self

    def __exit__(self, *_) -> None:
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()

    def per_s(self, connections: int, seconds: float) -> float:
        arguments = ["bench", "accept", "--connections", str(connections), "--seconds", str(seconds)]
        said = self.run.run_bench([*arguments, "--target", f"http://{self.address}", "--token", "none", "--json"])
        return said["scenarios"][0]["events_per_s"]


def costs(run: Run) -> dict:
    """What a full cycle costs once segments recycle: by body in a closed loop, and by rate; and what it leaves stored."""
    config = '[retention]\nbytes = "320MiB"\n'
    with Gateway(run, config) as gateway:
        reconfigure(gateway, config, [("sink", gateway.sink_port, TYPE_OF_CYCLE)])
        recycle(run, gateway)
        idle = idle_bytes_per_s(run, gateway)
        bodies = [cost(run, gateway, idle, "--body", body, seconds=run.n(12, 0.5)) | {"body_bytes": body}
                  for body in (128, 1 << 10, 16 << 10)]
        run.note("closed loop")
        rates = []
        # Few connections where events are few: the gateway closes one that asks nothing in its first 5 s.
        for rate, connections, seconds in ((1, 1, 40), (10, 4, 25), (100, 16, 15), (1_000, 64, 15)):
            options = ("--rate", rate, "--connections", connections)
            row = cost(run, gateway, idle, *options, seconds=run.n(seconds, 3 if rate == 1 else 1))
            rates.append(row | {"rate_per_s": rate})
        run.note("open loops")
    stored = [left(run, body) for body in (128, 1 << 10, 16 << 10)]
    return {"idle_disk_bytes_per_s": idle, "bodies": bodies, "rates": rates, "stored": stored}


def reconfigure(gateway: Gateway, more: str, endpoints: list[tuple]) -> None:
    """Starts it again with endpoints at ports that were not known before it had a home."""
    gateway.stop()
    text = (gateway.home / "postrider.toml").read_text().replace(more, "")
    text += "".join(endpoint(*row) for row in endpoints) + more
    (gateway.home / "postrider.toml").write_text(text)
    gateway.start()


def recycle(run: Run, gateway: Gateway) -> None:
    """Writes until the journal has turned over, after which no segment is filled with zeros any more."""
    limit, began = run.n(2, 1) * 320 * (1 << 20), machine.disk_bytes(gateway.home) or 0
    with gateway.under("cycle", "--body", 16 << 10, sink=True):
        what = "the journal to turn over"
        machine.wait_until(lambda: (machine.disk_bytes(gateway.home) or limit) - began >= limit, what, 300)
    time.sleep(1)


def idle_bytes_per_s(run: Run, gateway: Gateway) -> float | None:
    """What others write meanwhile."""
    gateway.quiet()
    before = gateway.used()
    time.sleep(run.n(10, 0.5))
    passed = since(before, gateway.used())
    return None if passed["disk_bytes"] is None else passed["disk_bytes"] / passed["at_s"]


def cost(run: Run, gateway: Gateway, idle: float | None, *options, seconds: float) -> dict:
    """Per event from accept to settle, without what others write meanwhile."""
    gateway.quiet()
    # What was written before is none of this load's, and all that it writes is.
    os.sync()
    before = gateway.used()
    row = gateway.load("cycle", *options, "--seconds", seconds, sink=True, may_fail=True)
    # The warm-up counts on both sides of the division.
    gateway.quiet()
    os.sync()
    passed = since(before, gateway.used())
    events = max(passed["accepted"], 1)
    others = (idle or 0) * passed["at_s"]
    return {
        "events": events,
        "events_per_s": row["events_per_s"],
        "cpu_us": passed["cpu_s"] * 1e6 / events,
        "disk_bytes": None if passed["disk_bytes"] is None else max(passed["disk_bytes"] - others, 0) / events,
        "wakeups": passed["wakeups"] / events,
        "rss_bytes": gateway.rss_bytes(),
    }


def left(run: Run, body: int) -> dict:
    """Bytes of the journal and of the key space for each event that came to its end."""
    config = KEEP_ALL + SMALL_SEGMENTS
    with Gateway(run, config) as gateway:
        reconfigure(gateway, config, [("sink", gateway.sink_port, TYPE_OF_CYCLE)])
        gateway.load("cycle", "--body", body, "--seconds", run.n(5, 0.5), sink=True)
        events = gateway.accepted()
        gateway.stop()
        command = [run.program, "journal", "verify", "--data", str(gateway.data), "--json"]
        said = json.loads(subprocess.run(command, capture_output=True, env=environment(), check=True).stdout)
        index = machine.allocated_bytes(gateway.data / "index")
        return {"body_bytes": body, "journal_bytes": said["bytes"] / events, "index_bytes": index / events}


def pending(run: Run) -> dict:
    """Deliveries that are due in a day: an endpoint that refuses, and a schedule that waits."""
    points = []
    config = KEEP_ALL + OFTEN_TRIED + endpoint("closed", machine.free_port(), TYPE_OF_CYCLE, DAY_AHEAD)
    with Gateway(run) as empty, Gateway(run, config) as gateway:
        for level in (0, *(run.n(full, full // 100) for full in (100_000, 300_000, 1_000_000))):
            gateway.fill("cycle", lambda: gateway.count("postrider_deliveries_pending"), level)
            taken = gateway.count("postrider_deliveries_pending")
            what = "every first attempt to fail"
            machine.wait_until(lambda: gateway.attempts("retry") >= taken, what, 900, every_s=0.5)
            gateway.quiet()
            rss = gateway.rss_bytes()
            rates = pairs(run, "accept", [empty, gateway], run.n(3, 0.4), run.n(5, 1))
            points.append({"pending": taken, "rss_bytes": rss, "accepts_per_s": rates})
            run.note(f"{taken} pending")
    return {"points": points}


def stored(run: Run) -> dict:
    """Events that came to their end and are kept: a gateway for each level, as measuring adds more."""
    points = []
    for level in (0, *(run.n(full, full // 100) for full in (100_000, 1_000_000, 10_000_000))):
        if level * 1_300 > shutil.disk_usage(run.data).free * 0.8:
            run.note(f"{level} events do not fit on this disk")
            break
        with Gateway(run, KEEP_ALL) as gateway:
            gateway.fill("accept", gateway.taken, level)
            gateway.quiet()
            point = {
                "stored": gateway.taken(),
                "disk_bytes": machine.allocated_bytes(gateway.data),
                "rss_bytes": gateway.rss_bytes(),
            }
            with Gateway(run, KEEP_ALL) as empty:
                point["accepts_per_s"] = pairs(run, "accept", [empty, gateway], run.n(3, 0.4), run.n(3, 1))
            point["start_s"] = restarts(run, gateway, "accept")
            point["stored_at_start"] = gateway.taken()
        points.append(point)
        run.note(f"{point['stored']} stored")
    return {"points": points}


def restarts(run: Run, gateway: Gateway, scenario: str) -> list[float]:
    """Seconds from a start after SIGKILL in the middle of a load until the first event is answered."""
    starts = []
    for _ in range(run.n(3, 1)):
        with gateway.under(scenario, survives=False):
            time.sleep(run.n(4, 0.5))
            gateway.past = gateway.taken()
            gateway.kill()
        starts.append(gateway.start())
    return starts


def start(run: Run) -> dict:
    """Starts after SIGKILL, without and with a dedup key for each event."""
    events = run.n(1_000_000, 10_000)
    said = {"events": events}
    for scenario in ("accept", "inbound"):
        with Gateway(run, KEEP_ALL) as gateway:
            gateway.fill(scenario, gateway.taken, events)
            said[scenario] = restarts(run, gateway, scenario)
        run.note(f"{events} of {scenario}")
    return said


def dead(run: Run) -> dict:
    """Others' throughput beside an endpoint with a backlog that hangs, and beside one that refuses."""
    backlog, rounds, seconds = run.n(500_000, 5_000), run.n(5, 1), run.n(4, 0.4)
    said = {"pending": backlog}
    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as hanging:
        # Its connections are made by the kernel, and nobody ever reads them.
        for kind, port in (("hangs", hanging.getsockname()[1]), ("refuses", machine.free_port())):
            with Gateway(run, KEEP_ALL) as alone, Gateway(run, KEEP_ALL) as beside:
                reconfigure(alone, KEEP_ALL, [("sink", alone.sink_port, TYPE_OF_CYCLE)])
                taken = [("sink", beside.sink_port, TYPE_OF_CYCLE), ("dead", port, TYPE_OF_ACCEPT)]
                reconfigure(beside, KEEP_ALL, taken)
                beside.enable("dead", False)
                beside.fill("accept", beside.taken, backlog)
                beside.quiet()
                said[kind] = [beside_a_backlog(alone, beside, seconds) for _ in range(rounds)]
            run.note(kind)
    return said


def beside_a_backlog(alone: Gateway, beside: Gateway, seconds: float) -> list[float]:
    """The rate without and with the dead endpoint, which is only tried while it is measured."""
    without = alone.load("cycle", "--seconds", seconds, sink=True)["deliveries"]["per_s"]
    beside.enable("dead", True)
    with_it = beside.load("cycle", "--seconds", seconds, sink=True)["deliveries"]["per_s"]
    beside.enable("dead", False)
    return [without, with_it]


def drain(run: Run) -> dict:
    """A backlog that becomes due at one moment, while another endpoint gets a few events per second."""
    backlog = run.n(1_000_000, 10_000)
    with Gateway(run, KEEP_ALL) as gateway:
        port = gateway.sink_port
        reconfigure(gateway, KEEP_ALL, [("sink", port, TYPE_OF_CYCLE), ("backlog", port, TYPE_OF_ACCEPT)])
        cycles = [row["deliveries"]["per_s"] for row in drain_cycles(run, gateway)]
        gateway.enable("backlog", False)
        gateway.fill("accept", gateway.taken, gateway.taken() + backlog)
        gateway.quiet()
        pending = gateway.count("postrider_deliveries_pending")
        alone = gateway.load("cycle", "--rate", 100, "--seconds", run.n(10, 1), sink=True)
        samples = []
        with gateway.under("cycle", "--rate", 100, sink=True) as others:
            time.sleep(3)  # Its warm-up, after which its arrivals are counted.
            gateway.enable("backlog", True)
            began = time.monotonic()
            # A few of the others' are always under way.
            while not samples or samples[-1][1] < pending * 0.999:
                time.sleep(run.n(0.25, 0.05))
                samples.append([time.monotonic() - began, pending - gateway.count("postrider_deliveries_pending")])
                if samples[-1][0] > 600:
                    raise Failed(f"the backlog is not drained after 600 s: {samples[-1]}")
        cycles += [row["deliveries"]["per_s"] for row in drain_cycles(run, gateway)]
    return {
        "backlog": pending,
        "cycle_per_s": cycles,
        "drained_per_s": samples[-1][1] / samples[-1][0],
        "samples": thinned(samples, 60),
        "others_alone_us": alone["deliveries"]["arrival_us"],
        "others_beside_us": others.row["deliveries"]["arrival_us"],
    }


def drain_cycles(run: Run, gateway: Gateway) -> list[dict]:
    return [gateway.load("cycle", "--seconds", run.n(5, 0.4), sink=True) for _ in range(run.n(3, 1))]


def thinned(samples: list, count: int) -> list:
    """As many of them, evenly, with the last."""
    step = max(len(samples) // count, 1)
    return samples[::-1][::step][::-1]


def retention(run: Run) -> dict:
    """Far more events than are kept: the rate from the first to the last, and the disk."""
    events = run.n(10_000_000, 100_000)
    config = '[retention]\nbytes = "100MB"\n[limits]\nsegment_bytes = "16MiB"\n'
    samples = []
    with Gateway(run, config) as gateway:
        began = time.monotonic()

        def look() -> None:
            samples.append([time.monotonic() - began, gateway.accepted(), machine.allocated_bytes(gateway.data)])

        gateway.fill("accept", gateway.taken, events, watch=look)
        look()
    tenth = events / 10
    first, last = (at(samples, tenth) - at(samples, 0), at(samples, events) - at(samples, events - tenth))
    return {
        "events": events,
        "retention_bytes": 100 * MB,
        "first_tenth_per_s": tenth / first,
        "last_tenth_per_s": tenth / last,
        "disk_bytes_max": max(row[2] for row in samples),
        "samples": thinned(samples, 80),
    }


def at(samples: list, count: float) -> float:
    """When so many events had been taken, between the looks before and after."""
    for (t0, n0, _), (t1, n1, _) in zip(samples, samples[1:]):
        if n0 <= count < n1:
            return t0 + (t1 - t0) * (count - n0) / (n1 - n0)
    return samples[-1][0] if count >= samples[-1][1] else samples[0][0]
