"""What Linux tells of the machine, of a process, and of the disk that a directory is on."""

import os
import platform
import socket
import subprocess
import time
from pathlib import Path

SECTOR_BYTES = 512


def describe(data: Path) -> dict:
    """The machine, for the results."""
    return {
        "processor": field("/proc/cpuinfo", "model name") or "unknown processor",
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int((field("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) * 1024,
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": file_system(data),
        "load": " ".join(Path("/proc/loadavg").read_text().split()[:3]),
    }


def field(path: str, name: str) -> str | None:
    """The value of the first line `name: value`."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":", 1)[0].strip() == name), None)


def device(directory: Path) -> str:
    number = os.stat(directory).st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def file_system(directory: Path) -> str:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[2] == device(directory):
            return line.split(" - ")[1].split()[0]
    return "unknown"


def disk_bytes(directory: Path) -> int | None:
    """Bytes written to the disk of this directory, by whomever; `/proc/PID/io` counts whole folios, so it is no use."""
    wanted = device(directory).split(":")
    for line in Path("/proc/diskstats").read_text().splitlines():
        words = line.split()
        if words[:2] == wanted:
            return int(words[9]) * SECTOR_BYTES
    return None


def allocated_bytes(directory: Path) -> int:
    """Bytes that the files below this directory take on the disk."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_blocks * SECTOR_BYTES
            except FileNotFoundError:
                pass  # It went meanwhile.
    return total


def cpu_s(process: int) -> float:
    """Processor time of a process, to the nanosecond: what its living threads ran, or by the clock's ticks if that is more
    (threads that have ended count there only)."""
    words = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    ran_ns = 0
    for stat in Path(f"/proc/{process}/task").glob("*/schedstat"):
        try:
            ran_ns += int(stat.read_text().split()[0])
        except OSError:
            pass  # The thread ended meanwhile.
    return max(ticks, ran_ns / 1e9)


def wakeups(process: int) -> int:
    """How often threads of a process gave up the processor to wait."""
    total = 0
    for task in Path(f"/proc/{process}/task").iterdir():
        total += int(field(f"{task}/status", "voluntary_ctxt_switches") or 0)
    return total


def rss_bytes(process: int) -> int:
    return int((field(f"/proc/{process}/status", "VmRSS") or "0 kB").split()[0]) * 1024


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def commit(root: Path) -> str:
    """The sources' commit, with a mark if they were changed."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def wait_until(holds, what: str, at_most_s: float, every_s: float = 0.05) -> None:
    """Waits until `holds()`; an error says what did not come."""
    until = time.monotonic() + at_most_s
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {at_most_s:.0f} s for: {what}")
        time.sleep(every_s)
