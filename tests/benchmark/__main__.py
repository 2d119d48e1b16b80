"""Runs the parts of the suite and writes what they say: see tests/bench."""

import argparse
import json
import os
import re
import sys
import time

import cluster
import ways
from host import RELEASE, ROOT, Daemon, Server, accepts, free_port, load_average, machine, median, run

BEGIN, END = "<!-- tests/bench writes from here -->", "<!-- to here -->"
# medians of so many rounds of so many seconds
FULL, QUICK = (11, 1), (1, 1)


class Rows:
    """Rows of the table, and notes beside them."""

    def __init__(self):
        self.rows, self.notes = [], []

    def add(self, what, value, most=None, least=None):
        goal = f"at most {most:g}" if most is not None else f"at least {least:g}" if least is not None else ""
        good = None if not goal else value <= most if most is not None else value >= least
        self.rows.append({"what": what, "value": value, "goal": goal, "good": good})
        print(f"{what}: {value:.3g}{f' ({goal})' if goal else ''}{'' if good is not False else '  MISSED'}", flush=True)

    def note(self, text):
        self.notes.append(text)
        print(f"    {text}", flush=True)


def core(rows, _rounds, _seconds):
    out = run(["cargo", "bench", "-q", "-p", "spillgate-core", "--locked", "--", "--json"], core="0-" + str(os.cpu_count() - 1))
    for line in out.splitlines():
        if not line.startswith("{"):
            continue
        seen = json.loads(line)
        rows.note(f"core, {seen['name']}: {seen['nanos']:.0f} ns")
        if seen["ratio"] is None or seen["name"].startswith("governor"):
            continue
        goal = None
        if seen["name"].startswith("one of two nodes") and "denied" not in seen["name"]:
            goal = 1.3 if "1 thread" in seen["name"] else 1.0
        rows.add(f"check in the core, of governor's: {seen['name']}", seen["ratio"], most=goal)


def begin(rows, rounds, _seconds):
    ours, theirs = [], []
    for _ in range(max(3, rounds)):
        with Daemon(ways.LIMITS) as daemon:
            ours.append(daemon.started_in)
        port = free_port()
        with Server(["redis-server", "--port", port, "--save", "", "--dir", "/tmp"], accepts(port)) as redis:
            theirs.append(redis.started_in)
    rows.note(f"start: {median(ours) * 1000:.0f} ms")
    rows.add("time from start to the first connection, of redis-server's", median([a / b for a, b in zip(ours, theirs)]))
    rows.add("size of the program without debug information, MB", stripped_size() / 1e6)


def stripped_size():
    target = ROOT / "target/bench/spillgate"
    run(["strip", "-o", target, RELEASE / "spillgate"])
    return target.stat().st_size


PARTS = {"core": core, "http": ways.http, "resp": ways.resp, "cluster": cluster.gossip, "memory": cluster.memory, "start": begin}


def table(results):
    """The README's table of all results there are."""
    lines = ["| measured | here | goal |", "| --- | --- | --- |"]
    for part in PARTS:
        for row in results.get(part, {}).get("rows", []):
            missed = " (missed)" if row["good"] is False else ""
            lines.append(f"| {row['what']} | {row['value']:.3g} | {row['goal']}{missed} |")
    return lines


def write_readme(results):
    readme = ROOT / "README.md"
    text = readme.read_text()
    commands = "`bash tests/bench`" + ("" if all(not r["quick"] for r in results.values()) else " (some parts with `--quick`)")
    busiest = max(r["load"] for r in results.values())
    about = f"{commands}, on {results[next(iter(results))]['machine']}; load of the machine by others up to {busiest:.1f}:"
    lines = [BEGIN, about, "", *table(results), END]
    found = re.search(re.escape(BEGIN) + ".*" + re.escape(END), text, re.S)
    if not found:
        raise SystemExit(f"README.md has no place for the table, between {BEGIN} and {END}")
    readme.write_text(text[:found.start()] + "\n".join(lines) + text[found.end():])


def main():
    parser = argparse.ArgumentParser(prog="tests/bench")
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)}; all where none is named")
    parser.add_argument("--quick", action="store_true", help="one short round: whether it runs, not what it says")
    parser.add_argument("--no-readme", action="store_true", help="leave the table of the README as it is")
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    kept = ROOT / "target/bench/results.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(kept.read_text()) if kept.exists() else {}
    for part in args.parts or PARTS:
        print(f"== {part}", flush=True)
        rows, before = Rows(), load_average()
        PARTS[part](rows, *(QUICK if args.quick else FULL))
        results[part] = {
            "rows": rows.rows, "notes": rows.notes, "machine": machine(), "quick": args.quick,
            # the load of the machine before the part began is not the part's own
            "load": before, "at": time.strftime("%Y-%m-%d %H:%M"),
        }
        kept.write_text(json.dumps(results, indent=1))
    if not args.no_readme:
        write_readme(results)
    missed = [row["what"] for part in args.parts or PARTS for row in results[part]["rows"] if row["good"] is False]
    print(f"\n{len(missed)} goals missed" + "".join(f"\n  {what}" for what in missed))
    return 0


sys.exit(main())
