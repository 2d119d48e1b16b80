"""The ways in: HTTP and the Redis protocol, beside a bare server, throttlecrab, rateguard and Redis. CPU of the server
for one check is the honest figure, since one core of load seldom fills one core of server."""

import contextlib
import json
import re
import tempfile

from host import CACHE, RELEASE, Daemon, Server, accepts, free_port, median, run

LIMITS = '[[limit]]\nname = "api"\nrate = "1M/s"\nburst = 1000000\n'
# as many tokens as nobody takes, so that every answer is yes
BURST, COUNT, PERIOD = 1_000_000, 1_000_000, 1
KEYS = 1000
CONNECTIONS = 32

LUA_BUCKET = """
local now = redis.call('TIME'); now = now[1] + now[2] / 1000000
local burst, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local state = redis.call('HMGET', KEYS[1], 't', 'n')
local tokens = math.min(burst, (tonumber(state[2]) or burst) + (now - (tonumber(state[1]) or now)) * rate)
local allowed = tokens >= 1
if allowed then tokens = tokens - 1 end
redis.call('HSET', KEYS[1], 't', tostring(now), 'n', tostring(tokens))
redis.call('EXPIRE', KEYS[1], 60)
return {allowed and 1 or 0, math.floor(tokens)}
"""


def key(i):
    return f"key:{i:012d}"


def own_body(i):
    return json.dumps({"limit": "api", "key": key(i), "cost": 1}, separators=(",", ":"))


def batch_body(i):
    checks = [{"limit": "api", "key": key((i * 100 + j) % KEYS)} for j in range(100)]
    return json.dumps({"checks": checks}, separators=(",", ":"))


def crab_body(i):
    rule = {"max_burst": BURST, "count_per_period": COUNT, "period": PERIOD}
    return json.dumps({"key": key(i)} | rule, separators=(",", ":"))


def guard_body(i):
    return json.dumps({"key": key(i)}, separators=(",", ":"))


def wrk(port, path, body, seconds, bodies=KEYS):
    """Requests answered in so many seconds, over TCP and kept connections."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        texts = ",\n".join(json.dumps(body(i)).replace("\\", "\\") for i in range(bodies))
        script.write(
            f"local bodies = {{\n{texts}\n}}\nlocal requests, n = {{}}, 0\n"
            'local headers = {["content-type"] = "application/json"}\n'
            f'init = function() for i, body in ipairs(bodies) do requests[i] = wrk.format("POST", "{path}", headers, body) end end\n'
            "request = function() n = n % #requests + 1; return requests[n] end\n"
        )
        script.flush()
        out = run(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", script.name, f"http://127.0.0.1:{port}"])
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"errors of {path} at {port}: {out}")
    return int(re.search(r"(\d+) requests in", out)[1])


def load(target, path, body, seconds, pipeline=1, bodies=KEYS, connections=CONNECTIONS):
    """The same by the load of examples/: requests, and their median, p99 and p99.9 in microseconds."""
    texts = [body(i) for i in range(bodies)]
    out = run([RELEASE / "examples/load", target, connections, pipeline, seconds, path, *texts])
    good, bad, *micros = map(int, out.split())
    if bad or not good:
        raise SystemExit(f"{bad} errors of {path} at {target}")
    return good, micros


def costs(server, requests):
    """Microseconds of the server's core for one of the requests that this makes, and requests in all."""
    before = server.cpu()
    count = requests()
    return (server.cpu() - before) / count * 1e6, count


def in_turn(subjects, rounds):
    """Medians by name: each subject once a round, so that what else the machine does falls on all."""
    seen = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, measure in subjects.items():
            seen[name].append(measure())
    return seen


def ratio(seen, name, base):
    return median([a / b for a, b in zip(seen[name], seen[base])])


def http(rows, rounds, seconds):
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Daemon(LIMITS))
        ports = {name: free_port() for name in ("bare", "crab", "guard")}
        bare_path = f"{ours.directory}/bare.sock"
        serve = lambda name, *command: stack.enter_context(Server(command, accepts(ports[name])))
        bare = serve("bare", RELEASE / "examples/bare", f"127.0.0.1:{ports['bare']}")
        bare_unix = stack.enter_context(Server([RELEASE / "examples/bare", bare_path], lambda: __import__("os").path.exists(bare_path)))
        crab = serve("crab", CACHE / "bin/throttlecrab-server", "--http", "--http-host", "127.0.0.1", "--http-port", ports["crab"], "--log-level", "error")
        guard = serve("guard", CACHE / "bin/rateguard-sidecar", "--limit", "1000000", "--burst", "1000000", "--bind", f"127.0.0.1:{free_port()}",
                      "--advertise", f"127.0.0.1:{ports['guard']}", "--listen", f"127.0.0.1:{ports['guard']}", "--drain", "0s")
        cost = lambda server, requests: lambda: costs(server, requests)[0]
        tcp = f"127.0.0.1:{ours.http}"
        seen = in_turn({
            "bare": cost(bare, lambda: wrk(ports["bare"], "/v1/check", own_body, seconds)),
            "ours": cost(ours, lambda: wrk(ours.http, "/v1/check", own_body, seconds)),
            "crab": cost(crab, lambda: wrk(ports["crab"], "/throttle", crab_body, seconds)),
            "guard": cost(guard, lambda: wrk(ports["guard"], "/v1/check", guard_body, seconds)),
            "batch": cost(ours, lambda: wrk(ours.http, "/v1/checks", batch_body, seconds, bodies=50)),
            "tcp by load": cost(ours, lambda: load(tcp, "/v1/check", own_body, seconds)[0]),
            "unix": cost(ours, lambda: load(ours.unix, "/v1/check", own_body, seconds)[0]),
            "unix bare": cost(bare_unix, lambda: load(bare_path, "/v1/check", own_body, seconds)[0]),
            "pipelined": cost(ours, lambda: load(tcp, "/v1/check", own_body, seconds, pipeline=16)[0]),
            "pipelined bare": cost(bare, lambda: load(f"127.0.0.1:{ports['bare']}", "/v1/check", own_body, seconds, pipeline=16)[0]),
            "pipelined crab": cost(crab, lambda: load(f"127.0.0.1:{ports['crab']}", "/throttle", crab_body, seconds, pipeline=16)[0]),
        }, rounds)
    for name, numbers in seen.items():
        rows.note(f"HTTP {name}: {median(numbers):.2f} us of the server's core a request")
    better = min(("crab", "guard"), key=lambda name: median(seen[name]))
    rows.add("HTTP over TCP, server CPU a check, of a bare server's on the same stack", ratio(seen, "ours", "bare"), most=1.25)
    rows.add(f"the same, of the better of throttlecrab's and rateguard's ({better})", ratio(seen, "ours", better), most=0.8)
    rows.add("HTTP over the Unix socket, CPU a check, of our own TCP", ratio(seen, "unix", "tcp by load"), most=0.75)
    rows.add("the same, of the bare server's over a Unix socket", ratio(seen, "unix", "unix bare"))
    rows.add("HTTP in batches of 100, million checks a second of one core", 100 / median(seen["batch"]), least=1.0)
    rows.add("HTTP pipelined by 16, checks for the same CPU, of throttlecrab's", ratio(seen, "pipelined crab", "pipelined"), least=5.0)
    rows.add("the same, CPU a check, of the bare server's", ratio(seen, "pipelined", "pipelined bare"))


def benchmark(port, pipeline, seconds, *command):
    """redis-benchmark for about so long: requests in all, and how many a second of the longer run."""
    def go(n):
        args = ["redis-benchmark", "-h", "127.0.0.1", "-p", port, "-c", 50, "-P", pipeline, "-r", KEYS, "-n", n, "--csv", *command]
        return float(run(args).strip().splitlines()[-1].split('","')[1].strip('"'))
    trial = 5000 * pipeline
    n = max(trial, int(go(trial) * seconds) // pipeline * pipeline)
    return trial + n, go(n)


def resp(rows, rounds, seconds):
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Daemon(LIMITS))
        redis_port, crab_port = free_port(), free_port()
        redis = stack.enter_context(Server(
            ["redis-server", "--port", redis_port, "--save", "", "--appendonly", "no", "--dir", "/tmp"], accepts(redis_port)))
        crab = stack.enter_context(Server(
            [CACHE / "bin/throttlecrab-server", "--redis", "--redis-host", "127.0.0.1", "--redis-port", crab_port, "--log-level", "error"],
            accepts(crab_port)))
        script = run(["redis-cli", "-p", redis_port, "SCRIPT", "LOAD", LUA_BUCKET]).strip()
        rand = "key:__rand_int__"
        for pipeline in (1, 16, 32):
            def measure(server, port, *command):
                def once():
                    before = server.cpu()
                    n, a_second = benchmark(port, pipeline, seconds, *command)
                    return a_second, (server.cpu() - before) / n
                return once
            seen = in_turn({
                "INCR": measure(redis, redis_port, "INCR", rand),
                "ours": measure(ours, ours.resp, "CL.THROTTLE", rand, BURST, COUNT, PERIOD),
                "Lua": measure(redis, redis_port, "EVALSHA", script, "1", "lua:__rand_int__", BURST, COUNT),
                "crab": measure(crab, crab_port, "THROTTLE", rand, BURST, COUNT, PERIOD),
            }, rounds)
            speed = {name: [s for s, _ in both] for name, both in seen.items()}
            cpu = {name: [c for _, c in both] for name, both in seen.items()}
            for name in seen:
                rows.note(f"RESP pipeline {pipeline}, {name}: {median(speed[name]):.0f}/s, {median(cpu[name]) * 1e6:.2f} us CPU")
            least = {1: 1.0, 16: None, 32: 0.8}[pipeline]
            rows.add(f"RESP pipeline {pipeline}, CL.THROTTLE a second, of Redis' INCR", ratio(speed, "ours", "INCR"), least=least)
            rows.add(f"RESP pipeline {pipeline}, server CPU a command, of Redis' INCR", ratio(cpu, "ours", "INCR"))
            rows.add(f"RESP pipeline {pipeline}, a second, of Redis' Lua bucket", ratio(speed, "ours", "Lua"), least=6.0 if pipeline == 32 else None)
            rows.add(f"RESP pipeline {pipeline}, a second, of throttlecrab's", ratio(speed, "ours", "crab"))
