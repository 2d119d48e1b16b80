//! HTTP/1.1 by hand: one connection, on which a test can say what no client library would.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::daemon::{DEADLINE, Daemon};

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// In their order, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of the only header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is there twice: {:?}", self.headers);
        value
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// That it is a problem of this status and this type, well formed, and that its detail holds every one of `parts`.
    pub fn assert_problem(&self, status: u16, kind: &str, parts: &[&str]) {
        let shown = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{shown}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{shown}");
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:spillgate:problem:{kind}"), "{shown}");
        assert_eq!(problem["status"], status, "{shown}");
        assert!(problem["title"].as_str().is_some_and(|t| !t.is_empty()), "{shown}");
        let detail = problem["detail"].as_str().unwrap();
        for part in parts {
            assert!(detail.contains(part), "{detail:?} does not hold {part:?}");
        }
        assert!(detail.len() < 1000, "a detail of {} bytes", detail.len());
    }
}

/// One connection.
pub struct Http1<S> {
    pub stream: S,
    /// Read, and not taken for an answer yet.
    seen: Vec<u8>,
}

impl Http1<TcpStream> {
    pub async fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, seen: Vec::new() }
    }

    /// The same, where somebody may listen or not.
    pub async fn try_tcp(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self { stream, seen: Vec::new() })
    }
}

impl Http1<UnixStream> {
    pub async fn unix(path: &Path) -> Self {
        Self { stream: UnixStream::connect(path).await.unwrap(), seen: Vec::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1<S> {
    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends bytes to a daemon that may have closed in the middle of them.
    pub async fn send_or_fail(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(DEADLINE, self.stream.write_all(bytes.as_ref())).await.expect("nobody reads");
    }

    async fn read(&mut self) -> usize {
        let mut buffer = [0; 16 << 10];
        let read = timeout(DEADLINE, self.stream.read(&mut buffer)).await.expect("no answer in time");
        // a reset is an end as well
        let n = read.unwrap_or(0);
        self.seen.extend_from_slice(&buffer[..n]);
        n
    }

    /// The next answer; `None` when the connection ends before one has begun.
    pub async fn answer_or_end(&mut self) -> Option<Answer> {
        let head_end = loop {
            match self.seen.windows(4).position(|w| w == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if self.read().await == 0 => {
                    let cut = String::from_utf8_lossy(&self.seen);
                    assert!(self.seen.is_empty(), "closed in the middle of {cut:?}");
                    return None;
                }
                None => {}
            }
        };
        let head = String::from_utf8(self.seen.drain(..head_end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().strip_prefix("HTTP/1.").expect("HTTP/1").split(' ').nth(1).unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{line:?} is no header")))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Answer { status: status.parse().unwrap(), headers, body: Vec::new() };
        assert_eq!(answer.header("transfer-encoding"), None, "answers are known before they are sent");
        let length = answer.header("content-length").map_or(0, |n| n.parse().unwrap());
        while self.seen.len() < length {
            assert!(self.read().await > 0, "closed in the middle of a body");
        }
        answer.body = self.seen.drain(..length).collect();
        Some(answer)
    }

    /// The next answer.
    pub async fn answer(&mut self) -> Answer {
        self.answer_or_end().await.expect("closed without an answer")
    }

    /// Waits until the other side has closed, having said nothing more.
    pub async fn assert_end(&mut self) {
        let more = self.answer_or_end().await;
        assert!(more.is_none(), "there is more: {more:?}");
    }

    /// Sends a request and reads its answer.
    pub async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send(request(method, path, headers, body)).await;
        self.answer().await
    }

    /// `POST` of JSON.
    pub async fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.ask("POST", path, &[("content-type", "application/json")], body.as_ref()).await
    }
}

/// The bytes of a request.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: spillgate\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    if !body.is_empty() {
        write!(head, "content-length: {}\r\n", body.len()).unwrap();
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// The bytes of a check of one token under the limit `api`.
pub fn check_bytes(key: &str) -> Vec<u8> {
    let body = format!(r#"{{"limit":"api","key":"{key}"}}"#);
    request("POST", "/v1/check", &[("content-type", "application/json")], body.as_bytes())
}

impl Daemon {
    /// A connection to its TCP port.
    pub async fn connect(&self) -> Http1<TcpStream> {
        Http1::tcp(self.http).await
    }

    /// `POST` of JSON on a connection of its own.
    pub async fn post_raw(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.connect().await.post(path, body).await
    }

    /// `GET` on a connection of its own.
    pub async fn get_raw(&self, path: &str) -> Answer {
        self.connect().await.ask("GET", path, &[], b"").await
    }
}
