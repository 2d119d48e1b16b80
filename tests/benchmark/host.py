"""Processes on this machine: starting and ending them, what they use, medians. It must not know what is measured."""

import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELEASE = ROOT / "target/release"
CACHE = pathlib.Path(os.environ["SPILLGATE_BENCH_CACHE"])
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SERVER_CORE, LOAD_CORE = 0, min(1, (os.cpu_count() or 1) - 1)


def machine():
    """What the figures come from, in one line."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{os.cpu_count()} x {model}, Linux {os.uname().release}"


def load_average():
    return os.getloadavg()[0]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def median(numbers):
    return statistics.median(numbers)


class Server:
    """A process on the servers' core, gone at the end of its block."""

    def __init__(self, command, ready, core=SERVER_CORE, env=None):
        pin = ["taskset", "-c", str(core)] if core is not None else []
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            pin + [str(c) for c in command],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | (env or {}),
        )
        deadline = time.monotonic() + 30
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise SystemExit(f"{command[0]} does not start: {' '.join(map(str, command))}")
            time.sleep(0.002)
        self.started_in = time.monotonic() - self.began

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def cpu(self):
        """Seconds of a core that it has used."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(stat[11]) + int(stat[12])) / TICKS

    def resident(self):
        """Bytes of memory."""
        return int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE


def accepts(port):
    """Whether something listens there."""
    def ready():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0
    return ready


def run(command, core=LOAD_CORE):
    """Runs a load on the loads' core to its end: what it printed."""
    done = subprocess.run(["taskset", "-c", str(core)] + [str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))[:300]} failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout


class Daemon(Server):
    """spillgate with a configuration of its own, alone or in a cluster."""

    def __init__(self, limits, name="a", cluster="", core=SERVER_CORE, directory=None):
        self.directory = pathlib.Path(directory or tempfile.mkdtemp(prefix="spillgate-bench-"))
        self.owned = directory is None
        self.http, self.resp = free_port(), free_port()
        self.unix = self.directory / f"{name}.sock"
        file = self.directory / f"{name}.toml"
        file.write_text(
            f'[node]\nid = "{name}"\nmax_keys = 4_000_000\n[http]\nlisten = "127.0.0.1:{self.http}"\nunix = "{self.unix}"\n'
            f'[resp]\nlisten = "127.0.0.1:{self.resp}"\n{cluster}\n{limits}'
        )
        environment = {"SPILLGATE_LOG": "warn"}
        super().__init__([RELEASE / "spillgate", "serve", "--config", file], accepts(self.resp), core, environment)

    def __exit__(self, *args):
        super().__exit__(*args)
        if self.owned:
            shutil.rmtree(self.directory, ignore_errors=True)

    def get(self, path):
        """The body of an answer of the HTTP API."""
        with socket.create_connection(("127.0.0.1", self.http)) as stream:
            stream.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            answer = b""
            while more := stream.recv(1 << 16):
                answer += more
        return answer.split(b"\r\n\r\n", 1)[1].decode()

    def members(self):
        """How many nodes it hears of, itself among them."""
        return sum(1 for m in json.loads(self.get("/v1/cluster"))["members"] if m["state"] == "alive" or m.get("self"))

    def metric(self, name):
        """The sum of a metric over its labels."""
        lines = self.get("/metrics").splitlines()
        return sum(float(l.rsplit(" ", 1)[1]) for l in lines if l.split("{")[0].split(" ")[0] == name)
