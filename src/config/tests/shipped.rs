//! The files in `config/` say what the code does: every key is there, and every default is the code's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::super::keys::{Key, Kind, ROOT};
use super::super::{Config, CredentialFiles, Overrides, json_schema};
use super::read;

const SHIPPED: &str = include_str!("../../../config/spillgate.toml");

/// The key of a line `# key = value`, or the header of a line `# [header]`.
fn switched_off(line: &str) -> Option<(&str, &str)> {
    let setting = line.trim_start().strip_prefix("# ")?;
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    match setting.split_once(" = ") {
        Some((key, _)) if word(key) => Some((key, setting)),
        _ if setting.starts_with('[') && setting.ends_with(']') => Some((setting.trim_matches(['[', ']']), setting)),
        _ => None,
    }
}

/// The shipped file with every setting switched on but one side of what excludes itself: the secret, or certificates.
fn switched_on(with_secret: bool) -> String {
    let mut in_tls = false;
    let mut text = String::new();
    for line in SHIPPED.lines() {
        match switched_off(line) {
            Some((key, setting)) => {
                in_tls = key == "cluster.tls" || (in_tls && !setting.starts_with('['));
                let wanted = if with_secret { !in_tls } else { key != "secret_file" };
                text.push_str(if wanted { setting } else { line });
            }
            None => {
                in_tls &= !line.starts_with('[');
                text.push_str(line);
            }
        }
        text.push('\n');
    }
    text
}

/// Every value of the shipped file with all switched on, by the path of its key.
fn shipped_values() -> BTreeMap<String, Vec<toml::Value>> {
    fn see(path: &str, value: toml::Value, all: &mut BTreeMap<String, Vec<toml::Value>>) {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            toml::Value::Table(table) if path != "limit.reserve" => {
                table.into_iter().for_each(|(key, value)| see(&below(&key), value, all));
            }
            toml::Value::Array(items) if path.starts_with("limit") => {
                items.into_iter().for_each(|item| see(path, item, all));
            }
            other => all.entry(path.to_owned()).or_default().push(other),
        }
    }
    let mut all = BTreeMap::new();
    for with_secret in [true, false] {
        see("", toml::from_str(&switched_on(with_secret)).unwrap(), &mut all);
    }
    all
}

/// Every key that is no table, by its path.
fn keys() -> BTreeMap<String, &'static Key> {
    fn see(path: &str, keys: &'static [Key], all: &mut BTreeMap<String, &'static Key>) {
        for key in keys {
            let path = format!("{path}{}", key.name);
            match key.kind {
                Kind::Table(keys) | Kind::Tables(keys) => see(&format!("{path}."), keys, all),
                _ => assert!(all.insert(path, key).is_none()),
            }
        }
    }
    let mut all = BTreeMap::new();
    see("", ROOT, &mut all);
    all
}

/// Every path of the schema that is no table; each with its description and default.
fn schema_properties() -> BTreeMap<String, Value> {
    fn see(path: &str, schema: &Value, all: &mut BTreeMap<String, Value>) {
        for (name, property) in schema["properties"].as_object().unwrap() {
            let path = format!("{path}{name}");
            let table = if property["type"] == "array" { &property["items"] } else { property };
            if table["properties"].is_object() {
                assert_eq!(table["additionalProperties"], false, "{path}");
                see(&format!("{path}."), table, all);
            } else {
                all.insert(path, property.clone());
            }
        }
    }
    let mut all = BTreeMap::new();
    see("", &json_schema(), &mut all);
    all
}

#[test]
fn the_file_is_good_as_it_is_and_with_all_switched_on() {
    let config = read(SHIPPED);
    assert_eq!(config.cluster, None);
    assert_eq!(config.limits.len(), 3);
    // all but one of the two that can't be together
    let read = |secret: bool| {
        let text = switched_on(secret);
        read(&text.replacen("[resp]\n", "", 1).replacen("listen = \"127.0.0.1:8472\"", "", 1))
    };
    let cluster = read(true).cluster.unwrap();
    assert_eq!(cluster.credentials, CredentialFiles::Secret("/etc/spillgate/cluster.secret".into()));
    let cluster = read(false).cluster.unwrap();
    assert!(matches!(cluster.credentials, CredentialFiles::Tls { .. }));
}

#[test]
fn the_file_the_schema_and_the_code_have_the_same_keys() {
    let code: BTreeSet<_> = keys().into_keys().collect();
    assert_eq!(code, shipped_values().into_keys().collect());
    assert_eq!(code, schema_properties().into_keys().collect());
}

#[test]
fn every_key_with_a_default_stands_switched_off_in_the_file() {
    let off: BTreeSet<_> = SHIPPED.lines().filter_map(switched_off).map(|(key, _)| key).collect();
    for (path, key) in keys().into_iter().filter(|(_, k)| k.default.is_some()) {
        assert!(off.contains(key.name), "{path} has a default and does not stand as `# {} = ...`", key.name);
    }
}

#[test]
fn a_switched_off_setting_shows_its_default_or_says_that_it_is_an_example() {
    let defaults: BTreeMap<_, _> = keys().into_values().map(|k| (k.name, k.default)).collect();
    let mut comment = String::new();
    for line in SHIPPED.lines() {
        match switched_off(line) {
            Some((key, setting)) if !setting.starts_with('[') => {
                // listen is the one key that two tables have; which is meant, its value must tell
                let default = keys().into_iter().filter(|(_, k)| k.name == key).filter_map(|(_, k)| k.default);
                let (_, value) = setting.split_once(" = ").unwrap();
                let is_default = default.into_iter().any(|d| d == value);
                let is_example = defaults[key].is_none() && comment.trim_end().ends_with("example:");
                assert!(is_default || is_example, "{line}");
                comment.clear();
            }
            _ if line.trim_start().starts_with('#') => comment = line.to_owned(),
            _ => comment.clear(),
        }
    }
}

/// The one place where a stated default could differ from the code's: here each is written out and changes nothing.
#[test]
fn a_default_that_is_written_out_changes_nothing() {
    let base = |limit: &str, cluster: &str, more: &str| {
        format!(
            "[resp]\n[cluster]\nsecret_file = 's'\n{cluster}\n{more}\n[[limit]]\nname = 'a'\nrate = '7/s'\n{limit}\n"
        )
    };
    let plain = read(&base("", "", ""));
    let mut seen = 0;
    for (path, key) in keys() {
        let Some(default) = key.default else { continue };
        let (table, _) = path.rsplit_once('.').unwrap();
        let line = format!("{} = {default}", key.name);
        let text = match table {
            "limit" => base(&line, "", ""),
            "cluster" => base("", &line, ""),
            "redis" => {
                let with = |line: &str| {
                    let text = base("", "", &format!("[redis]\nurl = 'redis://r'\n{line}"));
                    read(&text.replacen("[resp]\n", "", 1))
                };
                assert_eq!(with(&line), with(""), "{path} = {default}");
                seen += 1;
                continue;
            }
            "resp" => base("", "", "").replacen("[resp]", &format!("[resp]\n{line}"), 1),
            other => base("", "", &format!("[{other}]\n{line}")),
        };
        assert_eq!(read(&text), plain, "{path} = {default}");
        seen += 1;
    }
    assert!(seen >= 15, "only {seen} defaults");
}

#[test]
fn the_schema_explains_every_key_and_states_every_default() {
    let keys = keys();
    for (path, property) in schema_properties() {
        assert!(property["description"].as_str().unwrap().len() > 10, "{path}");
        assert_eq!(property.get("default").is_some(), keys[&path].default.is_some(), "{path}");
    }
    let properties = schema_properties();
    assert_eq!(properties["node.max_keys"]["default"], 1_000_000);
    assert_eq!(properties["http.listen"]["default"], "127.0.0.1:8470");
    assert_eq!(properties["limit.enforce"]["default"], true);
    assert_eq!(json_schema()["properties"]["limit"]["items"]["required"], serde_json::json!(["name", "rate"]));
}

#[test]
fn the_example_of_a_cluster_fits_together() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/cluster");
    let load = |name: &str| Config::load(Some(&directory.join(name)), &Overrides::default()).unwrap();
    let nodes = ["a.toml", "b.toml", "c.toml"].map(load);
    let cluster = |node: &Config| node.cluster.clone().unwrap();
    let ids: BTreeSet<_> = nodes.iter().map(|n| n.node.id.as_str()).collect();
    let https: BTreeSet<_> = nodes.iter().map(|n| n.http.listen).collect();
    let listens: BTreeSet<_> = nodes.iter().map(|n| cluster(n).listen.to_string()).collect();
    assert_eq!((ids.len(), https.len(), listens.len()), (3, 3, 3));
    for node in &nodes {
        let seeds: BTreeSet<_> = cluster(node).seeds.into_iter().collect();
        let others: BTreeSet<_> = listens.iter().filter(|l| **l != cluster(node).listen.to_string()).cloned().collect();
        assert_eq!(seeds, others, "{}", node.node.id);
        assert_eq!(cluster(node).name, cluster(&nodes[0]).name);
        assert_eq!(cluster(node).credentials, CredentialFiles::Secret(directory.join("cluster.secret")));
        assert_eq!(node.limits, nodes[0].limits, "limits are the same on every node");
    }
}
