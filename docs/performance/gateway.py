"""A gateway as a child process, driven by `postrider bench --target`.

Python is too slow to load a gateway; what it does here is start, stop, kill, ask and watch.
"""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import machine

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STRIPE_SECRET = "whsec_measure_measure_measure"

# `postrider bench accept` publishes the first type, `cycle` and `fan-out` the second.
TYPE_OF_ACCEPT = "nobody.asked"
TYPE_OF_CYCLE = "bench.made"

START_S_MAX = 120.0
SETTLE_S_MAX = 900.0


class Failed(Exception):
    """A measurement that could not be made."""


@dataclass
class Run:
    """What all sections share."""

    program: Path
    root: Path
    data: Path
    quick: bool
    commands: list[str] = field(default_factory=list)
    made: int = 0

    def n(self, full, quick):
        """The full figure, or the small one of a smoke run."""
        return quick if self.quick else full

    def note(self, text: str) -> None:
        print(f"  {text}", flush=True)

    def directory(self) -> Path:
        """A new directory on the disk that is measured."""
        self.made += 1
        path = self.data / f"measure-{os.getpid()}-{self.made}"
        path.mkdir(parents=True)
        return path

    def record(self, arguments: list[str]) -> None:
        """Keeps a command line once."""
        if shown(arguments) not in self.commands:
            self.commands.append(shown(arguments))

    def bench(self, *arguments, may_fail: bool = False) -> dict:
        """Runs `postrider bench … --json` on a gateway of its own."""
        return self.run_bench(["bench", *map(str, arguments), "--data", str(self.data), "--json"], may_fail)

    def run_bench(self, arguments: list[str], may_fail: bool = False) -> dict:
        self.record(arguments)
        done = subprocess.run([self.program, *arguments], capture_output=True, text=True, env=environment(), check=False)
        return report(done.returncode, done.stdout, done.stderr, arguments, may_fail)

    def cargo_bench(self, name: str, *arguments: str) -> list[dict]:
        """Runs a bench of the sources; its results, point by point."""
        command = ["cargo", "bench", "--locked", "--bench", name, "--", *arguments]
        self.commands.append(" ".join(command))
        env = environment() | ({"POSTRIDER_BENCH_SHORT": "1"} if self.quick else {})
        done = subprocess.run(command, cwd=self.root, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)}: {done.stderr[-2000:]}")
        # The last line names the file.
        return json.loads(Path(done.stdout.strip().splitlines()[-1]).read_text())["results"]


def shown(arguments: list[str]) -> str:
    """A command line without what differs from run to run."""
    hide = {"--data": "DIR", "--target": "URL", "--token": "TOKEN", "--sink": "ADDR", "--secret": "SECRET"}
    return " ".join(["postrider", *(hide.get(before, word) for before, word in zip(["", *arguments], arguments))])


def environment() -> dict:
    """Without what the caller has set for a gateway of their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("POSTRIDER_")}


def report(code: int, stdout: str, stderr: str, arguments: list[str], may_fail: bool) -> dict:
    """What `bench --json` printed. It exits with 1 when an event was refused or did not arrive, which is told too."""
    if code not in (0, 1) or not stdout.strip():
        raise Failed(f"{shown(arguments)} ended with {code}: {stderr[-2000:]}")
    said = json.loads(stdout)
    if not said["ok"] and not may_fail:
        raise Failed(f"{shown(arguments)}: not every event came to its end: {json.dumps(said['scenarios'])}")
    return said


def endpoint(name: str, port: int, event_type: str, more: str = "") -> str:
    return (
        f'[[endpoint]]\nname = "{name}"\nurl = "http://127.0.0.1:{port}/"\nevent_types = ["{event_type}"]\n'
        f'secret = "{SECRET}"\n{more}\n'
    )


STRIPE = f'[[source]]\nname = "stripe"\nprovider = "stripe"\nsecrets = ["{STRIPE_SECRET}"]\n'


class Gateway:
    """`postrider serve` on an empty data directory; both go when its block ends."""

    def __init__(self, run: Run, config: str = ""):
        self.run, self.home = run, run.directory()
        (self.home / "postrider.toml").write_text(STRIPE + config)
        self.child, self.past = None, 0
        self.sink_port = machine.free_port()

    def __enter__(self) -> "Gateway":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def data(self) -> Path:
        return self.home / "data"

    def start(self) -> float:
        """Starts it; the seconds until it answered the first event."""
        arguments = ["serve", "--log", "warn", "--ingress", "127.0.0.1:0", "--management", "127.0.0.1:0"]
        arguments += ["--config", str(self.home / "postrider.toml"), "--data", str(self.data)]
        began = time.monotonic()
        with open(self.home / "log", "a", encoding="utf-8") as log:
            self.child = subprocess.Popen(
                [self.run.program, *arguments], stdout=subprocess.PIPE, stderr=log, text=True, env=environment()
            )
        said = {}
        while not {"ingress", "management", "token"} <= said.keys():
            line = self.child.stdout.readline()
            if not line:
                raise Failed(f"the gateway ended at its start: {(self.home / 'log').read_text()[-2000:]}")
            name, _, value = line.strip().partition(" ")
            said[name] = value
        self.ingress, self.management = said["ingress"], said["management"]
        self.token = Path(said["token"]).read_text().strip()
        self.publish()
        return time.monotonic() - began

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self.end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it in order."""
        self.end(signal.SIGTERM)

    def end(self, sent: signal.Signals) -> None:
        if self.child is not None:
            self.child.send_signal(sent)
            self.child.wait()
            self.child.stdout.close()
            self.child = None

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.management + path, body, method=method)
        request.add_header("authorization", f"Bearer {self.token}")
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request, timeout=START_S_MAX) as answer:
            return answer.read()

    def publish(self) -> None:
        """One event that nobody takes."""
        self.ask("POST", "/api/v1/app/default/msg", b'{"eventType":"measure.first","payload":{}}')

    def enable(self, name: str, enabled: bool) -> None:
        self.ask("POST", f"/api/v1/endpoint/{name}/{'enable' if enabled else 'disable'}")

    def metrics(self) -> dict[str, float]:
        """Every series of the metrics page, by name and labels."""
        lines = self.ask("GET", "/metrics").decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def count(self, name: str) -> int:
        """The sum of all series of a name, or of the one with these labels."""
        return int(sum(v for key, v in self.metrics().items() if key == name or key.startswith(name + "{")))

    def accepted(self) -> int:
        return self.count("postrider_events_accepted_total")

    def taken(self) -> int:
        """The same with its earlier lives, which its counters do not know: `past` is what they took."""
        return self.past + self.accepted()

    def attempts(self, outcome: str) -> int:
        return self.count(f'postrider_attempts_total{{outcome="{outcome}"}}')

    def quiet(self) -> None:
        """Waits until the key space has all that the journal has."""
        what = "the key space to catch up"
        machine.wait_until(lambda: self.count("postrider_applier_lag_records") == 0, what, SETTLE_S_MAX)

    def arguments(self, scenario: str, options: tuple, sink: bool) -> list[str]:
        if scenario == "inbound":
            target = ["--target", f"{self.ingress}/in/stripe", "--secret", STRIPE_SECRET]
        else:
            target = ["--target", self.management, "--token", self.token]
        if sink:
            target += ["--sink", f"127.0.0.1:{self.sink_port}"]
        return ["bench", scenario, *map(str, options), *target, "--json"]

    def load(self, scenario: str, *options, sink: bool = False, may_fail: bool = False) -> dict:
        """Puts a load on it; the row of its scenario."""
        return self.run.run_bench(self.arguments(scenario, options, sink), may_fail)["scenarios"][0]

    def under(self, scenario: str, *options, sink: bool = False, survives: bool = True) -> "Under":
        """Puts a load on it for as long as a block takes; one that the gateway does not survive comes to nothing."""
        return Under(self, self.arguments(scenario, options, sink), survives)

    def fill(self, scenario: str, count, wanted: int, watch=lambda: None) -> None:
        """Sends events until `count()` of it is as high as wanted."""
        if count() >= wanted:
            return
        with self.under(scenario, "--connections", 256):
            while (missing := wanted - count()) > 0:
                watch()
                time.sleep(0.2 if missing > 100_000 else 0.02)

    def rss_bytes(self) -> int:
        return machine.rss_bytes(self.child.pid)

    def used(self) -> dict:
        """Figures that only grow."""
        return {
            "cpu_s": machine.cpu_s(self.child.pid),
            "disk_bytes": machine.disk_bytes(self.home),
            "wakeups": machine.wakeups(self.child.pid),
            "accepted": self.accepted(),
            "delivered": self.attempts("delivered"),
            "at_s": time.monotonic(),
        }


class Under:
    """A load in the background, ended by an interrupt; `row` is what it came to."""

    def __init__(self, gateway: Gateway, arguments: list[str], survives: bool):
        self.gateway, self.arguments, self.survives = gateway, [*arguments, "--seconds", "3600"], survives
        self.row = None

    def __enter__(self) -> "Under":
        self.gateway.run.record(self.arguments)
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(
            [self.gateway.run.program, *self.arguments], stdout=pipe, stderr=pipe, text=True, env=environment()
        )
        return self

    def __exit__(self, kind, *_) -> None:
        self.child.send_signal(signal.SIGINT)
        stdout, stderr = self.child.communicate()
        if kind is None and self.survives:
            rows = report(self.child.returncode, stdout, stderr, self.arguments, may_fail=True)["scenarios"]
            self.row = rows[0] if rows else None


def since(before: dict, after: dict) -> dict:
    """What came on top."""
    return {name: None if after[name] is None else after[name] - before[name] for name in before}
