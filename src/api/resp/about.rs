//! What clients ask about the server itself: `COMMAND`, `INFO`, `CLIENT`. It must not know checks.

use std::fmt::Write as _;

use super::Resp;
use super::reply::Reply;
use crate::api::Readiness;

/// The version of Redis whose protocol this is: clients choose by it what they may send.
const REDIS_VERSION: &str = "7.0.0";

/// A command, as `COMMAND` describes it.
struct Described {
    name: &'static str,
    /// How many arguments it has, the name among them; at least so many where negative.
    arity: i64,
    /// Which argument is a key; 0: none.
    key: i64,
    summary: &'static str,
}

const fn described(name: &'static str, arity: i64, key: i64, summary: &'static str) -> Described {
    Described { name, arity, key, summary }
}

static COMMANDS: [Described; 13] = [
    described("cl.throttle", -5, 1, "Checks a key under a rule of the caller's, as redis-cell does"),
    described("throttle", -5, 1, "Checks a key under a rule of the caller's, as throttlecrab does"),
    described("spillgate.check", -3, 2, "Checks a key under a configured limit"),
    described("ping", -1, 0, "Answers PONG, or what it is given"),
    described("echo", 2, 0, "Answers what it is given"),
    described("hello", -1, 0, "Greets, and sets the version of the protocol"),
    described("auth", -2, 0, "Presents the token"),
    described("client", -2, 0, "Tells or sets what is known of the connection"),
    described("command", -1, 0, "Describes the commands"),
    described("info", -1, 0, "Describes the server"),
    described("select", 2, 0, "Takes 0, since there is one keyspace"),
    described("reset", 1, 0, "Makes the connection as it was at first"),
    described("quit", -1, 0, "Ends the connection"),
];

/// Answers `COMMAND` with these arguments behind the name.
pub fn command(args: &[&[u8]], reply: &mut Reply<'_>) {
    let is = |text: &str| args.first().is_some_and(|a| a.eq_ignore_ascii_case(text.as_bytes()));
    let names = args.get(1..).unwrap_or_default();
    let find = |name: &&[u8]| COMMANDS.iter().find(|c| name.eq_ignore_ascii_case(c.name.as_bytes()));
    if args.is_empty() {
        reply.array(COMMANDS.len());
        COMMANDS.iter().for_each(|c| entry(c, reply));
    } else if is("count") {
        reply.unsigned(COMMANDS.len() as u64);
    } else if is("list") {
        reply.array(COMMANDS.len());
        COMMANDS.iter().for_each(|c| reply.bulk(c.name));
    } else if is("info") && !names.is_empty() {
        reply.array(names.len());
        names.iter().for_each(|name| match find(name) {
            Some(command) => entry(command, reply),
            None => reply.null(),
        });
    } else if is("info") {
        reply.array(COMMANDS.len());
        COMMANDS.iter().for_each(|c| entry(c, reply));
    } else if is("docs") {
        let picked: Vec<_> =
            if names.is_empty() { COMMANDS.iter().collect() } else { names.iter().filter_map(find).collect() };
        reply.map(picked.len());
        picked.into_iter().for_each(|c| docs(c, reply));
    } else {
        reply.error("ERR", "unknown subcommand; COMMAND takes COUNT, LIST, INFO and DOCS");
    }
}

/// Name, arity, flags, first and last key, step, categories, tips, key specifications, subcommands.
fn entry(command: &Described, reply: &mut Reply<'_>) {
    reply.array(10);
    reply.bulk(command.name);
    reply.number(command.arity);
    reply.array(1);
    reply.simple("fast");
    reply.number(command.key);
    reply.number(command.key);
    reply.number(command.key.min(1));
    (0..4).for_each(|_| reply.array(0));
}

fn docs(command: &Described, reply: &mut Reply<'_>) {
    reply.bulk(command.name);
    reply.map(3);
    for (name, value) in [("summary", command.summary), ("since", "0.1.0"), ("group", "generic")] {
        reply.bulk(name);
        reply.bulk(value);
    }
}

/// Answers `INFO`: what clients look for when they connect, and a little for people.
pub fn info(resp: &Resp, reply: &mut Reply<'_>) {
    let identity = resp.api.control.identity();
    // a client that reads this waits while a server is loading
    let loading = u8::from(resp.api.control.readiness() == Readiness::Joining);
    let commands: u64 = resp.counts.commands().map(|(_, n)| n).sum();
    let mut text = String::new();
    for (name, value) in [
        ("redis_version", REDIS_VERSION),
        ("redis_mode", "standalone"),
        ("role", "master"),
        ("spillgate_version", identity.version),
        ("node", identity.node.as_str()),
        ("readiness", resp.api.control.readiness().as_str()),
    ] {
        // writing to a string does not fail
        let _ = write!(text, "{name}:{value}\r\n");
    }
    for (name, value) in [
        ("loading", u64::from(loading)),
        ("process_id", u64::from(std::process::id())),
        ("uptime_in_seconds", identity.uptime.0 / 1_000_000_000),
        ("connected_clients", resp.counts.open()),
        ("total_commands_processed", commands),
    ] {
        let _ = write!(text, "{name}:{value}\r\n");
    }
    reply.bulk(text);
}
