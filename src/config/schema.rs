//! The JSON Schema of the file, for editors and checkers. It must not know more than the table of keys does.

use serde_json::{Map, Value, json};

use super::keys::{Key, Kind, NAME_BYTES_MAX, ROOT};

/// A duration as core reads it.
const DURATION_PATTERN: &str = r"^(0|[0-9]+(\.[0-9]{1,9})?(ns|us|ms|s|m|min|h|d))$";
/// A rate as core reads it.
const RATE_PATTERN: &str = r"^[0-9_]+[kKMG]?/([0-9]+(\.[0-9]{1,9})?)?(ns|us|ms|s|m|min|h|d)$";
/// A percentage.
const PERCENT_PATTERN: &str = r"^[0-9]+(\.[0-9]+)?%$";

/// The schema of the whole file, draft 2020-12: every key with its meaning, its default and what it takes.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("spillgate.toml"));
    schema.insert("description".to_owned(), json!("Configuration of a spillgate node."));
    schema.extend(table(ROOT));
    Value::Object(schema)
}

fn table(keys: &[Key]) -> Map<String, Value> {
    let properties: Map<_, _> = keys.iter().map(|k| (k.name.to_owned(), Value::Object(property(k)))).collect();
    let required: Vec<_> = keys.iter().filter(|k| k.required).map(|k| k.name).collect();
    let mut table = object(json!({"type": "object", "additionalProperties": false, "properties": properties}));
    if !required.is_empty() {
        table.insert("required".to_owned(), json!(required));
    }
    table
}

fn property(key: &Key) -> Map<String, Value> {
    let mut property = object(json!({"description": key.about}));
    if let Some(default) = key.default {
        property.insert("default".to_owned(), json_of(default));
    }
    property.extend(match key.kind {
        Kind::Table(keys) => table(keys),
        Kind::Tables(keys) => object(json!({"type": "array", "items": table(keys)})),
        other => object(value(other)),
    });
    property
}

fn value(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Name => json!({
            "type": "string",
            "pattern": "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$",
            "maxLength": NAME_BYTES_MAX,
        }),
        Kind::Path => json!({"type": "string", "minLength": 1}),
        Kind::Address => json!({"type": "string", "pattern": "^.+:[0-9]{1,5}$"}),
        Kind::Seeds => json!({"type": "array", "items": {"type": "string", "pattern": "^.+:[0-9]{1,5}$"}}),
        Kind::Duration { least, most } => json!({
            "type": "string",
            "pattern": DURATION_PATTERN,
            "$comment": format!("from {least} to {most}"),
        }),
        Kind::Rate => json!({"type": "string", "pattern": RATE_PATTERN, "examples": ["100/s", "1M/d", "10/10s"]}),
        Kind::Count { least, most } => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Fraction { above_zero } => json!({"anyOf": [
            {"type": "string", "pattern": PERCENT_PATTERN},
            {"type": "number", if above_zero { "exclusiveMinimum" } else { "minimum" }: 0, "maximum": 1},
        ]}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Choice(words) => json!({"enum": words}),
        Kind::Fractions => json!({
            "type": "object",
            "additionalProperties": value(Kind::Fraction { above_zero: false }),
        }),
        Kind::Table(_) | Kind::Tables(_) => json!({}),
    }
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

/// A default, which the table of keys has as TOML, as JSON.
fn json_of(toml: &str) -> Value {
    let document: Result<toml::Table, _> = toml::from_str(&format!("value = {toml}"));
    let value = document.ok().and_then(|mut d| d.remove("value")).and_then(|v| serde_json::to_value(v).ok());
    value.expect("a test reads every default")
}
