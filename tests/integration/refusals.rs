//! Bad input over HTTP: each is refused with a problem that names the value and the remedy, changes nothing, and leaves
//! the connection usable.

use std::fmt::Write as _;

use serde_json::json;
use tokio::net::TcpStream;

use crate::daemon::Daemon;
use crate::http::start;
use crate::http1::{Http1, request};

/// A daemon, one connection that everything goes over, and the counts that must not change.
struct Subject {
    daemon: Daemon,
    connection: Http1<TcpStream>,
}

impl Subject {
    async fn start() -> Self {
        let daemon = start().await;
        daemon.check("k", 30).await;
        let connection = daemon.connect().await;
        Self { daemon, connection }
    }

    async fn refused(&mut self, path: &str, body: impl AsRef<[u8]>, status: u16, kind: &str, parts: &[&str]) {
        let answer = self.connection.post(path, body).await;
        answer.assert_problem(status, kind, parts);
        assert_eq!(answer.header("connection"), None, "the connection must stay");
    }

    /// Nothing was counted but the one check, and no key has come.
    async fn assert_untouched(&mut self) {
        assert_eq!(self.daemon.check("k", 0).await["remaining"], 70);
        let top = self.daemon.get("/v1/top?n=1000").await;
        assert_eq!(top["keys"], json!([{"limit": "api", "key": "k", "granted": 30, "denied": 0}]));
        let metrics = self.daemon.get_raw("/metrics").await;
        assert!(metrics.text().contains("\nspillgate_keys{limit=\"api\"} 1\n"), "{}", metrics.text());
    }
}

#[tokio::test]
async fn what_is_no_json_of_a_check_is_malformed() {
    let mut subject = Subject::start().await;
    let deep = ["[".repeat(500_000), format!("{}1{}", "{\"limit\":".repeat(100_000), "}".repeat(100_000))];
    let cases = [
        ("", "EOF"),
        ("{", "EOF"),
        (r#"{"limit":"api","key":"k""#, "EOF"),
        (r#"{"limit":"api","key":"k"}}"#, "trailing characters"),
        ("nonsense", "line 1 column 2"),
        ("null", "expected an object"),
        ("7", "expected an object"),
        (r#"["api","k"]"#, "expected an object"),
        (r#"{"key":"k"}"#, "missing field `limit`"),
        (r#"{"limit":"api"}"#, "missing field `key`"),
        (r#"{"limit":"api","key":"k","costs":5}"#, "unknown field `costs`"),
        (r#"{"limit":"api","key":"k","key":"l"}"#, "duplicate field `key`"),
        (r#"{"limit":"api","key":"k","cost":"5"}"#, "expected a number"),
        (r#"{"limit":"api","key":"k","cost":true}"#, "expected a number"),
        (r#"{"limit":"api","key":["k"]}"#, "expected a string"),
        (r#"{"limit":"api","key":42}"#, "expected a string"),
        (r#"{"limit":null,"key":"k"}"#, "a limit's name or an object"),
        (r#"{"limit":"api","key":"k","priority":1}"#, "expected a string"),
        (r#"{"limit":"api","key":"k","cost":1e}"#, "invalid number"),
        (r#"{"limit":"api","key":"k","cost":01}"#, "invalid number"),
        (r#"{"limit":"api","key":"\ud800"}"#, "end of hex escape"),
        (deep[0].as_str(), "expected an object"),
        (deep[1].as_str(), "unknown field `limit`"),
    ];
    for (body, part) in cases {
        // each says where it stands and what would be right
        let parts = [part, "line 1 column", r#"send for example {"limit":"api","key":"user:42","cost":1}"#];
        subject.refused("/v1/check", body, 400, "malformed", &parts).await;
    }
    for path in ["/v1/checks", "/v1/refund", "/v1/reset"] {
        for body in ["", "{", "[]", deep[0].as_str(), r#"{"unknown":1}"#] {
            subject.refused(path, body, 400, "malformed", &["send for example"]).await;
        }
    }
    let latin = b"{\"limit\":\"api\",\"key\":\"\xfc\"}";
    subject.refused("/v1/check", latin, 400, "malformed", &["invalid unicode"]).await;
    subject.assert_untouched().await;
}

#[tokio::test]
async fn absurd_numbers_are_refused_with_their_value() {
    let mut subject = Subject::start().await;
    for (cost, shown) in [
        ("-1", "cost -1 must be a whole number from 0 to 1000000000"),
        ("-0.5", "cost -0.5"),
        ("1.5", "cost 1.5"),
        ("1000000001", "cost 1000000001"),
        ("18446744073709551615", "cost 18446744073709551615"),
        ("18446744073709551616", "cost 1.8446744073709552e19"),
        ("-9223372036854775809", "cost -9.223372036854776e18"),
        ("1e999", "number out of range"),
    ] {
        for path in ["/v1/check", "/v1/refund"] {
            let body = format!(r#"{{"limit":"api","key":"k","cost":{cost}}}"#);
            subject.refused(path, body, 422, "invalid-value", &[shown]).await;
        }
        let body = format!(r#"{{"checks":[{{"limit":"api","key":"new"}},{{"limit":"api","key":"k","cost":{cost}}}]}}"#);
        subject.refused("/v1/checks", body, 422, "invalid-value", &[shown]).await;
    }
    for wait in ["-1", "60001", "0.5"] {
        let body = format!(r#"{{"limit":"api","key":"k","wait_ms":{wait}}}"#);
        subject.refused("/v1/check", body, 422, "invalid-value", &[&format!("wait_ms {wait}"), "60000"]).await;
    }
    // above the burst, now and for ever; for a low priority above what it must leave
    let parts = ["cost 101 is above the capacity 100", "\"api\"", "can never be granted", "ask for less"];
    subject.refused("/v1/check", r#"{"limit":"api","key":"k","cost":101}"#, 422, "never-granted", &parts).await;
    let body = r#"{"limit":"api","key":"new","cost":1000000000,"wait_ms":60000}"#;
    subject.refused("/v1/check", body, 422, "never-granted", &["cost 1000000000"]).await;
    let body = r#"{"limit":"api","key":"k","cost":81,"priority":"low"}"#;
    subject.refused("/v1/check", body, 422, "never-granted", &["cost 81", "reserves from that priority"]).await;
    // 1e3 and 5.0 are whole numbers however they are written
    let answer = subject.connection.post("/v1/check", r#"{"limit":"api","key":"k","cost":0e3}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    subject.assert_untouched().await;
}

#[tokio::test]
async fn keys_have_1_to_1024_bytes_wherever_they_stand() {
    let mut subject = Subject::start().await;
    let long = ["k".repeat(1025), "ü".repeat(513), "k".repeat(500_000)];
    for key in ["", &long[0], &long[1], &long[2]] {
        let parts = [&*format!("the key has {} bytes", key.len()), "1 to 1024"];
        for path in ["/v1/check", "/v1/refund", "/v1/reset"] {
            let body = json!({"limit": "api", "key": key}).to_string();
            subject.refused(path, body, 422, "invalid-value", &parts).await;
        }
        let body = json!({"checks": [{"limit": "api", "key": "new"}, {"limit": "api", "key": key}]}).to_string();
        let parts = ["checks[1]: ", parts[0], parts[1]];
        subject.refused("/v1/checks", body, 422, "invalid-value", &parts).await;
    }
    let escaped = "%C3%BC".repeat(513);
    let over = subject.connection.ask("GET", &format!("/v1/keys/api/{escaped}"), &[], b"").await;
    over.assert_problem(422, "invalid-value", &["1026 bytes"]);
    let bytes = subject.connection.ask("GET", "/v1/keys/api/%ff%fe", &[], b"").await;
    bytes.assert_problem(400, "malformed", &["percent-encode"]);
    subject.assert_untouched().await;
    // the shortest, the longest and the strangest that are allowed are told apart
    let longest = ["k".repeat(1024), "k".repeat(1023)];
    let keys = ["x", "\0", "a\nb", "a\u{301}", "á", "\u{202e}", &longest[0], &longest[1]];
    for (i, key) in keys.iter().enumerate() {
        let answer =
            subject.connection.post("/v1/check", json!({"limit": "api", "key": key, "cost": i + 1}).to_string());
        assert_eq!(answer.await.json()["remaining"], 99 - i, "{key:?}");
    }
    for (i, key) in keys.iter().enumerate() {
        let path = key.bytes().fold("/v1/keys/api/".to_owned(), |mut path, byte| {
            write!(path, "%{byte:02x}").unwrap();
            path
        });
        let known = subject.connection.ask("GET", &path, &[], b"").await.json();
        assert_eq!((&known["key"], known["level"].as_f64().unwrap().floor()), (&json!(key), (99 - i) as f64));
    }
}

#[tokio::test]
async fn names_that_nobody_knows_are_refused_with_those_that_are_known() {
    let mut subject = Subject::start().await;
    let known = ["unknown limit \"apii\"", "known are api, daily, dry, mail, quick"];
    for path in ["/v1/check", "/v1/refund", "/v1/reset"] {
        subject.refused(path, r#"{"limit":"apii","key":"k"}"#, 404, "unknown-limit", &known).await;
        let long = json!({"limit": "x".repeat(100_000), "key": "k"}).to_string();
        subject.refused(path, long, 404, "unknown-limit", &["known are"]).await;
        subject.refused(path, r#"{"limit":"","key":"k"}"#, 404, "unknown-limit", &["unknown limit \"\""]).await;
    }
    for mode in ["each", "all"] {
        let body = json!({"checks": [{"limit": "api", "key": "new"}, {"limit": "apii", "key": "k"}], "mode": mode});
        let parts = ["checks[1]: unknown limit \"apii\""];
        subject.refused("/v1/checks", body.to_string(), 404, "unknown-limit", &parts).await;
        let body = json!({"checks": [{"limit": "api", "key": "new"}, {"limit": "api", "key": "k", "priority": "lo"}],
            "mode": mode});
        let parts = ["checks[1]: limit \"api\" has no priority \"lo\"", "it has: normal, low"];
        subject.refused("/v1/checks", body.to_string(), 422, "invalid-value", &parts).await;
    }
    let body = json!({"limit": "api", "key": "new", "priority": "x".repeat(1000)}).to_string();
    subject.refused("/v1/check", body, 422, "invalid-value", &["it has: normal, low"]).await;
    let own = |rule: serde_json::Value| json!({"limit": rule, "key": "k"}).to_string();
    for (rule, parts) in [
        (json!({"name": "own", "rate": "fast"}), ["rate \"fast\" is not like"]),
        (json!({"name": "own", "rate": "0/s"}), ["0/s"]),
        (json!({"name": "a b", "rate": "1/s"}), ["limit name \"a b\" must be"]),
        (json!({"name": "own", "rate": "1/s", "burst": 0}), ["burst 0 must be from 1"]),
        (json!({"name": "own", "rate": "1/s", "algorithm": "bucket"}), ["algorithm \"bucket\" must be one of"]),
        (json!({"name": "own", "rate": "1/s", "accuracy": "exact"}), ["accuracy \"exact\" must be one of"]),
    ] {
        subject.refused("/v1/check", own(rule), 422, "invalid-value", &parts).await;
    }
    subject.assert_untouched().await;
}

#[tokio::test]
async fn batches_have_1_to_1000_checks() {
    let mut subject = Subject::start().await;
    let many = |n: usize| json!({"checks": vec![json!({"limit": "api", "key": "new"}); n]}).to_string();
    for n in [0, 1001, 20_000] {
        let parts = [&*format!("there are {n} checks"), "1 to 1000"];
        subject.refused("/v1/checks", many(n), 422, "invalid-value", &parts).await;
    }
    let body = r#"{"checks":[{"limit":"api","key":"new"}],"mode":"any"}"#;
    subject.refused("/v1/checks", body, 422, "invalid-value", &["mode \"any\" must be \"each\" or \"all\""]).await;
    subject.refused("/v1/checks", r#"{"checks":{"limit":"api"}}"#, 400, "malformed", &["expected a sequence"]).await;
    subject.assert_untouched().await;
}

#[tokio::test]
async fn bodies_of_another_kind_or_over_a_mebibyte_are_refused() {
    let mut subject = Subject::start().await;
    let body = br#"{"limit":"api","key":"k"}"#;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "application/json5"] {
        let answer = subject.connection.ask("POST", "/v1/check", &[("content-type", kind)], body).await;
        let parts = [&*format!("content type {kind:?} is not JSON"), "-H 'content-type: application/json'"];
        answer.assert_problem(415, "unsupported-media-type", &parts);
    }
    let pad = |bytes: usize| {
        let mut padded = br#"{"limit":"api","key":"k","cost":0"#.to_vec();
        padded.resize(bytes - 1, b' ');
        padded.push(b'}');
        padded
    };
    assert_eq!(subject.connection.post("/v1/check", pad(1 << 20)).await.status, 200);
    for bytes in [(1 << 20) + 1, 4 << 20] {
        // by its announced length, and in chunks of no announced length at all
        subject.daemon.post_raw("/v1/check", pad(bytes)).await.assert_problem(
            413,
            "body-too-large",
            &["1048576 bytes"],
        );
        let mut connection = subject.daemon.connect().await;
        let headers = [("content-type", "application/json"), ("transfer-encoding", "chunked")];
        connection.send(request("POST", "/v1/check", &headers, b"")).await;
        for chunk in pad(bytes).chunks(64 << 10) {
            connection.send([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()).await;
        }
        connection.send(b"0\r\n\r\n").await;
        connection.answer().await.assert_problem(413, "body-too-large", &["split it"]);
    }
    subject.assert_untouched().await;
}
