"""Clusters of real processes: what gossip costs, how soon a charge is confirmed by all, and memory a key."""

import contextlib
import json
import selectors
import socket
import tempfile
import time

from host import RELEASE, Daemon, median, run
from ways import load, own_body

# a key asked for once a second is active, and never refused
ACTIVE = '[[limit]]\nname = "api"\nrate = "1000/s"\nburst = 1000\n'
IDLE = '[[limit]]\nname = "api"\nrate = "1/h"\nburst = 1000\n'


def start(stack, nodes, limits, tick="10ms"):
    """So many daemons that have met."""
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="spillgate-bench-"))
    secret = f"{directory}/cluster.secret"
    with open(secret, "w", encoding="ascii") as file:
        file.write(run([RELEASE / "spillgate", "secret"]))
    __import__("os").chmod(secret, 0o600)
    ports = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(nodes)]
    for port in ports:
        port.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{port.getsockname()[1]}" for port in ports]
    for port in ports:
        port.close()
    daemons = []
    for i, address in enumerate(addresses):
        cluster = (
            f'[cluster]\nlisten = "{address}"\nseeds = {json.dumps(addresses[:3])}\nsecret_file = "{secret}"\n'
            f'gossip_interval = "{tick}"\nstale_after = "2s"\n'
        )
        daemons.append(stack.enter_context(Daemon(limits, f"n{i}", cluster, core=None, directory=directory)))
    deadline = time.monotonic() + 60
    while not all(d.members() == nodes for d in daemons):
        if time.monotonic() > deadline:
            raise SystemExit(f"{nodes} daemons do not meet")
        time.sleep(0.1)
    return daemons


def command(key):
    return f"*3\r\n$15\r\nSPILLGATE.CHECK\r\n$3\r\napi\r\n${len(key)}\r\n{key}\r\n".encode()


class Asker:
    """Asks daemons for keys over the Redis protocol, and throws the answers away."""

    def __init__(self, daemons):
        self.streams = [socket.create_connection(("127.0.0.1", d.resp)) for d in daemons]
        self.selector = selectors.DefaultSelector()
        for stream in self.streams:
            stream.setblocking(False)
            self.selector.register(stream, selectors.EVENT_READ)

    def send(self, place, data):
        view = memoryview(data)
        while view:
            try:
                view = view[self.streams[place].send(view):]
            except BlockingIOError:
                self.listen(0.01)

    def listen(self, seconds):
        for ready, _ in self.selector.select(seconds):
            with contextlib.suppress(BlockingIOError):
                ready.fileobj.recv(1 << 20)

    def active(self, keys, seconds):
        """Each key is asked for once a second, each time at another daemon."""
        slices = 100
        commands = [command(f"active:{k:08d}") for k in range(keys)]
        begun = time.monotonic()
        for step in range(int(seconds * slices)):
            mine = commands[step % slices::slices]
            n = len(self.streams)
            for place in range(n):
                data = b"".join(mine[(place + step // slices) % n::n])
                if data:
                    self.send(place, data)
            until = begun + (step + 1) / slices
            while (left := until - time.monotonic()) > 0:
                self.listen(left)
            self.listen(0)

    def once(self, keys):
        """Every key once, at the first daemon, as fast as it takes them; a last question tells that all are answered."""
        for begin in range(0, len(keys), 500):
            self.send(0, b"".join(map(command, keys[begin:begin + 500])))
            self.listen(0)
        stream = self.streams[0]
        stream.setblocking(True)
        stream.settimeout(60)
        stream.sendall(b"ECHO the-end\r\n")
        tail = b""
        while b"the-end" not in tail:
            tail = tail[-16:] + stream.recv(1 << 20)
        stream.setblocking(False)

    def close(self):
        for stream in self.streams:
            stream.close()


def used(daemons):
    sums = [(d.cpu(), d.metric("spillgate_gossip_bytes_total"), d.metric("spillgate_gossip_frames_total")) for d in daemons]
    return [sum(column) / len(daemons) for column in zip(*sums)]


def under(daemons, keys, seconds):
    """CPU seconds, bytes and frames a node and second, with so many keys active."""
    asker = Asker(daemons)
    asker.active(keys, 2)
    before, begun = used(daemons), time.monotonic()
    asker.active(keys, seconds)
    passed = time.monotonic() - begun
    after = used(daemons)
    asker.close()
    return [(b - a) / passed for a, b in zip(before, after)]


def quantile(daemons, part):
    """Seconds within which such a part of the charges was confirmed by all: within a step of the histogram as if they were
    spread evenly, which is what Prometheus makes of it."""
    steps = {}
    for daemon in daemons:
        for line in daemon.get("/metrics").splitlines():
            if line.startswith("spillgate_gossip_convergence_seconds_bucket"):
                edge = float(line.split('le="')[1].split('"')[0])
                steps[edge] = steps.get(edge, 0) + float(line.rsplit(" ", 1)[1])
    total = max(steps.values(), default=0)
    below, seen = 0.0, 0.0
    for edge, count in sorted(steps.items()):
        if total and count >= total * part:
            return below if edge == float("inf") else below + (edge - below) * (total * part - seen) / (count - seen)
        below, seen = edge, count
    return float("nan")


def simulated(nodes, keys, seconds):
    """Frames and bytes a node and second, both ways, among more nodes than fit on a machine: each key asked for once a second."""
    scenario = (
        f'duration = "{seconds}s"\n[nodes]\ncount = {nodes}\n[[limit]]\nrate = "1000/s"\nburst = 1000\n'
        f'[[workload]]\nrate = "{keys}/s"\nkey = "active:"\nkeys = {keys}\n'
    )
    with tempfile.TemporaryDirectory(prefix="spillgate-bench-") as directory:
        file = f"{directory}/mesh.toml"
        with open(file, "w", encoding="ascii") as out:
            out.write(scenario)
        run([RELEASE / "spillgate", "simulate", file, "--strategy", "bounded", "--out", directory])
        with open(f"{directory}/results.json", encoding="utf-8") as results:
            measures = json.load(results)[0]["measures"]
    return [2 * measures["traffic"][of] / measures["node_seconds"] for of in ("count", "sum")]


def gossip(rows, rounds, seconds):
    for nodes in (3, 10):
        for keys in (100, 1_000, 10_000, 100_000):
            with contextlib.ExitStack() as stack:
                cpu, sent, frames = under(start(stack, nodes, ACTIVE), keys, seconds)
            with contextlib.ExitStack() as stack:
                alone = under([stack.enter_context(Daemon(ACTIVE, core=None))], keys // nodes, seconds)[0]
            most = 5.0 if (nodes, keys) == (10, 10_000) else None
            name = f"gossip, {nodes} nodes, {keys:,} keys active: part of a core a node beyond its checks, %"
            rows.add(name, (cpu - alone) * 100, most=most)
            rows.note(f"{nodes} nodes, {keys} keys: {sent / 1000:.0f} kB and {frames:.0f} frames a node and second, both ways")
    for nodes in (10, 50, 100):
        for keys in (100, 1_000):
            frames, sent = simulated(nodes, keys, seconds)
            rows.add(f"gossip, {nodes} simulated nodes, {keys:,} keys active: kB a node and second, both ways", sent / 1000)
            rows.note(f"{nodes} simulated nodes, {keys} keys: {frames:.0f} frames a node and second, both ways")
    for tick, most in (("1ms", 0.001), ("10ms", 0.010), ("100ms", 0.100)):
        with contextlib.ExitStack() as stack:
            daemons = start(stack, 3, ACTIVE, tick)
            under(daemons, 100, seconds)
            half, nearly = quantile(daemons, 0.5), quantile(daemons, 0.99)
        rows.note(f"tick {tick}: half of the charges confirmed by all within {half * 1000:g} ms")
        # one tick, one round trip on loopback (well below a millisecond) and 5 ms
        rows.add(f"convergence p99 with a tick of {tick}, of one tick and 6 ms", nearly / (most + 0.006), most=1.0)
    with contextlib.ExitStack() as stack:
        daemons = start(stack, 3, ACTIVE)
        target = f"127.0.0.1:{daemons[0].http}"
        ratios = []
        for _ in range(rounds):
            _, quiet = load(target, "/v1/check", own_body, seconds, connections=2)
            asker = Asker(daemons)
            from threading import Thread
            asking = Thread(target=asker.active, args=(10_000, seconds + 1))
            asking.start()
            _, busy = load(target, "/v1/check", own_body, seconds, connections=2)
            asking.join()
            asker.close()
            ratios.append(busy[2] / quiet[2])
        rows.add("p99.9 of checks while 10,000 keys are gossiped among 3 nodes, of without", median(ratios), most=2.0)


def memory(rows, _rounds, _seconds):
    for nodes, count in ((1, 400_000), (3, 200_000), (10, 50_000)):
        with contextlib.ExitStack() as stack:
            if nodes == 1:
                daemons = [stack.enter_context(Daemon(IDLE, core=None))]
            else:
                daemons = start(stack, nodes, IDLE)
            asker = Asker(daemons)
            # tables, connections and buffers of the first keys are no key's
            asker.once([f"warm:{i:011d}" for i in range(2000)])
            time.sleep(8)
            before = [d.resident() for d in daemons]
            keys = [f"memory:{i:09d}" for i in range(count)]
            asker.once(keys)
            flight = max(d.resident() - b for d, b in zip(daemons, before)) / count - len(keys[0])
            time.sleep(12)
            idle = max(d.resident() - b for d, b in zip(daemons, before)) / count - len(keys[0])
            asker.close()
        plural = "replica" if nodes == 1 else "replicas"
        rows.add(f"memory, bytes a key beyond its text, just asked for, {nodes} {plural}", flight, most=400 if nodes == 10 else None)
        rows.add(f"the same, idle but not full, {nodes} {plural}", idle, most=150)
