//! What `check`, `peek`, `refund`, `reset`, `status` and `top` ask a daemon, and how they print it. It must not know
//! arguments, nor how the daemon is reached.
//!
//! Every error here stands for exit code 2; a denial is no error and exits with 1.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::Exit;
use crate::client::{Client, ClientError};

/// Characters of a key that a table shows.
const KEY_CHARS_SHOWN: usize = 60;
/// Keys in each of the lists of `status`.
const STATUS_KEYS: usize = 10;

/// Where a command prints, and how.
pub struct Output<'a> {
    /// Takes the text.
    pub to: &'a mut dyn Write,
    /// The daemon's own JSON on one line, instead of text for people.
    pub json: bool,
}

impl Output<'_> {
    fn print(&mut self, value: &Value, text: impl FnOnce(&Value) -> String) -> Result<(), ClientError> {
        let text = if self.json { value.to_string() } else { text(value) };
        writeln!(self.to, "{text}")?;
        Ok(self.to.flush()?)
    }
}

/// Asks for `cost` tokens, for up to `wait`; exits with 0 when allowed and 1 when denied.
///
/// # Errors
/// [`ClientError`], with exit code 2.
pub async fn check(
    client: &Client,
    limit: &str,
    key: &str,
    cost: u64,
    wait: Duration,
    priority: Option<&str>,
    output: &mut Output<'_>,
) -> Result<Exit, ClientError> {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let body = json!({"limit": limit, "key": key, "cost": cost, "wait_ms": wait_ms, "priority": priority});
    // a longer wait is refused at once
    let answer = client.post("/v1/check", &body, wait.min(Duration::from_secs(60))).await?;
    output.print(&answer, check_text)?;
    Ok(if answer["allowed"] == true { Exit::Ok } else { Exit::Negative })
}

/// Shows what is left without taking anything; exits with 0.
///
/// # Errors
/// [`ClientError`], with exit code 2.
pub async fn peek(client: &Client, limit: &str, key: &str, output: &mut Output<'_>) -> Result<Exit, ClientError> {
    let body = json!({"limit": limit, "key": key, "cost": 0});
    let answer = client.post("/v1/check", &body, Duration::ZERO).await?;
    output.print(&answer, left_text)?;
    Ok(Exit::Ok)
}

/// Gives `cost` tokens back; exits with 0.
///
/// # Errors
/// [`ClientError`], with exit code 2.
pub async fn refund(
    client: &Client,
    limit: &str,
    key: &str,
    cost: u64,
    output: &mut Output<'_>,
) -> Result<Exit, ClientError> {
    let body = json!({"limit": limit, "key": key, "cost": cost});
    let answer = client.post("/v1/refund", &body, Duration::ZERO).await?;
    output.print(&answer, refund_text)?;
    Ok(Exit::Ok)
}

/// Gives a key its whole capacity again; exits with 0.
///
/// # Errors
/// [`ClientError`], with exit code 2.
pub async fn reset(client: &Client, limit: &str, key: &str, output: &mut Output<'_>) -> Result<Exit, ClientError> {
    let answer = client.post("/v1/reset", &json!({"limit": limit, "key": key}), Duration::ZERO).await?;
    output.print(&answer, refund_text)?;
    Ok(Exit::Ok)
}

/// Shows members, limits, and the hottest and most denied keys; exits with 0.
///
/// # Errors
/// [`ClientError`], with exit code 2.
pub async fn status(client: &Client, output: &mut Output<'_>) -> Result<Exit, ClientError> {
    let status = json!({
        "cluster": client.get("/v1/cluster").await?,
        "limits": client.get("/v1/limits").await?["limits"].take(),
        "granted": busiest(client, "granted", STATUS_KEYS).await?,
        "denied": busiest(client, "denied", STATUS_KEYS).await?,
    });
    output.print(&status, status_text)?;
    Ok(Exit::Ok)
}

/// Shows the `n` (1 to 1000) hottest and most denied keys once; exits with 0.
///
/// # Errors
/// [`ClientError`], with exit code 2.
pub async fn top(client: &Client, n: usize, output: &mut Output<'_>) -> Result<Exit, ClientError> {
    let top = json!({"granted": busiest(client, "granted", n).await?, "denied": busiest(client, "denied", n).await?});
    output.print(&top, |top| [keys_text("HOTTEST KEYS", &top["granted"]), denied_text(top)].join("\n\n"))?;
    Ok(Exit::Ok)
}

async fn busiest(client: &Client, by: &str, n: usize) -> Result<Value, ClientError> {
    Ok(client.get(&format!("/v1/top?by={by}&n={n}")).await?["keys"].take())
}

fn check_text(answer: &Value) -> String {
    let left = left_text(answer);
    let reason = answer["reason"].as_str();
    if answer["allowed"] == true {
        let delay = Some(&answer["delay_ms"]).filter(|d| d.as_f64() > Some(0.0));
        let delay = delay.map(|d| format!(", go on in {}", time(d))).unwrap_or_default();
        let dry_run = reason.map(|r| format!(" (dry run, else denied: {r})")).unwrap_or_default();
        return format!("allowed{dry_run}{delay}: {left}");
    }
    format!(
        "denied ({}), retry in {}: {left}",
        reason.unwrap_or("another check refused"),
        time(&answer["retry_after_ms"])
    )
}

fn left_text(answer: &Value) -> String {
    let full = time(&answer["reset_after_ms"]);
    format!("{} of {} left, all of it again in {full}", answer["remaining"], answer["capacity"])
}

fn refund_text(answer: &Value) -> String {
    format!("gave back {}: {} of {} left", answer["refunded"], answer["remaining"], answer["capacity"])
}

fn status_text(status: &Value) -> String {
    let cluster = &status["cluster"];
    let name = cluster["cluster"].as_str().map_or("no cluster".to_owned(), |c| format!("cluster {}", printable(c)));
    let head = format!(
        "node {}, {name}, {}, up {}, version {}",
        text(&cluster["node"]),
        text(&cluster["state"]),
        time(&cluster["uptime_ms"]),
        text(&cluster["version"])
    );
    let head = match store_text(cluster) {
        Some(store) => format!("{head}\n{store}"),
        None => head,
    };
    let parts = [
        head,
        members_text(&cluster["members"]),
        limits_text(&status["limits"]),
        keys_text("HOTTEST KEYS", &status["granted"]),
        denied_text(status),
    ];
    parts.join("\n\n")
}

/// Who decides, where a central store may.
fn store_text(cluster: &Value) -> Option<String> {
    let redis = cluster["redis"].as_object()?;
    let count = |member: &str| redis[member].as_u64().unwrap_or_default();
    let error = redis["last_error"].as_str().map(|e| format!(": {}", printable(e))).unwrap_or_default();
    Some(format!(
        "redis {} ({}) is {}{error}; mode now {}, switched over {} times and back {}",
        text(&redis["address"]),
        text(&redis["mode"]),
        text(&redis["state"]),
        text(&cluster["mode"]),
        count("switched_over"),
        count("switched_back"),
    ))
}

fn members_text(members: &Value) -> String {
    let header = ["MEMBER", "STATE", "ADDRESS", "ROUND TRIP", "NEWS AGE", "CLOCK OFFSET", "LOST"];
    let row = |m: &Value| {
        let this = m["self"] == true;
        let node = if this { format!("{} (this)", text(&m["node"])) } else { text(&m["node"]) };
        let lost = if this { "-".to_owned() } else { format!("{} of {}", m["frames_lost"], m["frames_sent"]) };
        let times = ["round_trip_ms", "news_age_ms", "clock_offset_ms"].map(|t| time(&m[t]));
        let [round_trip, news_age, offset] = times;
        vec![node, text(&m["state"]), text(&m["address"]), round_trip, news_age, offset, lost]
    };
    table(&header, rows(members, row))
}

fn limits_text(limits: &Value) -> String {
    let header = ["LIMIT", "ALGORITHM", "RATE", "CAPACITY", "ACCURACY", "OVERRIDES"];
    let row = |l: &Value| {
        let enforced = if l["enforce"] == false { " (dry run)" } else { "" };
        let accuracy = match l["max_overshoot"].as_f64() {
            Some(f) => format!("{} {}%", text(&l["accuracy"]), (f * 1e6).round() / 1e4),
            None => text(&l["accuracy"]),
        };
        let overrides = l["overrides"].as_array().map_or(0, Vec::len).to_string();
        let name = text(&l["name"]) + enforced;
        vec![name, text(&l["algorithm"]), text(&l["rate"]), text(&l["capacity"]), accuracy, overrides]
    };
    table(&header, rows(limits, row))
}

fn keys_text(title: &str, keys: &Value) -> String {
    let row = |k: &Value| ["key", "limit", "granted", "denied"].map(|member| text(&k[member])).to_vec();
    table(&[title, "LIMIT", "GRANTED", "DENIED"], rows(keys, row))
}

/// Only the keys that were denied at all: the daemon fills the list with others.
fn denied_text(of: &Value) -> String {
    let denied = of["denied"].as_array().map_or(&[][..], Vec::as_slice);
    let denied = denied.iter().filter(|k| k["denied"].as_u64() > Some(0)).cloned().collect();
    keys_text("MOST DENIED KEYS", &Value::Array(denied))
}

fn rows(values: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    values.as_array().map_or(&[][..], Vec::as_slice).iter().map(row).collect()
}

/// Columns as wide as their widest cell, two spaces apart.
fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let width = |i: usize| {
        let cells = rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count());
        cells.chain([header[i].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.extend(rows.iter().map(|r| line(&mut r.iter().map(String::as_str))));
    if rows.is_empty() {
        lines.push("(none)".to_owned());
    }
    lines.join("\n")
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

/// Keys come from anywhere: what could steer a terminal is escaped, and what is long is cut.
fn printable(text: &str) -> String {
    let mut shown = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == KEY_CHARS_SHOWN {
            shown.push('…');
            break;
        }
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Milliseconds in the unit that people would take.
fn time(ms: &Value) -> String {
    let Some(ms) = ms.as_f64() else { return "-".to_owned() };
    let size = ms.abs();
    match size {
        _ if size == 0.0 => "0 ms".to_owned(),
        _ if size < 10.0 => format!("{ms:.1} ms"),
        _ if size < 1e3 => format!("{ms:.0} ms"),
        _ if size < 120e3 => format!("{:.1} s", ms / 1e3),
        _ if size < 7200e3 => format!("{:.0} min", ms / 60e3),
        _ if size < 48.0 * 3600e3 => format!("{:.1} h", ms / 3600e3),
        _ => format!("{:.1} d", ms / 86_400e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::post;
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use crate::api::serve_tcp;

    fn answer(allowed: bool, reason: Value) -> Value {
        json!({"allowed": allowed, "remaining": 157, "capacity": 200, "retry_after_ms": 1500, "reset_after_ms": 430,
            "delay_ms": 0, "reason": reason})
    }

    #[test]
    fn an_answer_is_one_line_for_people() {
        assert_eq!(check_text(&answer(true, Value::Null)), "allowed: 157 of 200 left, all of it again in 430 ms");
        let denied = check_text(&answer(false, json!("unconfirmed")));
        assert_eq!(denied, "denied (unconfirmed), retry in 1.5 s: 157 of 200 left, all of it again in 430 ms");
        let dry_run = check_text(&answer(true, json!("over_limit")));
        assert!(dry_run.starts_with("allowed (dry run, else denied: over_limit): 157"), "{dry_run}");
        let mut delayed = answer(true, Value::Null);
        delayed["delay_ms"] = json!(20);
        assert!(check_text(&delayed).starts_with("allowed, go on in 20 ms: "));
    }

    #[test]
    fn times_are_shown_in_fitting_units() {
        for (ms, shown) in [
            (json!(0), "0 ms"),
            (json!(0.34), "0.3 ms"),
            (json!(-2.0), "-2.0 ms"),
            (json!(999), "999 ms"),
            (json!(61_000), "61.0 s"),
            (json!(600_000), "10 min"),
            (json!(86_400_000), "24.0 h"),
            (json!(864_000_000), "10.0 d"),
            (Value::Null, "-"),
        ] {
            assert_eq!(time(&ms), shown);
        }
    }

    #[test]
    fn tables_are_aligned_and_harmless() {
        let keys = json!([
            {"limit": "api", "key": "\u{1b}[2Jüber", "granted": 10, "denied": 0},
            {"limit": "per-ip", "key": "k".repeat(100), "granted": 7, "denied": 3},
        ]);
        let shown = keys_text("HOTTEST KEYS", &keys);
        assert!(!shown.contains('\u{1b}'), "{shown}");
        let columns: Vec<usize> = shown
            .lines()
            .map(|l| {
                let at = l.find("LIMIT").or_else(|| l.find("api")).or_else(|| l.find("per-ip")).unwrap();
                l[..at].chars().count()
            })
            .collect();
        assert_eq!(columns, [KEY_CHARS_SHOWN + 3; 3], "{shown}");
        let denied = denied_text(&json!({"denied": keys}));
        assert_eq!(denied.lines().count(), 2, "{denied}");
        assert!(keys_text("HOTTEST KEYS", &json!([])).ends_with("\n(none)"));
    }

    #[test]
    fn a_status_tells_members_and_limits() {
        let status = json!({
            "cluster": {"cluster": "prod", "node": "a", "state": "ready", "uptime_ms": 5000, "version": "0.1.0",
                "members": [
                    {"node": "a", "self": true, "state": "alive", "address": null, "round_trip_ms": null,
                        "news_age_ms": null, "clock_offset_ms": null, "frames_lost": 0, "frames_sent": 0},
                    {"node": "b", "self": false, "state": "silent", "address": "10.0.0.2:8471", "round_trip_ms": 1.52,
                        "news_age_ms": 250.0, "clock_offset_ms": -2.0, "frames_lost": 1, "frames_sent": 90},
                ]},
            "limits": [{"name": "api", "algorithm": "token-bucket", "rate": "100/s", "capacity": 200,
                "accuracy": "bounded", "max_overshoot": 0.05, "enforce": false, "overrides": [{}]}],
            "granted": [], "denied": [],
        });
        let shown = status_text(&status);
        assert!(shown.starts_with("node a, cluster prod, ready, up 5.0 s, version 0.1.0\n"), "{shown}");
        for line in [
            vec!["a (this)", "alive", "-", "-", "-", "-", "-"],
            vec!["b", "silent", "10.0.0.2:8471", "1.5 ms", "250 ms", "-2.0 ms", "1 of 90"],
            vec!["api (dry run)", "token-bucket", "100/s", "200", "bounded 5%", "1"],
        ] {
            let cells = |l: &str| l.split("  ").map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect();
            assert!(
                shown.lines().any(|l| {
                    let c: Vec<String> = cells(l);
                    c == line
                }),
                "{line:?} in\n{shown}"
            );
        }
    }

    #[tokio::test]
    async fn the_exit_code_is_the_decision() {
        let decide = async |body: String| {
            let asked: Value = serde_json::from_str(&body).unwrap();
            answer(asked["cost"].as_u64() <= Some(157), Value::Null).to_string()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, seen) = watch::channel(false);
        let served = tokio::spawn(serve_tcp(listener, Router::new().route("/v1/check", post(decide)), seen));
        let client = Client::new(format!("http://{address}").parse().unwrap(), None).unwrap();
        for (cost, code) in [(1, Exit::Ok), (158, Exit::Negative)] {
            let mut printed = Vec::new();
            let mut output = Output { to: &mut printed, json: true };
            let exit = check(&client, "api", "k", cost, Duration::ZERO, None, &mut output).await.unwrap();
            assert_eq!(format!("{exit:?}"), format!("{code:?}"));
            let printed: Value = serde_json::from_slice(&printed).unwrap();
            assert_eq!(printed["allowed"], cost == 1);
        }
        let mut output = Output { to: &mut Vec::new(), json: false };
        let gone = reset(&client, "api", "k", &mut output).await.unwrap_err();
        assert!(matches!(gone, ClientError::Exchange { .. }), "{gone}");
        shutdown.send(true).unwrap();
        served.await.unwrap();
    }
}
