//! What is fuzzed: bytes from outside go in, and what must hold of any bytes is asserted. One function a target, shared by
//! the test that mutates the corpora and by the libFuzzer targets in `fuzz/`. Each returns what came of the bytes, in few
//! words: an input with an outcome not seen before is worth mutating further.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use metrics::Histogram;
use spillgate::api::{
    Api, Control, DeciderView, Http, Identity, MemberView, Patience, Readiness, Resp, Speak as _, read_front,
};
use spillgate::config::{Config, ConfigError, Overrides};
use spillgate::driver::Driver;
use spillgate_core::decision::{Check, LimitRef};
use spillgate_core::gossip::Pace;
use spillgate_core::limit::{Algorithm, Limit, Limits, RuleSpec};
use spillgate_core::node::{Attempt, Node, NodeConfig, Outbox};
use spillgate_core::time::{Nanos, Now};
use spillgate_core::view::ReplicaId;
use spillgate_core::wire::slice::{decode_slice, encode_slice};
use spillgate_core::wire::{decode_frame, decode_message, encode_frame, encode_message};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

/// A target: what came of the bytes.
pub type Target = fn(&[u8]) -> String;

/// Every target, by the name of its corpus.
pub const TARGETS: [(&str, Target); 7] = [
    ("frame", frame),
    ("message", message),
    ("slice", slice),
    ("config", config),
    ("http", http),
    ("plain", plain),
    ("resp", resp),
];

struct Nowhere;

impl Outbox for Nowhere {
    fn frame(&mut self, _: &ReplicaId, _: Vec<u8>) {}
}

fn replica(node: &str) -> ReplicaId {
    ReplicaId { node: node.into(), incarnation: 7 }
}

fn limits() -> Limits {
    let limits = ["api", "leaky", "fixed", "sliding"].into_iter().zip(Algorithm::ALL).map(|(name, algorithm)| {
        let burst = (!algorithm.windowed()).then_some(100);
        let spec = RuleSpec { burst, ..RuleSpec::new(algorithm, "100/m".parse().expect("a rate")) };
        Limit::new(name, spec, &[]).expect("a limit")
    });
    Limits::new(limits).expect("limits")
}

fn node_config(clustered: bool) -> NodeConfig {
    let pace = Pace {
        interval: Nanos::from_millis(10),
        stale_after: Nanos::from_millis(200),
        forget_after: Nanos::from_secs(60),
    };
    NodeConfig { replica: replica("a"), hash_key: [7; 16], max_keys: 1000, shards_max: 2, clustered, pace }
}

/// A node that has a peer "b" and some keys, among them "quiet" of which nobody speaks.
fn node() -> Node {
    let node = Node::new(node_config(true), limits());
    node.begin_alone(present(0));
    for limit in ["api", "leaky", "fixed", "sliding"] {
        ask(&node, limit, "k", 10);
    }
    assert_eq!(ask(&node, "api", "quiet", 40), 60);
    node.peer_up(&replica("b"), present(1));
    node
}

fn present(ms: u64) -> Now {
    Now { at: Nanos::from_millis(ms), wall: 1_700_000_000_000_000_000 + ms * 1_000_000 }
}

fn ask(node: &Node, limit: &str, key: &str, cost: u64) -> u64 {
    let check = Check { limit: LimitRef::Named(limit), key, cost, priority: "normal" };
    node.check(&check, present(1), Attempt::First).expect("the limit is known").remaining
}

/// The node goes on, and the key that nobody spoke of has what it had.
fn still_well(node: &Node) {
    for ms in [2, 300, 400] {
        node.tick(present(ms), 1150, &mut Nowhere);
    }
    ask(node, "api", "k", 1);
    let quiet = node.explain(LimitRef::Named("api"), "quiet", present(1)).expect("the limit is known");
    let level = quiet.expect("it was charged").level;
    assert!((59.0..=61.0).contains(&level), "quiet has {level}");
}

fn label(error: &impl Debug) -> String {
    format!("{error:?}").chars().filter(|c| c.is_ascii_alphabetic()).take(40).collect()
}

/// A frame of a peer.
pub fn frame(bytes: &[u8]) -> String {
    let read = match decode_frame(bytes) {
        Ok(read) => read,
        Err(error) => return label(&error),
    };
    assert_eq!(decode_frame(&encode_frame(&read)).as_ref(), Ok(&read), "it does not survive");
    let node = node();
    let from = ReplicaId { node: "b".into(), incarnation: read.header.incarnation };
    node.peer_up(&from, present(1));
    let speaks_of_quiet = read.updates.iter().any(|u| u.key == node.key_id(LimitRef::Named("api"), "quiet").to_bytes());
    let heard = node.handle_frame(&from, bytes, present(2), &mut Nowhere);
    if !speaks_of_quiet {
        still_well(&node);
    }
    match heard {
        Ok(heard) => format!("heard {} of {}", heard.updates.min(3), read.header.unknown.len().min(2)),
        Err(error) => label(&error),
    }
}

/// A reliable message of a peer that was asked for its table.
pub fn message(bytes: &[u8]) -> String {
    let read = match decode_message(bytes) {
        Ok(read) => read,
        Err(error) => return label(&error),
    };
    assert_eq!(decode_message(&encode_message(&read)).as_ref(), Ok(&read), "it does not survive");
    let node = node();
    let before = node.len();
    let told = node.handle_message(bytes, false, present(2)).expect("it decodes");
    assert_eq!(node.len(), before, "what was not asked for was taken in");
    let asked = node.handle_message(bytes, true, present(2)).expect("it decodes");
    node.tick(present(3), 1150, &mut Nowhere);
    ask(&node, "api", "other", 1);
    format!("{} {} {}", label(&told), label(&asked), node.len().min(8))
}

/// A slice of a snapshot, whose checksum was right.
pub fn slice(bytes: &[u8]) -> String {
    let read = match decode_slice(bytes) {
        Ok(read) => read,
        Err(error) => return label(&error),
    };
    assert_eq!(decode_slice(&encode_slice(&read)).as_ref(), Ok(&read), "it does not survive");
    let node = Node::new(node_config(true), limits());
    let restored = node.restore(bytes, present(1)).expect("it decodes");
    assert!(node.len() <= restored.keys);
    node.peer_up(&replica("b"), present(1));
    node.begin_alone(present(1));
    let mut slices = node.slices();
    while slices.next(present(2)).is_some() {}
    for chunk in node.state_chunks(present(2)) {
        decode_message(&chunk).expect("what a node says can be read");
    }
    node.tick(present(3), 1150, &mut Nowhere);
    ask(&node, "api", "other", 1);
    format!("{} {}", restored.keys.min(3), restored.dropped.min(3))
}

thread_local! {
    static DIRECTORY: tempfile::TempDir = tempfile::tempdir().expect("a directory");
    static SERVER: RefCell<Option<(Runtime, Arc<Http>)>> = const { RefCell::new(None) };
    static RUNTIME: Runtime = runtime();
    static REDIS: RefCell<Option<(Runtime, Arc<Resp>)>> = const { RefCell::new(None) };
}

/// A configuration file.
pub fn config(bytes: &[u8]) -> String {
    DIRECTORY.with(|directory| {
        let path = directory.path().join("spillgate.toml");
        std::fs::write(&path, bytes).expect("there is room");
        match Config::load(Some(&path), &Overrides::default()) {
            Ok(config) => {
                assert!(!config.to_string().is_empty() && config.node.max_keys >= 1000);
                format!("{} limits {}", config.limits.len().min(4), config.cluster.is_some())
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("spillgate.toml"), "the file is not named: {text}");
                match error {
                    // the first problem, without values
                    ConfigError::Invalid(_) => text.rsplit(':').next().map_or(String::new(), |t| label(&t)),
                    other => label(&other),
                }
            }
        }
    })
}

/// A body of a POST, the first byte saying where to.
pub fn http(bytes: &[u8]) -> String {
    let Some((first, body)) = bytes.split_first() else { return String::new() };
    let paths = ["/v1/check", "/v1/checks", "/v1/refund", "/v1/reset"];
    let path = paths[usize::from(*first) % paths.len()];
    SERVER.with_borrow_mut(|server| {
        let (runtime, http) = server.get_or_insert_with(server_of_its_own);
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(body.to_vec())).expect("a request");
        let answered = async {
            let response = http.clone().answer(request).await;
            let status = response.status();
            let answer = axum::body::to_bytes(Body::new(response.into_body()), 4 << 20).await.expect("an answer");
            (status, answer)
        };
        let answered = async { tokio::time::timeout(Duration::from_secs(20), answered).await };
        let (status, answer) = runtime.block_on(answered).expect("in time");
        let expected = [
            StatusCode::OK,
            StatusCode::BAD_REQUEST,
            StatusCode::NOT_FOUND,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNPROCESSABLE_ENTITY,
        ];
        assert!(expected.contains(&status), "{status}: {answer:?}");
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        let kind = answer["type"].as_str().unwrap_or_default();
        format!("{path} {status} {kind} {} {}", answer["allowed"], answer["reason"])
    })
}

/// All that a client of HTTP/1.1 sends: whatever is taken for a whole plain request, hyper reads in the same way.
pub fn plain(bytes: &[u8]) -> String {
    let (mut read, mut left) = (Vec::new(), bytes);
    while let Some((length, path, body)) = read_front(left) {
        assert!(body.len() < length && left[..length].ends_with(body), "{}", left.escape_ascii());
        // with the rest behind it, and with nothing
        assert_eq!(read_front(&left[..length]), Some((length, path, body)));
        assert_eq!(read_front(&left[..length - 1]), None, "{}", left.escape_ascii());
        read.push((path.to_owned(), body.to_vec()));
        left = &left[length..];
    }
    let whole = &bytes[..bytes.len() - left.len()];
    if !read.is_empty() {
        let by_hyper = RUNTIME.with(|runtime| runtime.block_on(as_hyper_reads(whole)));
        assert_eq!(by_hyper, read, "{}", whole.escape_ascii());
    }
    let rest = if left.is_empty() { "whole" } else { "rest" };
    let of = read.iter().map(|(path, body)| format!("{path} {}", body.len().min(9)));
    of.take(3).chain([rest.to_owned()]).collect::<Vec<_>>().join(" ")
}

/// The path and the body of every request, all of them POST, up to the end of the bytes.
async fn as_hyper_reads(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let (mut client, stream) = tokio::io::duplex(64 << 10);
    let read = RefCell::new(Vec::new());
    let answer = hyper::service::service_fn(async |request: Request<hyper::body::Incoming>| {
        assert_eq!(request.method(), "POST");
        let path = request.uri().to_string();
        let body = axum::body::to_bytes(Body::new(request.into_body()), 64 << 10).await.expect("all of it came");
        read.borrow_mut().push((path, body.to_vec()));
        Ok::<_, std::convert::Infallible>(axum::http::Response::new(Body::empty()))
    });
    let talk = async {
        let mut answers = Vec::new();
        client.write_all(bytes).await.expect("hyper goes on reading");
        client.shutdown().await.expect("memory does not fail");
        client.read_to_end(&mut answers).await.expect("memory does not fail");
    };
    let stream = hyper_util::rt::TokioIo::new(stream);
    let mut http = hyper::server::conn::http1::Builder::new();
    let served = http.half_close(true).serve_connection(stream, answer);
    let both = async { tokio::join!(served, talk).0 };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("in time").expect("hyper takes it for requests");
    read.into_inner()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn api() -> Arc<Api> {
    let driver = Driver::new(node_config(false), limits(), Histogram::noop());
    Arc::new(Api { driver, control: Arc::new(Alone), token: None, checks: Arc::new(Semaphore::new(2)) })
}

fn server_of_its_own() -> (Runtime, Arc<Http>) {
    (runtime(), Http::new(api()))
}

/// All that a client of the Redis protocol sends before it closes its side.
pub fn resp(bytes: &[u8]) -> String {
    REDIS.with_borrow_mut(|server| {
        let (runtime, resp) = server.get_or_insert_with(|| (runtime(), Resp::new(api(), Arc::default())));
        let answers = runtime.block_on(async {
            let (client, stream) = tokio::io::duplex(64 << 10);
            let (mut from, mut to) = tokio::io::split(client);
            let (_running, shutdown) = watch::channel(false);
            let mut answers = Vec::new();
            let talk = async {
                let send = async {
                    // the daemon may have had enough before all is sent
                    let _ = to.write_all(bytes).await;
                    let _ = to.shutdown().await;
                };
                let served = resp.clone().serve(stream, shutdown, Patience::default());
                let ((), (), read) = tokio::join!(served, send, from.read_to_end(&mut answers));
                read.expect("memory does not fail");
            };
            tokio::time::timeout(Duration::from_secs(20), talk).await.expect("in time");
            answers
        });
        only_replies(&answers);
        let answers = String::from_utf8_lossy(&answers);
        let lines = answers.split("\r\n").filter(|line| line.starts_with(['-', '+', '*', '%']));
        lines.take(3).map(|line| label(&line.chars().take(24).collect::<String>())).collect::<Vec<_>>().join(" ")
    })
}

/// A client can read all of it: replies and nothing else, whole to the last byte.
fn only_replies(answers: &[u8]) {
    let all = [answers, b"+THE END\r\n"].concat();
    let (mut parser, mut left) = (redis::Parser::new(), all.as_slice());
    let last = std::iter::from_fn(|| parser.parse_value(&mut left).ok()).last();
    assert_eq!(last, Some(redis::Value::SimpleString("THE END".to_owned())), "{}", answers.escape_ascii());
}

/// A node without a cluster.
struct Alone;

impl Control for Alone {
    fn readiness(&self) -> Readiness {
        Readiness::Ready
    }

    fn reload(&self) -> Result<String, String> {
        Ok("no limit changed".to_owned())
    }

    fn drain(&self) {}

    fn metrics(&self) -> String {
        String::new()
    }

    fn identity(&self) -> Identity {
        let (cluster, address) = (None, None);
        Identity { cluster, node: "a".to_owned(), incarnation: 7, address, version: "0", uptime: Nanos::SECOND }
    }

    fn members(&self) -> Vec<MemberView> {
        Vec::new()
    }

    fn decider(&self) -> DeciderView {
        DeciderView { mode: "local", store: None }
    }
}
