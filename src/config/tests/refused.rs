//! Every kind of mistake: one problem, at its line, with the key, the value and what is allowed.

use super::super::keys::{Key, Kind, ROOT};
use super::super::{Config, Overrides};
use super::{problem, problems_with};

/// Asserts that `text` has one problem: on `line`, with every one of `parts` in it.
fn refused(text: &str, line: usize, parts: &[&str]) {
    let (at, message) = problem(text);
    assert_eq!(at, line, "{message} of:\n{text}");
    for part in parts {
        assert!(message.contains(part), "no {part:?} in {message:?} of:\n{text}");
    }
}

/// A file of two limits, the second on lines 5 to 7 with `more` from line 8.
fn limit(more: &str) -> String {
    format!("[[limit]]\nname = 'first'\nrate = '1/s'\n\n[[limit]]\nname = 'api'\nrate = '100/s'\n{more}\n")
}

/// A file with a cluster, `more` from line 3.
fn cluster(more: &str) -> String {
    format!("[cluster]\nsecret_file = 's'\n{more}\n")
}

#[test]
fn text_that_is_no_toml() {
    refused("[node]\nid = 'a'\nid = 'b'\n", 3, &["not TOML: duplicate key", "at id"]);
    refused("[node]\n\n[node]\n", 3, &["not TOML: duplicate key"]);
    refused("\n[http]\nlisten = \n", 3, &["not TOML: "]);
    refused("[node]\nid = \"a\nb\"\n", 2, &["not TOML: invalid basic string, expected `\"`"]);
    refused("[[limit]]\nname = 'a'\nrate = 100/s\n", 3, &["not TOML: string values must be quoted", "at 100/s"]);
    refused("[node\nid = 'a'\n", 1, &["not TOML: unclosed table"]);
    refused("[[limit]]\nname = \"api\nrate = '1/s'", 2, &["not TOML: "]);
}

#[test]
fn text_that_is_no_text() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.toml");
    std::fs::write(&file, b"[node]\nid = 'a\xff'\n").unwrap();
    let error = Config::load(Some(&file), &Overrides::default()).unwrap_err().to_string();
    assert_eq!(error, format!("{}:2: not TOML: the text is not UTF-8", file.display()));
}

#[test]
fn unknown_keys_with_what_was_probably_meant() {
    refused("[node]\nmaxkeys = 1", 2, &["node.maxkeys is not a known key", "did you mean \"max_keys\"?"]);
    refused(&cluster("gosip-interval = '1ms'"), 3, &["cluster.gosip-interval", "did you mean \"gossip_interval\"?"]);
    refused("[[limits]]\nname = 'a'", 1, &["limits is not a known key", "did you mean \"limit\"?"]);
    refused(&limit("Burst = 5"), 8, &["limit \"api\": Burst is not", "did you mean \"burst\"?"]);
    let unlike = limit("[[limit.override]]\nkey = 'k'\nburst = 1\nzzz = 5");
    refused(&unlike, 11, &["limit \"api\" override \"k\": zzz is not", "known here: key, rate, burst"]);
}

#[test]
fn keys_in_the_wrong_place() {
    refused(
        "listen = '127.0.0.1:1'",
        1,
        &["listen is not a known key", "it belongs under [http] or [resp] or [cluster]"],
    );
    refused("[node]\nid = 'a'\ngossip_interval = '1ms'", 3, &["it belongs under [cluster]"]);
}

#[test]
fn sections_of_later_work() {
    refused("[node]\nid = 'a'\n[envoy]\n", 3, &["envoy", "is not a known key"]);
    refused("[[rule]]\n", 1, &["rule is not a known key"]);
}

#[test]
fn tables_in_the_wrong_brackets() {
    refused("[limit]\nname = 'api'\nrate = '1/s'", 1, &["its header must be [[limit]]"]);
    refused("[[node]]\nid = 'a'", 1, &["its header must be [node]"]);
    refused(&limit("[limit.override]\nkey = 'a'\nburst = 1"), 8, &["its header must be [[limit.override]]"]);
    refused("\nhttp = 5", 2, &["http 5 must be a table"]);
    refused("limit = [\n5 ]", 1, &["its header must be [[limit]]"]);
}

#[test]
fn a_node_that_cannot_be() {
    refused("[node]\nid = 5", 2, &["node.id 5 must be 1 to 63 letters"]);
    for id in ["", "a b", "-a", "a.", "ä", &"a".repeat(64)] {
        refused(&format!("[node]\n\nid = '{id}'"), 3, &["node.id '", "must be 1 to 63 letters"]);
    }
    for keys in ["0", "999", "-1", "1_000_000_001", "1e6", "'1000'", "99999999999999999999"] {
        refused(&format!("[node]\nmax_keys = {keys}"), 2, &["node.max_keys ", keys, "from 1000 to 1000000000"]);
    }
}

#[test]
fn listeners_that_cannot_be() {
    for listen in ["'localhost:8470'", "'127.0.0.1'", "'127.0.0.1:99999'", "8470"] {
        refused(&format!("[http]\nlisten = {listen}"), 2, &["http.listen ", listen, "an IP address and a port"]);
    }
    let open = "[http]\nlisten = '0.0.0.0:8470'";
    refused(open, 2, &["http.listen 0.0.0.0:8470 ", "needs token_file (--token-file)", "127.0.0.1:8470"]);
    let open = "[resp]\nlisten = '0.0.0.0:8472'";
    refused(open, 2, &["resp.listen 0.0.0.0:8472 ", "needs [http] token_file (--token-file)", "127.0.0.1:8472"]);
    refused("[http]\nlisten = '0.0.0.0:8470'\ntoken_file = ''", 3, &["http.token_file '' must be a path"]);
    refused(&format!("[http]\nunix = '/{}'", "a".repeat(120)), 2, &["http.unix has 121 bytes", "at most 103"]);
}

#[test]
fn clusters_that_cannot_be() {
    refused(
        "\n[cluster]\nname = 'a'",
        2,
        &["secret_file (--secret-file) or [cluster.tls] is missing", "`spillgate secret"],
    );
    let both = cluster("\n[cluster.tls]\nca = 'a'\ncert = 'b'\nkey = 'c'");
    refused(&both, 4, &["cluster.tls and secret_file exclude each other"]);
    refused("[cluster.tls]\nca = 'a'\nkey = 'c'", 1, &["cluster.tls.cert is missing; it must be a path"]);
    refused(&cluster("name = 'a/b'"), 3, &["cluster.name 'a/b' must be"]);
    refused(&cluster("seeds = 'a:1'"), 3, &["cluster.seeds 'a:1' must be a list of hosts with ports"]);
    for seed in ["a", ":1", "a:0", "a:65536", "a:+1", "a b:1", "[::1]", "http://a:1"] {
        let text = cluster(&format!("seeds = [\n  'good:1',\n  '{seed}',\n]"));
        refused(&text, 5, &["cluster.seeds item", seed, "must be a host and a port"]);
    }
    for advertise in ["0.0.0.0:1", "[::]:1", "10.0.0.1:0", "224.0.0.1:1"] {
        let text = cluster(&format!("advertise = '{advertise}'"));
        refused(&text, 3, &["cluster.advertise ", advertise, "other nodes can dial"]);
    }
}

#[test]
fn times_of_the_cluster_that_make_no_sense() {
    for time in ["10", "'ten'", "'10'", "'0s'", "'999us'", "'1001ms'", "'1 d'"] {
        let text = cluster(&format!("gossip_interval = {time}"));
        refused(&text, 3, &["cluster.gossip_interval ", time, "a duration from 1ms to 1s like \"500ms\""]);
    }
    refused(&cluster("stale_after = '199ms'"), 3, &["stale_after 199ms must be at least 200ms", "keep-alive"]);
    refused(&cluster("gossip_interval = '51ms'"), 3, &["stale_after 200ms must be at least 204ms", "(51ms)"]);
    let both = cluster("stale_after = '200ms'\ngossip_interval = '51ms'");
    refused(&both, 3, &["stale_after 200ms must be at least 204ms"]);
    refused(&cluster("forget_after = '1s'\nstale_after = '501ms'"), 3, &["forget_after 1s must be at least 1002ms"]);
    refused(&cluster("stale_after = '31s'"), 3, &["forget_after 1m must be at least 62s", "stale_after (31s)"]);
    refused(&cluster("join_timeout = '11m'"), 3, &["cluster.join_timeout '11m' must be", "from 0s to 10m"]);
}

#[test]
fn limits_without_their_parts() {
    refused("\n[[limit]]\nname = 'api'\n", 2, &["limit \"api\": rate is missing", "\"100/s\""]);
    refused("[[limit]]\nname = 'a'\nrate = '1/s'\n[[limit]]\nrate = '1/s'\n", 4, &["limit #2: name is missing"]);
    refused(&limit("[[limit.override]]\nburst = 1"), 8, &["limit \"api\" override #1: key is missing"]);
    refused(&limit("[[limit.override]]\nkey = 'k'"), 9, &["override \"k\": the override changes nothing"]);
}

#[test]
fn limits_with_values_out_of_their_range() {
    refused("[[limit]]\nname = 'api'\nrate = '100/x'", 3, &["limit \"api\": rate \"100/x\" is not like \"100/s\""]);
    refused("[[limit]]\nname = 'api'\nrate = '0/s'", 3, &["rate \"0/s\" must give from 1"]);
    refused("[[limit]]\nname = 'api'\nrate = '1/1000d'", 3, &["the period of rate \"1/1000d\" must be from"]);
    refused("[[limit]]\nname = 'api'\nrate = 100", 3, &["rate 100 must be a rate like"]);
    refused("[[limit]]\nname = 'a b'\nrate = '1/s'", 2, &["limit name \"a b\" must be 1 to 128 letters"]);
    for burst in ["0", "-1", "1.5", "'many'", "1000000000001"] {
        refused(&limit(&format!("burst = {burst}")), 8, &["limit \"api\": burst ", burst, "from 1 to 1000000000000"]);
    }
    for part in ["0", "'0%'", "'101%'", "1.5", "nan", "'5'", "'%'", "true"] {
        refused(&limit(&format!("max_overshoot = {part}")), 8, &["max_overshoot ", part, "\"5%\" or 0.05"]);
    }
    refused(&limit("confirm_wait = '1h'"), 8, &["limit \"api\": confirm_wait '1h' must be", "from 0s to 10s"]);
    refused(&limit("enforce = 'no'"), 8, &["limit \"api\": enforce 'no' must be true or false"]);
    refused(&limit("algorithm = 5"), 8, &["algorithm 5 must be one of \"token-bucket\", "]);
    let near = ["algorithm \"token_bucket\" must be one of", "did you mean \"token-bucket\"?"];
    refused(&limit("algorithm = 'token_bucket'"), 8, &near);
    refused(
        &limit("on_partition = 'allow'"),
        8,
        &["on_partition 'allow' must be one of \"share\", \"continue\", \"deny\""],
    );
}

#[test]
fn limits_whose_values_contradict() {
    refused(&limit("burst = 5\nalgorithm = 'fixed-window'"), 8, &["burst 5 has no meaning for fixed-window"]);
    refused(&limit("\nmax_delay = '1s'"), 9, &["max_delay has no meaning for token-bucket"]);
    let strict = limit("max_overshoot = '5%'\naccuracy = 'strict'");
    refused(&strict, 8, &["max_overshoot has no meaning for accuracy = \"strict\""]);
    let windowed = limit("algorithm = 'fixed-window'\n[[limit.override]]\nkey = 'k'\nburst = 5");
    refused(&windowed, 11, &["limit \"api\" override \"k\": burst 5 has no meaning for fixed-window"]);
}

#[test]
fn reserves_that_cannot_be() {
    refused(&limit("reserve = 0.2"), 8, &["reserve 0.2 must be a table of priorities and parts"]);
    refused(&limit("reserve = { low = 2 }"), 8, &["reserve.low 2 must be a part from 0% to 100%"]);
    refused(&limit("reserve = { normal = 0.2 }"), 8, &["reserve.normal: requests of priority normal"]);
    refused(&limit("[limit.reserve]\nlow = 0.1\n'b c' = 0.1"), 10, &["priority \"b c\" must be 1 to 63 letters"]);
}

#[test]
fn names_and_keys_given_twice() {
    let text = limit("[[limit]]\nname = 'first'\nrate = '1/s'");
    refused(&text, 9, &["limit \"first\": the name \"first\" stands already on line 2"]);
    let text = limit("[[limit.override]]\nkey = 'k*'\nburst = 1\n[[limit.override]]\nkey = 'k*'\nburst = 2");
    refused(&text, 12, &["limit \"api\" override \"k*\": the key \"k*\" stands already on line 9"]);
}

#[test]
fn override_keys_that_cannot_match() {
    for key in ["", "a*b", "**", &"k".repeat(1025)] {
        let text = limit(&format!("[[limit.override]]\nkey = '{key}'\nburst = 1"));
        refused(&text, 9, &["override key ", "must be 1 to 1024 bytes with '*' at most once, at the end"]);
    }
}

#[test]
fn all_that_is_wrong_is_reported_at_once_by_line() {
    let text = "[[limit]]\nname = 'api'\nrate = '1/x'\nburst = 0\n[node]\nid = 5\nx = 1\n[cluster]\n";
    let lines: Vec<_> = problems_with(text, &Overrides::default()).iter().map(|p| p.line().unwrap()).collect();
    assert_eq!(lines, [3, 4, 6, 7, 8]);
    let many: String = (0..13).map(|n| format!("unknown_{n} = 1\n")).collect();
    let shown = super::read_with(&many, &Overrides::default()).unwrap_err().to_string();
    assert_eq!(shown.lines().count(), 11);
    assert!(shown.starts_with("dir/spillgate.toml:1: unknown_0 is not") && shown.ends_with("\nand 3 more"), "{shown}");
}

#[test]
fn long_values_are_not_repeated_in_full() {
    let (_, message) = problem(&format!("[node]\nid = '{}'", "x y ".repeat(1000)));
    assert!(message.len() < 300 && message.contains('…'), "{message}");
}

/// Proves that every key of the table is read: one that is not would be ignored without a word.
#[test]
fn a_value_of_the_wrong_type_is_noticed_at_every_key() {
    fn see(header: &str, keys: &[Key], seen: &mut usize) {
        for key in keys {
            *seen += 1;
            let text = format!("{header}\n{} = 1979-05-27\n", key.name);
            let problems = problems_with(&text, &Overrides::default());
            let line = text.lines().count();
            let own =
                problems.iter().find(|p| p.line() == Some(line)).unwrap_or_else(|| panic!("{text}: {problems:?}"));
            assert!(own.text().contains(key.name), "{own:?}");
            let path = format!("{}{}", header.trim_matches(['[', ']', '\n']), if header.is_empty() { "" } else { "." });
            match key.kind {
                Kind::Table(keys) => see(&format!("[{path}{}]", key.name), keys, seen),
                Kind::Tables(keys) if header.is_empty() => see(&format!("[[{}]]", key.name), keys, seen),
                Kind::Tables(keys) => see("[[limit]]\n[[limit.override]]", keys, seen),
                _ => {}
            }
        }
    }
    let mut seen = 0;
    see("", ROOT, &mut seen);
    assert!(seen >= 37, "only {seen} keys");
}
