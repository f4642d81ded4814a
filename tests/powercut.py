#!/usr/bin/env python3
"""Pulls the plug of a real ext4 under a gateway that takes events, again and again, and looks whether anything is lost.

A file system is made in an image on a loop device and a gateway works on it. At random moments it is stopped (SIGSTOP), the
image is copied, and it goes on. The copy is what a disk would hold whose power failed in that moment: what sits in the page
cache of the mounted file system is not in it. It is mounted, which replays ext4's own journal, a gateway is started on
it, and every event that was acknowledged by then must be there with its payload, under its id, once, and the gateway's
journal must verify.

That the cuts are real is shown twice. Before each a file is written and not synced: its bytes must be missing. And with
`--lie`, where every sync of the gateway does nothing and says that it worked (tests/shim/shim.c), events must be lost.

What it can't show: a disk that loses or reorders what was handed to it before it was told to flush. All that the file
system has handed to the loop device counts as kept. tests/power builds such states from the record of system calls.

Exit codes: 0 nothing lost (with --lie: something lost), 1 otherwise, 77 it can't run here, with the reason.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

IMAGE_MIB = 160
SENDERS = 4
SKIPPED = 77

CONFIG = """
[[endpoint]]
name = "app"
url = "http://127.0.0.1:9/"
event_types = ["**"]
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
[limits]
segment_bytes = "2MiB"
batch_bytes = "1MiB"
body_bytes = "64KiB"
api_body_bytes = "64KiB"
free_bytes = "1MiB"
[log]
level = "warn"
"""


def skip(why):
    print(f"SKIPPED: {why}", flush=True)
    sys.exit(SKIPPED)


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Volume:
    """An ext4 in an image, mounted."""

    def __init__(self, image, at):
        self.image, self.at, self.loop = image, at, None
        os.makedirs(at, exist_ok=True)
        try:
            # Straight to the image, so that the copy sees what the device was given and no cache comes in between.
            self.loop = run("losetup", "--find", "--show", "--direct-io=on", image)
            # The file system's own timer would sync what the gateway did not.
            run("mount", "-o", "commit=3600", self.loop, at)
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            skip(f"no loop device or mount: {getattr(error, 'stderr', None) or error}")

    def writes(self):
        """Requests that the device got so far, and those in flight."""
        stat = open(f"/sys/block/{os.path.basename(self.loop)}/stat").read().split()
        return int(stat[4]), int(stat[8])

    def close(self):
        subprocess.run(["umount", self.at], capture_output=True)
        if self.loop:
            subprocess.run(["losetup", "--detach", self.loop], capture_output=True)


class Gateway:
    def __init__(self, binary, home, data, shim=None):
        config = os.path.join(home, "postrider.toml")
        with open(config, "w") as file:
            file.write(CONFIG)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("POSTRIDER_")}
        if shim:
            environment.update(LD_PRELOAD=shim, SHIM_DIR=data, SHIM_FAIL="sync 1 -1 always")
        command = [binary, "serve", "--config", config, "--data", data]
        command += ["--ingress", "127.0.0.1:0", "--management", "127.0.0.1:0"]
        self.log = open(os.path.join(home, "log"), "a+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment)
        self.port = None
        for line in self.process.stdout:
            if line.startswith("management "):
                self.port = int(line.rsplit(":", 1)[1])
            if line.startswith("token "):
                with open(line[6:].strip()) as file:
                    self.token = file.read().strip()
                return
        self.log.seek(0)
        raise RuntimeError(f"the gateway ended with {self.process.wait()}:\n{self.log.read()[-2000:]}")

    def client(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, client, method, path, body=None, **headers):
        headers["Authorization"] = f"Bearer {self.token}"
        client.request(method, path, body, headers)
        answer = client.getresponse()
        return answer.status, json.loads(answer.read() or b"null")

    def kill(self):
        self.process.kill()
        self.process.wait()


def payload_of(key):
    size = random.Random(key)
    return {"key": key, "pad": "x" * size.choice([10, 200, 900, 5_000])}


def send(gateway, sender, acknowledged, ended):
    """Publishes until it is told to end or the connection breaks."""
    client = gateway.client()
    number = 0
    while not ended.is_set():
        key = f"{sender}-{number}"
        number += 1
        body = json.dumps({"eventType": "order.created", "payload": payload_of(key)})
        headers = {"content-type": "application/json", "idempotency-key": key}
        try:
            status, answer = gateway.ask(client, "POST", "/api/v1/app/default/msg", body, **headers)
        except (OSError, http.client.HTTPException):
            return
        if status == 202:
            acknowledged[key] = answer["id"]
        elif status in (408, 503):
            # Stopped for a cut in the middle of a request, or no room.
            time.sleep(0.05)
        else:
            raise RuntimeError(f"{status}: {answer}")


def cut(volume, gateway, copy, acknowledged):
    """Copies the image as it is in one moment; returns what was acknowledged by then, and the file that was not synced."""
    while True:
        gateway.process.send_signal(signal.SIGSTOP)
        # A call that is in the kernel ends first, and answers that left before the stop arrive.
        before = None
        while before != volume.writes() or before[1]:
            before = volume.writes()
            time.sleep(0.03)
        promised = dict(acknowledged)
        # A new one each time: ext4 writes one out that is written over.
        control = f"unsynced-{time.monotonic_ns()}"
        with open(os.path.join(volume.at, control), "wb") as file:
            file.write(os.urandom(65_536))
        run("cp", "--sparse=always", volume.image, copy)
        quiet = volume.writes() == before
        gateway.process.send_signal(signal.SIGCONT)
        if quiet:
            return promised, control
        # Somebody wrote meanwhile, so that the copy is no moment.
        time.sleep(0.05)


def listed(gateway):
    found, client, following = {}, gateway.client(), ""
    while True:
        path = f"/api/v1/app/default/msg?with_content=true&limit=250{following}"
        status, page = gateway.ask(client, "GET", path)
        assert status == 200, page
        for message in page["data"]:
            key = message["payload"]["key"]
            assert key not in found, f"{key} is there twice"
            assert message["payload"] == payload_of(key), f"{key} has another payload"
            found[key] = message["id"]
        if page["done"]:
            return found
        following = f"&iterator={page['iterator']}"


def check(binary, copy, home, promised, control):
    """Starts a gateway on the copy; returns how many events are lost and whether the unsynced file is."""
    volume = Volume(copy, os.path.join(home, "copied"))
    try:
        unsynced = os.path.join(volume.at, control)
        control = not os.path.exists(unsynced) or not any(open(unsynced, "rb").read())
        data = os.path.join(volume.at, "data")
        try:
            gateway = Gateway(binary, home, data)
        except (RuntimeError, OSError) as error:
            return len(promised) or 1, control, str(error)
        found = listed(gateway)
        lost = [key for key, event in promised.items() if found.get(key) != event]
        gateway.process.terminate()
        assert gateway.process.wait() == 0
        verified = subprocess.run([binary, "journal", "verify", "--data", data], capture_output=True, text=True)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        return len(lost), control, f"{lost[:3]}" if lost else ""
    finally:
        volume.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--cuts", type=int, default=3)
    parser.add_argument("--lie", action="store_true", help="let syncs do nothing; events must be lost")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    if os.geteuid() != 0:
        skip("only root may mount")
    for tool in ["mkfs.ext4", "losetup", "mount"] + (["cc"] if options.lie else []):
        if not shutil.which(tool):
            skip(f"there is no {tool}")
    print(f"seed {options.seed}", flush=True)
    chance = random.Random(options.seed)
    home = tempfile.mkdtemp()
    image, copy = os.path.join(home, "image"), os.path.join(home, "copy")
    # However it ends, nothing stays mounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    volume = gateway = None
    lost = controls = promised_most = 0
    try:
        with open(image, "wb") as file:
            file.truncate(IMAGE_MIB << 20)
        run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        volume = Volume(image, os.path.join(home, "mounted"))
        shim = None
        if options.lie:
            shim = os.path.join(home, "shim.so")
            source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim", "shim.c")
            run("cc", "-std=gnu11", "-O1", "-fPIC", "-shared", "-o", shim, source)
        gateway = Gateway(options.binary, home, os.path.join(volume.at, "data"), shim)
        acknowledged, ended = {}, threading.Event()
        for sender in range(SENDERS):
            threading.Thread(target=send, args=(gateway, sender, acknowledged, ended), daemon=True).start()
        for number in range(options.cuts):
            time.sleep(chance.uniform(0.01, 0.4))
            promised, control = cut(volume, gateway, copy, acknowledged)
            # While the copy is looked at the load would only fill the disk.
            gateway.process.send_signal(signal.SIGSTOP)
            missing, control, why = check(options.binary, copy, home, promised, control)
            gateway.process.send_signal(signal.SIGCONT)
            lost += missing
            controls += control
            promised_most = max(promised_most, len(promised))
            if missing:
                print(f"cut {number}: {missing} of {len(promised)} lost {why}", flush=True)
        ended.set()
    finally:
        if gateway:
            gateway.process.send_signal(signal.SIGCONT)
            gateway.kill()
        if volume:
            volume.close()
        shutil.rmtree(home, ignore_errors=True)
    print(
        f"{options.cuts} cuts, {promised_most} events acknowledged by the last, {lost} lost; "
        f"unsynced control file lost in {controls}",
        flush=True,
    )
    fine = lost > 0 if options.lie else lost == 0
    sys.exit(0 if fine and controls == options.cuts else 1)


if __name__ == "__main__":
    main()
