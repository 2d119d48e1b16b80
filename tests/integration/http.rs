//! Every route, on one node: the exact shape of answers, and the headers. Limits refill so slowly here that counts can
//! be told to the token, and times to the second.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use crate::daemon::{Daemon, Setup, start_cluster, until};
use crate::http1::{Answer, request};

const LIMITS: &str = r#"
[[limit]]
name = "api"
rate = "1/h"
burst = 100
reserve = { low = 0.2 }
  [[limit.override]]
  key = "vip-*"
  burst = 500

[[limit]]
name = "daily"
algorithm = "fixed-window"
rate = "10/d"
accuracy = "strict"

[[limit]]
name = "dry"
rate = "1/h"
burst = 1
enforce = false

[[limit]]
name = "mail"
algorithm = "leaky-bucket"
rate = "1/h"
burst = 3
max_delay = "1h"

[[limit]]
name = "quick"
rate = "20/s"
burst = 1
"#;

pub async fn start() -> Daemon {
    let daemon = Daemon::start(&Arc::new(TempDir::new().unwrap()), Setup::single(LIMITS)).await;
    until("it is ready", async || daemon.ready().await).await;
    daemon
}

/// That it went well, as JSON.
fn good(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

/// The three headers: policy, state, retry.
fn headers(answer: &Answer) -> [Option<&str>; 3] {
    ["ratelimit-policy", "ratelimit", "retry-after"].map(|name| answer.header(name))
}

#[tokio::test]
async fn a_check_answers_in_the_documented_shape() {
    let daemon = start().await;
    let answer = daemon.post_raw("/v1/check", r#"{"limit":"api","key":"user:42","cost":30}"#).await;
    // 30 tokens come back in 30 hours, all 100 in 100
    let expected = r#"{"allowed":true,"limit":"api","key":"user:42","cost":30,"capacity":100,"remaining":70,"retry_after_ms":0,"reset_after_ms":108000000,"delay_ms":0,"reason":null}"#;
    assert_eq!(answer.text(), expected);
    good(&answer);
    assert_eq!(headers(&answer), [Some(r#""api";q=100;w=360000"#), Some(r#""api";r=70;t=108000"#), None]);
    // the rest is the default: one token, at once, of priority normal
    let answer = daemon.post_raw("/v1/check", r#"{"limit":"api","key":"ü/\"\\"}"#).await;
    assert_eq!((&good(&answer)["key"], &answer.json()["remaining"]), (&json!("ü/\"\\"), &json!(99)));
    // an override's capacity
    let answer = daemon.post_raw("/v1/check", r#"{"limit":"api","key":"vip-1","cost":200}"#).await;
    assert_eq!((&good(&answer)["capacity"], &answer.json()["remaining"]), (&json!(500), &json!(300)));
    // to the end of the day by the clock
    let answer = daemon.post_raw("/v1/check", r#"{"limit":"daily","key":"k","cost":10}"#).await;
    assert_eq!((&good(&answer)["remaining"], headers(&answer)[0]), (&json!(0), Some(r#""daily";q=10;w=86400"#)));
    let reset = answer.json()["reset_after_ms"].as_u64().unwrap();
    assert!((1..=86_400_000).contains(&reset), "{reset}");
    assert_eq!(headers(&answer)[1], Some(format!(r#""daily";r=0;t={}"#, reset.div_ceil(1000)).as_str()));
}

#[tokio::test]
async fn a_denial_says_why_and_when_to_come_back() {
    let daemon = start().await;
    daemon.check("k", 100).await;
    let answer = daemon.post_raw("/v1/check", r#"{"limit":"api","key":"k","cost":2}"#).await;
    let denied = good(&answer);
    for (member, value) in [
        ("allowed", json!(false)),
        ("reason", json!("over_limit")),
        ("remaining", json!(0)),
        ("cost", json!(2)),
        ("delay_ms", json!(0)),
    ] {
        assert_eq!(denied[member], value, "{denied}");
    }
    // two hours, less what has passed since all were taken
    let wait = denied["retry_after_ms"].as_u64().unwrap();
    assert!((7_140_000..=7_200_000).contains(&wait), "{denied}");
    assert_eq!(headers(&answer)[2], Some(wait.div_ceil(1000).to_string().as_str()));
    // a priority that must leave a fifth
    daemon.check("low", 79).await;
    let low = |cost: u64| json!({"limit": "api", "key": "low", "cost": cost, "priority": "low"});
    let denied = daemon.post("/v1/check", low(2)).await.unwrap();
    assert_eq!((&denied["reason"], &denied["remaining"]), (&json!("over_limit"), &json!(21)), "{denied}");
    assert_eq!(daemon.post("/v1/check", low(1)).await.unwrap()["allowed"], true);
    // a dry run never refuses, and tells
    for reason in [Value::Null, json!("over_limit")] {
        let answer = daemon.post("/v1/check", json!({"limit": "dry", "key": "k"})).await.unwrap();
        assert_eq!((&answer["allowed"], &answer["reason"]), (&json!(true), &reason), "{answer}");
        assert_eq!(answer["retry_after_ms"], 0, "{answer}");
    }
    // a leaky bucket has the second wait for its turn, and no one longer than it may
    for (allowed, delay) in [(true, 0..=0), (true, 3_540_000..=3_600_000), (false, 0..=0)] {
        let answer = daemon.post("/v1/check", json!({"limit": "mail", "key": "k"})).await.unwrap();
        assert_eq!(answer["allowed"], allowed, "{answer}");
        assert!(delay.contains(&answer["delay_ms"].as_u64().unwrap()), "{answer}");
    }
}

#[tokio::test]
async fn a_peek_takes_nothing_and_a_wait_is_waited() {
    let daemon = start().await;
    for (spent, left) in [(0, 100), (40, 60)] {
        if spent > 0 {
            daemon.check("k", spent).await;
        }
        for _ in 0..3 {
            let peek = daemon.check("k", 0).await;
            assert_eq!((&peek["allowed"], &peek["cost"], &peek["remaining"]), (&json!(true), &json!(0), &json!(left)));
        }
    }
    let wait = |ms: u64| json!({"limit": "quick", "key": "k", "wait_ms": ms});
    let mut allowed = 0;
    for ms in [0, 0, 0, 60_000, 60_000, 60_000] {
        allowed += u32::from(daemon.post("/v1/check", wait(ms)).await.unwrap()["allowed"] == true);
    }
    // the three that may wait are granted, each when its token has come; of the others at least the first
    assert!(allowed >= 4, "{allowed}");
    // a wait that is too short ends with a denial
    daemon.check("all", 100).await;
    let denied = daemon.post("/v1/check", json!({"limit": "api", "key": "all", "wait_ms": 30})).await.unwrap();
    assert_eq!((&denied["allowed"], &denied["reason"]), (&json!(false), &json!("over_limit")), "{denied}");
}

#[tokio::test]
async fn a_batch_is_each_or_all() {
    let daemon = start().await;
    let checks =
        r#"[{"limit":"api","key":"a","cost":60},{"limit":"api","key":"b","cost":100},{"limit":"api","key":"b"}]"#;
    // all: the third is refused in the very moment of the second, so times are exact; nothing stays charged
    let answer = daemon.post_raw("/v1/checks", format!(r#"{{"checks":{checks},"mode":"all"}}"#)).await;
    let expected = concat!(
        r#"{"allowed":false,"results":["#,
        r#"{"allowed":false,"limit":"api","key":"a","cost":60,"capacity":100,"remaining":100,"retry_after_ms":1,"reset_after_ms":0,"delay_ms":0,"reason":null},"#,
        r#"{"allowed":false,"limit":"api","key":"b","cost":100,"capacity":100,"remaining":100,"retry_after_ms":1,"reset_after_ms":0,"delay_ms":0,"reason":null},"#,
        r#"{"allowed":false,"limit":"api","key":"b","cost":1,"capacity":100,"remaining":100,"retry_after_ms":3600000,"reset_after_ms":0,"delay_ms":0,"reason":"over_limit"}]}"#,
    );
    assert_eq!(answer.text(), expected);
    let shown = [Some(r#""api";q=100;w=360000"#), Some(r#""api";r=100;t=0"#), Some("3600")];
    assert_eq!(headers(&answer), shown);
    assert_eq!((daemon.level("a").await, daemon.level("b").await), (100.0, 100.0));
    // each, which is the default
    let answer = daemon.post_raw("/v1/checks", format!(r#"{{"checks":{checks}}}"#)).await;
    let results = good(&answer)["results"].clone();
    let allowed: Vec<bool> = results.as_array().unwrap().iter().map(|r| r["allowed"].as_bool().unwrap()).collect();
    assert_eq!((answer.json()["allowed"].clone(), allowed), (json!(false), vec![true, true, false]));
    assert_eq!(daemon.check("a", 0).await["remaining"], 40);
    // and all that fit
    let fits =
        json!({"checks": [{"limit": "api", "key": "c"}, {"limit": "daily", "key": "c", "cost": 5}], "mode": "all"});
    let answer = daemon.post("/v1/checks", fits.clone()).await.unwrap();
    assert_eq!((&answer["allowed"], &answer["results"][1]["remaining"]), (&json!(true), &json!(5)));
    let answer = daemon.post_raw("/v1/checks", fits.to_string()).await;
    assert_eq!(answer.header("ratelimit-policy"), Some(r#""api";q=100;w=360000, "daily";q=10;w=86400"#));
    // a thousand are as many as may be; the cost above the burst is one item's answer, not the whole batch's
    let mut many: Vec<Value> = (0..999).map(|i| json!({"limit": "api", "key": format!("many{i}")})).collect();
    many.push(json!({"limit": "api", "key": "k", "cost": 101}));
    let answer = daemon.post("/v1/checks", json!({"checks": many})).await.unwrap();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.iter().filter(|r| r["allowed"] == true).count(), 999);
    assert_eq!(results[999]["reason"], "too_large", "{}", results[999]);
}

#[tokio::test]
async fn a_caller_may_bring_its_own_limit() {
    let daemon = start().await;
    let own = json!({"name": "api", "rate": "1/h", "burst": 20, "algorithm": "token-bucket", "accuracy": "strict"});
    let body = json!({"limit": own, "key": "k", "cost": 5});
    let answer = daemon.post_raw("/v1/check", body.to_string()).await;
    assert_eq!((&good(&answer)["limit"], &answer.json()["remaining"]), (&json!("api"), &json!(15)));
    assert_eq!(headers(&answer)[0], Some(r#""api";q=20;w=72000"#));
    // it does not touch the configured one of that name
    assert_eq!(daemon.check("k", 0).await["remaining"], 100);
    let refunded = daemon.post("/v1/refund", json!({"limit": body["limit"], "key": "k", "cost": 2})).await.unwrap();
    assert_eq!(refunded["remaining"], 17, "{refunded}");
    let reset = daemon.post("/v1/reset", json!({"limit": body["limit"], "key": "k"})).await.unwrap();
    assert_eq!((&reset["refunded"], &reset["remaining"]), (&json!(3), &json!(20)), "{reset}");
}

#[tokio::test]
async fn tokens_are_given_back_and_no_more_than_were_taken() {
    let daemon = start().await;
    daemon.check("k", 50).await;
    let answer = daemon.post_raw("/v1/refund", r#"{"limit":"api","key":"k","cost":20}"#).await;
    assert_eq!(answer.text(), r#"{"limit":"api","key":"k","refunded":20,"capacity":100,"remaining":70}"#);
    good(&answer);
    let answer = daemon.post_raw("/v1/refund", r#"{"limit":"api","key":"k","cost":1000}"#).await;
    assert_eq!((&good(&answer)["refunded"], &answer.json()["remaining"]), (&json!(30), &json!(100)));
    daemon.check("k", 100).await;
    let answer = daemon.post_raw("/v1/reset", r#"{"limit":"api","key":"k"}"#).await;
    assert_eq!(answer.text(), r#"{"limit":"api","key":"k","refunded":100,"capacity":100,"remaining":100}"#);
    let answer = daemon.post_raw("/v1/reset", r#"{"limit":"api","key":"never seen"}"#).await;
    assert_eq!((&good(&answer)["refunded"], &answer.json()["remaining"]), (&json!(0), &json!(100)));
}

#[tokio::test]
async fn limits_and_keys_are_explained() {
    let daemon = start().await;
    let limits = good(&daemon.get_raw("/v1/limits").await);
    let names: Vec<_> = limits["limits"].as_array().unwrap().iter().map(|l| l["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["api", "daily", "dry", "mail", "quick"]);
    let expected = json!({
        "name": "api", "algorithm": "token-bucket", "rate": "1/h", "burst": 100, "capacity": 100, "window_ms": 360_000_000,
        "accuracy": "bounded", "max_overshoot": 0.05, "confirm_wait_ms": 5.0, "on_partition": "share", "enforce": true,
        "max_delay_ms": null, "reserve": {"low": 0.2},
        "overrides": [{"key": "vip-*", "rate": "1/h", "burst": 500, "capacity": 500, "window_ms": 1_800_000_000}],
    });
    assert_eq!(limits["limits"][0], expected);
    // a key that nothing is known of is full, of its own rule
    let unknown = daemon.get_raw("/v1/keys/api/vip-x").await;
    let expected = r#"{"limit":"api","key":"vip-x","algorithm":"token-bucket","accuracy":"bounded","rate":"1/h","capacity":500,"level":500.0,"unacked":0.0,"allowance":null,"weight":null,"demand":0.0,"bound":null,"window":null,"replicas":[]}"#;
    assert_eq!(unknown.text(), expected);
    daemon.check("ü/x", 25).await;
    let known = good(&daemon.get_raw("/v1/keys/api/%C3%BC/x").await);
    assert_eq!(known["key"], "ü/x");
    let level = known["level"].as_f64().unwrap();
    assert!((75.0..75.01).contains(&level), "{known}");
    let replicas = known["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 1, "{known}");
    assert_eq!((&replicas[0]["node"], &replicas[0]["age_ms"]), (&json!("a"), &json!(0.0)), "{known}");
    assert!(replicas[0]["granted"].as_u64().unwrap() >= 25 && replicas[0]["incarnation"].as_u64().unwrap() > 0);
    daemon.get_raw("/v1/keys/nope/k").await.assert_problem(404, "unknown-limit", &["\"nope\"", "api, daily"]);
    daemon.check("windowed", 0).await;
    daemon.post("/v1/check", json!({"limit": "daily", "key": "k"})).await.unwrap();
    assert!(daemon.get("/v1/keys/daily/k").await["window"].as_u64().unwrap() > 19_000);
}

#[tokio::test]
async fn the_busiest_keys_are_listed() {
    let daemon = start().await;
    for (key, cost) in [("little", 1), ("much", 50), ("some", 20)] {
        daemon.check(key, cost).await;
    }
    for _ in 0..3 {
        assert_eq!(daemon.check("much", 99).await["allowed"], false);
    }
    let top = daemon.get_raw("/v1/top").await;
    let key = |key: &str, granted: u64, denied: u64| {
        format!(r#"{{"limit":"api","key":"{key}","granted":{granted},"denied":{denied}}}"#)
    };
    let (much, some, little) = (key("much", 50, 3), key("some", 20, 0), key("little", 1, 0));
    assert_eq!(top.text(), format!(r#"{{"by":"granted","keys":[{much},{some},{little}]}}"#));
    let top = daemon.get_raw("/v1/top?by=denied&n=1").await;
    assert_eq!(top.text(), format!(r#"{{"by":"denied","keys":[{much}]}}"#));
    for (query, part) in [("n=0", "n=\"0\""), ("n=1001", "1001"), ("by=cost", "\"cost\"")] {
        daemon.get_raw(&format!("/v1/top?{query}")).await.assert_problem(422, "invalid-value", &[part]);
    }
}

#[tokio::test]
async fn the_cluster_is_described() {
    let alone = start().await;
    let cluster = good(&alone.get_raw("/v1/cluster").await);
    assert_eq!(
        (&cluster["cluster"], &cluster["node"], &cluster["state"]),
        (&Value::Null, &json!("a"), &json!("ready"))
    );
    assert_eq!(cluster["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(cluster["members"].as_array().unwrap().len(), 1, "{cluster}");
    let two = start_cluster(2, LIMITS).await;
    let cluster = two[0].get("/v1/cluster").await;
    let members: Vec<&str> = cluster.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        members,
        ["cluster", "node", "incarnation", "version", "uptime_ms", "state", "mode", "redis", "members"]
    );
    let [this, other] = [&cluster["members"][0], &cluster["members"][1]];
    assert_eq!((&cluster["cluster"], &this["self"], &other["self"]), (&json!("test"), &json!(true), &json!(false)));
    assert_eq!((&other["node"], &other["state"]), (&json!("b"), &json!("alive")), "{cluster}");
    assert_eq!(other["address"], two[1].cluster.unwrap().to_string());
    for number in ["round_trip_ms", "news_age_ms", "frames_sent", "frames_received", "frames_lost"] {
        assert!(other[number].as_f64().is_some_and(|n| n >= 0.0), "{number} of {cluster}");
    }
    until("the clocks were compared", async || {
        let cluster = two[0].get("/v1/cluster").await;
        // one machine has one clock
        cluster["members"][1]["clock_offset_ms"].as_f64().is_some_and(|ms| ms.abs() < 1000.0)
    })
    .await;
}

#[tokio::test]
async fn health_needs_no_more_than_the_process() {
    let daemon = start().await;
    assert_eq!(daemon.get_raw("/healthz").await.text(), r#"{"status":"ok"}"#);
    assert_eq!(daemon.get_raw("/readyz").await.text(), r#"{"status":"ready"}"#);
    let mut connection = daemon.connect().await;
    connection.send(request("HEAD", "/healthz", &[("connection", "close")], b"")).await;
    let mut head = String::new();
    connection.stream.read_to_string(&mut head).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn a_drained_node_decides_no_more_and_still_tells() {
    let mut daemon = start().await;
    daemon.check("k", 30).await;
    let mut kept = daemon.connect().await;
    assert_eq!(kept.ask("POST", "/v1/drain", &[], b"").await.text(), r#"{"status":"draining"}"#);
    for (path, body) in [
        ("/v1/check", r#"{"limit":"api","key":"k"}"#),
        ("/v1/checks", r#"{"checks":[{"limit":"api","key":"k"}]}"#),
        ("/v1/checks", r#"{"checks":[{"limit":"api","key":"k"}],"mode":"all"}"#),
    ] {
        let refused = kept.post(path, body).await;
        refused.assert_problem(503, "draining", &["ask another node"]);
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    kept.ask("GET", "/readyz", &[], b"").await.assert_problem(503, "draining", &[]);
    assert_eq!(kept.ask("GET", "/healthz", &[], b"").await.status, 200);
    let cluster = kept.ask("GET", "/v1/cluster", &[], b"").await.json();
    assert_eq!(cluster["state"], "draining");
    // tokens come back all the same: their requests were never made
    let refunded = kept.post("/v1/refund", r#"{"limit":"api","key":"k","cost":10}"#).await;
    assert_eq!(good(&refunded)["remaining"], 80);
    assert_eq!(daemon.level("k").await.round(), 80.0);
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_nowhere_is_a_problem_too() {
    let daemon = start().await;
    daemon.get_raw("/v2/check").await.assert_problem(404, "not-found", &["GET /v2/check"]);
    let wrong = daemon.get_raw("/v1/check").await;
    wrong.assert_problem(405, "method-not-allowed", &["/v1/check does not take GET"]);
    assert_eq!(wrong.header("allow"), Some("POST"));
    daemon.connect().await.ask("DELETE", "/v1/limits", &[], b"").await.assert_problem(405, "method-not-allowed", &[]);
    // no file to read again is no mistake, and changes nothing
    let reloaded = good(&daemon.connect().await.ask("POST", "/v1/reload", &[], b"").await);
    assert_eq!(reloaded, json!({"reloaded": true, "changes": "no limit changed"}));
}
