//! Answers to checks: their JSON, and the `RateLimit` headers. It must not know how they were decided.
//!
//! The headers follow draft-ietf-httpapi-ratelimit-headers, whose fields are lists of RFC 9651.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use spillgate_core::decision::{Decision, Refunded};
use spillgate_core::time::Nanos;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// Limits of one batch that the headers describe: proxies hold 4 to 8 KiB of headers. The body describes all.
const LIMITS_SHOWN: usize = 20;

/// A decision with the names it was asked by.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The limit's name.
    pub limit: &'a str,
    /// Who was counted.
    pub key: &'a str,
    /// What was decided.
    pub decision: &'a Decision,
}

impl Answer<'_> {
    /// Writes it as JSON: by hand, since it is written for every check, and serde pays for each comma.
    fn json(&self, text: &mut Vec<u8>) {
        let d = self.decision;
        let retry_after = if d.allowed { 0 } else { d.retry_after.as_millis_ceil().max(1) };
        text.extend_from_slice(if d.allowed {
            br#"{"allowed":true,"limit":"#
        } else {
            br#"{"allowed":false,"limit":"#
        });
        json_string(self.limit, text);
        text.extend_from_slice(br#","key":"#);
        json_string(self.key, text);
        for (name, number) in [
            (r#","cost":"#, d.cost),
            (r#","capacity":"#, d.capacity),
            (r#","remaining":"#, d.remaining),
            (r#","retry_after_ms":"#, retry_after),
            (r#","reset_after_ms":"#, d.reset_after.as_millis_ceil()),
            (r#","delay_ms":"#, d.delay.as_millis_ceil()),
        ] {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
        text.extend_from_slice(br#","reason":"#);
        match d.reason {
            None => text.extend_from_slice(b"null}"),
            Some(reason) => {
                json_string(reason.as_str(), text);
                text.push(b'}');
            }
        }
    }
}

fn json_string(string: &str, text: &mut Vec<u8>) {
    if string.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\') {
        text.push(b'"');
        text.extend_from_slice(string.as_bytes());
        text.push(b'"');
    } else {
        serde_json::to_writer(text, string).expect("a string always serialises");
    }
}

#[derive(Serialize)]
struct RefundedJson<'a> {
    limit: &'a str,
    key: &'a str,
    refunded: u64,
    capacity: u64,
    remaining: u64,
}

/// `value` as an answer of 200.
pub fn json(value: &impl Serialize) -> Response {
    whole(value).map(Body::from)
}

fn whole(value: &impl Serialize) -> axum::http::Response<Bytes> {
    of_json(serde_json::to_vec(value).expect("answers are made of names, numbers and lists"))
}

fn of_json(text: Vec<u8>) -> axum::http::Response<Bytes> {
    let mut response = axum::http::Response::new(text.into());
    // of the answer itself, the two that describe it, and when to ask again
    response.headers_mut().reserve(4);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer to one check.
pub fn one(answer: Answer<'_>) -> axum::http::Response<Bytes> {
    let mut text = Vec::with_capacity(256);
    answer.json(&mut text);
    let mut response = of_json(text);
    describe(response.headers_mut(), &[answer]);
    response
}

/// Writes the answer to one check as HTTP/1.1 has it on the wire: what [`one`] says, as it is said most often. `room` is
/// reused from one to the next.
pub fn write_one(answer: Answer<'_>, date: &str, room: &mut Vec<u8>, wire: &mut Vec<u8>) {
    room.clear();
    answer.json(room);
    wire.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: application/json");
    for field in [POLICY, LIMIT] {
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(field.as_str().as_bytes());
        wire.extend_from_slice(b": ");
        describe_in(&field, &[answer], wire);
    }
    if let Some(seconds) = retry_after(&[answer]) {
        wire.extend_from_slice(b"\r\nretry-after: ");
        wire.extend_from_slice(itoa::Buffer::new().format(seconds).as_bytes());
    }
    end_head(room.len(), date, wire);
    wire.extend_from_slice(room);
}

/// Writes the fields that every answer ends its head with.
pub fn end_head(length: usize, date: &str, wire: &mut Vec<u8>) {
    wire.extend_from_slice(b"\r\ncontent-length: ");
    wire.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    wire.extend_from_slice(b"\r\ndate: ");
    wire.extend_from_slice(date.as_bytes());
    wire.extend_from_slice(b"\r\n\r\n");
}

/// The answer to several checks, in their order.
pub fn many(answers: &[Answer<'_>]) -> axum::http::Response<Bytes> {
    let mut text = Vec::with_capacity(256 * answers.len());
    let allowed = answers.iter().all(|a| a.decision.allowed);
    text.extend_from_slice(if allowed {
        br#"{"allowed":true,"results":["#
    } else {
        br#"{"allowed":false,"results":["#
    });
    for (i, answer) in answers.iter().enumerate() {
        if i > 0 {
            text.push(b',');
        }
        answer.json(&mut text);
    }
    text.extend_from_slice(b"]}");
    let mut response = of_json(text);
    describe(response.headers_mut(), answers);
    response
}

/// The answer to a refund or a reset.
pub fn refunded(limit: &str, key: &str, r: Refunded) -> Response {
    json(&RefundedJson { limit, key, refunded: r.refunded, capacity: r.capacity, remaining: r.remaining })
}

fn describe(headers: &mut HeaderMap, answers: &[Answer<'_>]) {
    match answers {
        // what is asked all the time
        [one] => describe_shown(headers, &[*one]),
        many => describe_shown(headers, &tightest(many)),
    }
    if let Some(seconds) = retry_after(answers) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
}

fn describe_shown(headers: &mut HeaderMap, shown: &[Answer<'_>]) {
    let mut text = Vec::with_capacity(128);
    for field in [POLICY, LIMIT] {
        text.clear();
        describe_in(&field, shown, &mut text);
        if let Ok(value) = HeaderValue::from_bytes(&text) {
            headers.insert(field, value);
        }
    }
}

/// Writes the value of one of the two fields.
fn describe_in(field: &HeaderName, shown: &[Answer<'_>], text: &mut Vec<u8>) {
    let members = if *field == POLICY { [";q=", ";w="] } else { [";r=", ";t="] };
    for (i, answer) in shown.iter().enumerate() {
        let d = answer.decision;
        let numbers = if *field == POLICY {
            [d.capacity, d.window.as_secs_ceil()]
        } else {
            [d.remaining, d.reset_after.as_secs_ceil()]
        };
        if i > 0 {
            text.extend_from_slice(b", ");
        }
        quote(answer.limit, text);
        for (member, number) in members.into_iter().zip(numbers) {
            text.extend_from_slice(member.as_bytes());
            text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
    }
}

/// One answer a limit, in order of first appearance: where several keys met it, the one that has the least left.
fn tightest<'a>(answers: &[Answer<'a>]) -> Vec<Answer<'a>> {
    let mut shown: Vec<Answer<'a>> = Vec::new();
    for a in answers {
        match shown.iter().position(|s| s.limit == a.limit) {
            Some(i) if a.decision.remaining < shown[i].decision.remaining => shown[i] = *a,
            Some(_) => {}
            None if shown.len() < LIMITS_SHOWN => shown.push(*a),
            None => {}
        }
    }
    shown
}

/// In how many seconds all that was refused and can ever be granted is worth asking for again.
fn retry_after(answers: &[Answer<'_>]) -> Option<u64> {
    let refused = answers.iter().map(|a| a.decision).filter(|d| !d.allowed && d.retry_after != Nanos::MAX);
    refused.map(|d| d.retry_after.as_secs_ceil().max(1)).max()
}

/// Writes a string of a structured field: `"` and `\` are escaped, and what a field can't carry becomes `?`.
fn quote(text: &str, quoted: &mut Vec<u8>) {
    quoted.push(b'"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend([b'\\', c as u8]),
            ' '..='~' => quoted.push(c as u8),
            _ => quoted.push(b'?'),
        }
    }
    quoted.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillgate_core::decision::Reason;

    fn decision() -> Decision {
        Decision {
            allowed: true,
            reason: None,
            cost: 1,
            capacity: 200,
            window: Nanos::from_secs(2),
            remaining: 157,
            retry_after: Nanos::ZERO,
            reset_after: Nanos::from_millis(430),
            delay: Nanos::ZERO,
            confirm_wait: Nanos::ZERO,
        }
    }

    fn denied(retry_after: Nanos, reason: Reason) -> Decision {
        Decision { allowed: false, reason: Some(reason), retry_after, remaining: 0, ..decision() }
    }

    fn text(response: axum::http::Response<Bytes>) -> String {
        String::from_utf8(response.into_body().to_vec()).unwrap()
    }

    #[test]
    fn an_answer_has_the_documented_members_in_order() {
        let response = one(Answer { limit: "api", key: "user:42", decision: &decision() });
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()["RateLimit-Policy"], "\"api\";q=200;w=2");
        assert_eq!(response.headers()["RateLimit"], "\"api\";r=157;t=1");
        assert!(!response.headers().contains_key(RETRY_AFTER));
        let expected = r#"{"allowed":true,"limit":"api","key":"user:42","cost":1,"capacity":200,"remaining":157,"retry_after_ms":0,"reset_after_ms":430,"delay_ms":0,"reason":null}"#;
        assert_eq!(text(response), expected);
    }

    #[test]
    fn a_denial_never_says_to_come_back_at_once() {
        for (wait, ms, secs) in [(Nanos::ZERO, 1, "1"), (Nanos(1), 1, "1"), (Nanos(1_000_000_001), 1001, "2")] {
            let response = one(Answer { limit: "api", key: "k", decision: &denied(wait, Reason::OverLimit) });
            assert_eq!(response.headers()[RETRY_AFTER], secs);
            let body = text(response);
            assert!(body.contains(&format!("\"retry_after_ms\":{ms},")), "{body}");
            assert!(body.ends_with("\"reason\":\"over_limit\"}"), "{body}");
        }
    }

    #[test]
    fn an_answer_on_the_wire_says_the_same() {
        for decision in [decision(), denied(Nanos(1), Reason::OverLimit), denied(Nanos::MAX, Reason::TooLarge)] {
            for key in ["k", "\"q\\\n\u{1}ü"] {
                let answer = Answer { limit: "api", key, decision: &decision };
                let (mut room, mut wire) = (vec![1], Vec::new());
                write_one(answer, "now", &mut room, &mut wire);
                let wire = String::from_utf8(wire).unwrap();
                let (head, body) = wire.split_once("\r\n\r\n").unwrap();
                let response = one(answer);
                assert_eq!(body.as_bytes(), response.body());
                let read: serde_json::Value = serde_json::from_str(body).unwrap();
                assert_eq!((&read["key"], &read["remaining"]), (&key.into(), &decision.remaining.into()));
                let mut lines = head.split("\r\n");
                assert_eq!(lines.next(), Some("HTTP/1.1 200 OK"));
                let fields: HeaderMap = lines
                    .map(|line| line.split_once(": ").unwrap())
                    .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
                    .collect();
                let mut expected = response.headers().clone();
                expected.insert("content-length", body.len().into());
                expected.insert("date", HeaderValue::from_static("now"));
                assert_eq!(fields, expected);
            }
        }
    }

    #[test]
    fn a_batch_describes_each_limit_once_by_its_tightest_key() {
        let (free, tight) = (decision(), denied(Nanos::from_millis(2500), Reason::OverLimit));
        let never = denied(Nanos::MAX, Reason::TooLarge);
        let answer = |limit, decision| Answer { limit, key: "k", decision };
        let response = many(&[answer("a", &free), answer("b", &free), answer("a", &tight), answer("b", &never)]);
        assert_eq!(response.headers()["RateLimit"], "\"a\";r=0;t=1, \"b\";r=0;t=1");
        assert_eq!(response.headers()["RateLimit-Policy"], "\"a\";q=200;w=2, \"b\";q=200;w=2");
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        let body = text(response);
        assert!(body.starts_with("{\"allowed\":false,\"results\":[{\"allowed\":true,"), "{body}");
        assert!(body.contains("\"reason\":\"too_large\""), "{body}");
        let response = many(&[answer("a", &free), answer("b", &never)]);
        assert!(!response.headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn the_headers_of_a_large_batch_stay_small() {
        let names: Vec<String> = (0..1000).map(|i| format!("{i:0128}")).collect();
        let free = decision();
        let answers: Vec<_> = names.iter().map(|n| Answer { limit: n, key: "k", decision: &free }).collect();
        let response = many(&answers);
        assert!(response.headers()["RateLimit"].len() < 4096);
        assert_eq!(response.headers()["RateLimit"].to_str().unwrap().matches(";r=").count(), LIMITS_SHOWN);
    }

    #[test]
    fn strings_of_structured_fields_are_escaped() {
        let quoted = |text| {
            let mut quoted = Vec::new();
            quote(text, &mut quoted);
            String::from_utf8(quoted).unwrap()
        };
        assert_eq!(quoted(r#"a"b\c"#), r#""a\"b\\c""#);
        assert_eq!(quoted("ü\n"), "\"??\"");
    }
}
