//! Ways to the API: kept and pipelined connections, HTTP/2, the Unix socket, the token.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use spillgate::client::{Address, Client};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::daemon::{DEADLINE, Daemon, Setup};
use crate::http1::{Http1, check_bytes, request};

const LIMIT: &str = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 1000\n";

async fn start(http: &str) -> Daemon {
    let directory = Arc::new(TempDir::new().unwrap());
    let setup = Setup { http: http.to_owned(), ..Setup::single(LIMIT) };
    std::fs::write(directory.path().join("token"), "  s3cret-s3cret\n").unwrap();
    Daemon::start(&directory, setup).await
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let daemon = start("").await;
    let mut connection = daemon.connect().await;
    for i in 1..=50 {
        connection.send(check_bytes("k")).await;
        assert_eq!(connection.answer().await.json()["remaining"], 1000 - i);
        // an error is no reason to part, nor is an answer without a body to its request
        connection.post("/v1/check", "{").await.assert_problem(400, "malformed", &[]);
        assert_eq!(connection.ask("GET", "/healthz", &[], b"").await.status, 200);
    }
    // who asks for it is let go, and so is HTTP/1.0
    let last = connection.ask("GET", "/healthz", &[("connection", "close")], b"").await;
    assert_eq!(last.header("connection"), Some("close"));
    connection.assert_end().await;
    let mut old = daemon.connect().await;
    old.send(b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.answer().await.status, 200);
    old.assert_end().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let daemon = start("").await;
    let mut connection = daemon.connect().await;
    let many: Vec<u8> = (0..200).flat_map(|i| check_bytes(&format!("key-{}", i % 10))).collect();
    connection.send(&many).await;
    for i in 0..200 {
        let answer = connection.answer().await.json();
        let expected = (format!("key-{}", i % 10), 1000 - 1 - i / 10);
        assert_eq!((&answer["key"], &answer["remaining"]), (&json!(expected.0), &json!(expected.1)));
    }
    // a bad one among them is answered in its place
    let mixed = [check_bytes("a"), request("GET", "/nowhere", &[], b""), check_bytes("a")].concat();
    connection.send(mixed).await;
    for status in [200, 404, 200] {
        assert_eq!(connection.answer().await.status, status);
    }
    // and one that comes byte by byte
    for byte in check_bytes("slow") {
        connection.send([byte]).await;
    }
    assert_eq!(connection.answer().await.json()["remaining"], 999);
}

#[tokio::test]
async fn http_2_is_spoken_with_prior_knowledge() {
    let daemon = start("").await;
    let io = TokioIo::new(TcpStream::connect(daemon.http).await.unwrap());
    let (send, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    // all at once, on one connection
    let answers = (0..100).map(|i| {
        let mut send = send.clone();
        tokio::spawn(async move {
            let body = json!({"limit": "api", "key": format!("key-{}", i % 10)}).to_string();
            let request = Request::post("http://spillgate/v1/check").header("content-type", "application/json");
            let request = request.body(Full::new(Bytes::from(body))).unwrap();
            send.ready().await.unwrap();
            let response = timeout(DEADLINE, send.send_request(request)).await.unwrap().unwrap();
            assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 200));
            assert_eq!(response.headers()["ratelimit-policy"], "\"api\";q=1000;w=3600000");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            serde_json::from_slice::<Value>(&body).unwrap()["allowed"] == true
        })
    });
    for answer in answers.collect::<Vec<_>>() {
        assert!(answer.await.unwrap());
    }
    drop(send);
    timeout(DEADLINE, connection).await.unwrap().unwrap().unwrap();
    for i in 0..10 {
        assert_eq!(daemon.check(&format!("key-{i}"), 0).await["remaining"], 990);
    }
}

#[tokio::test]
async fn a_unix_socket_is_the_same_api() {
    let mut daemon = start("unix = \"api.sock\"").await;
    let path = daemon.directory.path().join("api.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let mut connection = Http1::unix(&path).await;
    connection.send([check_bytes("k"), check_bytes("k")].concat()).await;
    for left in [999, 998] {
        assert_eq!(connection.answer().await.json()["remaining"], left);
    }
    // one count behind both doors
    assert_eq!(daemon.check("k", 1).await["remaining"], 997);
    let client = Client::new(Address::Unix(path.clone()), None).unwrap();
    assert_eq!(client.get("/v1/keys/api/k").await.unwrap()["level"].as_f64().unwrap().floor(), 997.0);
    // a second daemon is told that it is taken, and takes nothing away
    let other = Setup { name: "other".to_owned(), ..daemon.setup.clone() };
    let said = Daemon::try_start(&daemon.directory, other).await.err().expect("the socket is taken");
    assert!(said.contains("api.sock") && said.contains("could not start"), "{said}");
    assert!(client.get("/healthz").await.is_ok());
    daemon.stop().await;
    assert!(!path.exists(), "the socket is left behind");
}

#[tokio::test]
async fn a_socket_left_by_a_killed_daemon_is_taken_over() {
    let mut daemon = start("unix = \"api.sock\"").await;
    let path = daemon.directory.path().join("api.sock");
    daemon.kill().await;
    assert!(path.exists());
    let daemon = daemon.restart().await;
    assert!(Client::new(Address::Unix(path), None).unwrap().get("/healthz").await.is_ok());
    drop(daemon);
}

#[tokio::test]
async fn the_token_is_asked_for_on_every_way_in() {
    let daemon = start("token_file = \"token\"\nunix = \"api.sock\"").await;
    let mut connection = daemon.connect().await;
    let body = br#"{"limit":"api","key":"k"}"#;
    let wrong = ["Bearer s3cret-s3cre", "Bearer s3cret-s3crett", "Bearer", "Basic s3cret-s3cret", "s3cret-s3cret", ""];
    for (method, path) in [
        ("POST", "/v1/check"),
        ("POST", "/v1/checks"),
        ("POST", "/v1/refund"),
        ("POST", "/v1/reset"),
        ("POST", "/v1/reload"),
        ("POST", "/v1/drain"),
        ("GET", "/v1/limits"),
        ("GET", "/v1/keys/api/k"),
        ("GET", "/v1/top"),
        ("GET", "/v1/cluster"),
        ("GET", "/metrics"),
    ] {
        let body = if method == "POST" { &body[..] } else { b"" };
        let missing = connection.ask(method, path, &[], body).await;
        missing.assert_problem(401, "unauthorized", &["token is missing", "Authorization: Bearer TOKEN"]);
        assert_eq!(missing.header("www-authenticate").map(|v| v.split(' ').next()), Some(Some("Bearer")));
        for wrong in wrong {
            let answer = connection.ask(method, path, &[("authorization", wrong)], body).await;
            answer.assert_problem(401, "unauthorized", &["token is wrong"]);
            assert!(!answer.text().contains("s3cret"), "{}", answer.text());
        }
    }
    // health is for those who watch, and tells nothing
    for path in ["/healthz", "/readyz"] {
        assert_eq!(connection.ask("GET", path, &[], b"").await.status, 200);
    }
    let right = [("content-type", "application/json"), ("authorization", "bearer s3cret-s3cret")];
    assert_eq!(connection.ask("POST", "/v1/check", &right, body).await.json()["remaining"], 999);
    let mut unix = Http1::unix(&daemon.directory.path().join("api.sock")).await;
    unix.ask("POST", "/v1/check", &[], body).await.assert_problem(401, "unauthorized", &["is missing"]);
    assert_eq!(unix.ask("POST", "/v1/check", &right, body).await.json()["remaining"], 998);
    let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: daemon.http.port() };
    let client = Client::new(address, Some(&daemon.directory.path().join("token"))).unwrap();
    assert!(client.get("/v1/cluster").await.is_ok());
    assert!(!daemon.log().contains("s3cret"), "{}", daemon.log());
}
