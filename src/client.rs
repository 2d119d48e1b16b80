//! A small HTTP client for the command line, over TCP or a Unix socket. It must not know what is asked.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Where the daemon listens unless it is told otherwise.
pub const ADDRESS_DEFAULT: &str = "http://127.0.0.1:8470";
const PORT_DEFAULT: u16 = 8470;
/// How long a daemon may take to answer, on top of the wait that it was asked for.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer, in bytes: a batch of 1000 long keys stays far below.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where a daemon's HTTP API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `http://host:port`.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:/path`.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = ClientError;

    /// Reads `http://host[:port]`, `host:port` or `unix:/path`; the port is 8470 unless given.
    fn from_str(text: &str) -> Result<Self, ClientError> {
        let malformed = || ClientError::Address(text.chars().take(256).collect());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(malformed()) } else { Ok(Self::Unix(path.into())) };
        }
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let authority: hyper::http::uri::Authority =
            rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| malformed())?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let given = authority.as_str().rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        let port = match (authority.port_u16(), given) {
            (Some(port), _) => port,
            (None, None) => PORT_DEFAULT,
            (None, Some(_)) => return Err(malformed()),
        };
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(malformed());
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "http://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a daemon could not be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address can't be read.
    #[error("address {0:?} is not like {ADDRESS_DEFAULT} or unix:/run/spillgate.sock")]
    Address(String),
    /// Nobody answers there.
    #[error("cannot connect to {address}: {source}; is `spillgate serve` running?")]
    Connect {
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("{address} did not answer within {} s; is it overloaded, or not spillgate?", within.as_secs())]
    Timeout {
        /// Where.
        address: Address,
        /// How long it was waited for.
        within: Duration,
    },
    /// The connection broke, or it is not HTTP that is spoken there.
    #[error("{address} does not answer as spillgate does: {reason}")]
    Exchange {
        /// Where.
        address: Address,
        /// What happened.
        reason: String,
    },
    /// The daemon refused the request; the text is its own.
    #[error("{detail} (status {status})")]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// What was wrong, and the remedy.
        detail: String,
    },
    /// The token can't be sent.
    #[error(transparent)]
    Token(#[from] crate::api::TokenError),
    /// The answer could not be printed.
    #[error("cannot print the answer: {0}")]
    Print(#[from] io::Error),
}

/// Asks one daemon; each request has a connection of its own.
pub struct Client {
    address: Address,
    authorization: Option<String>,
}

impl Client {
    /// A client of the daemon at `address`, which presents the token in `token_file`, if there is one.
    ///
    /// # Errors
    /// [`ClientError::Token`] when the file can't be read or holds no token.
    pub fn new(address: Address, token_file: Option<&std::path::Path>) -> Result<Self, ClientError> {
        let token = token_file.map(crate::api::read_token).transpose()?;
        Ok(Self { address, authorization: token.map(|t| format!("Bearer {t}")) })
    }

    /// Where it asks.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// `GET path`, which must begin with a slash and be escaped already.
    ///
    /// # Errors
    /// [`ClientError`], also when the daemon refuses.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::GET, path, Bytes::new(), Duration::ZERO).await
    }

    /// `POST path` with `body` as JSON; the answer may take `wait` longer than usual.
    ///
    /// # Errors
    /// [`ClientError`], also when the daemon refuses.
    pub async fn post(&self, path: &str, body: &Value, wait: Duration) -> Result<Value, ClientError> {
        self.ask(Method::POST, path, body.to_string().into(), wait).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes, wait: Duration) -> Result<Value, ClientError> {
        let within = TIMEOUT + wait;
        let answer = timeout(within, async {
            let refused = |source| ClientError::Connect { address: self.address.clone(), source };
            match &self.address {
                Address::Tcp { host, port } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(refused)?;
                    self.exchange(stream, method, path, body).await
                }
                Address::Unix(socket) => {
                    let stream = UnixStream::connect(socket).await.map_err(refused)?;
                    self.exchange(stream, method, path, body).await
                }
            }
        });
        let late = |_| ClientError::Timeout { address: self.address.clone(), within };
        let (status, body) = answer.await.map_err(late)??;
        self.interpret(status, &body)
    }

    async fn exchange<S>(
        &self,
        stream: S,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let host = match &self.address {
            Address::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp { host, port } => format!("{host}:{port}"),
            Address::Unix(_) => "localhost".to_owned(),
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|e| self.broken(&e))?;
        let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        let answer = async {
            let response = send.send_request(request).await.map_err(|e| self.broken(&e))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|e| self.broken(&*e))?;
            Ok((parts.status, body.to_bytes()))
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // the connection ends first where the other side closes it: the answer may have come by then
            _ = connection => answer.await,
        }
    }

    /// The value of an answer, or the reason in a problem.
    fn interpret(&self, status: StatusCode, body: &[u8]) -> Result<Value, ClientError> {
        let value = serde_json::from_slice::<Value>(body);
        if status.is_success() {
            return value.map_err(|e| self.broken(&e));
        }
        let detail = value.ok().and_then(|v| v["detail"].as_str().map(str::to_owned));
        match detail {
            Some(detail) => Err(ClientError::Refused { status, detail }),
            None => Err(ClientError::Exchange { address: self.address.clone(), reason: format!("status {status}") }),
        }
    }

    fn broken(&self, e: &dyn std::error::Error) -> ClientError {
        let mut reason = e.to_string();
        let mut source = e.source();
        while let Some(e) = source {
            reason = format!("{reason}: {e}");
            source = e.source();
        }
        ClientError::Exchange { address: self.address.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::HeaderMap;
    use axum::routing::{get, post};
    use serde_json::json;
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use crate::api::{bind_unix, serve_tcp, serve_unix};

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.into(), port }
    }

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, address, shown) in [
            (ADDRESS_DEFAULT, tcp("127.0.0.1", 8470), ADDRESS_DEFAULT),
            ("http://gate/", tcp("gate", 8470), "http://gate:8470"),
            ("gate:80", tcp("gate", 80), "http://gate:80"),
            ("http://[::1]:9000", tcp("::1", 9000), "http://[::1]:9000"),
            ("http://[::1]", tcp("::1", 8470), "http://[::1]:8470"),
            ("unix:/run/s.sock", Address::Unix("/run/s.sock".into()), "unix:/run/s.sock"),
            ("unix:///run/s.sock", Address::Unix("/run/s.sock".into()), "unix:/run/s.sock"),
        ] {
            let read: Address = text.parse().unwrap();
            assert_eq!((&read, read.to_string().as_str()), (&address, shown), "{text}");
        }
        for text in
            ["", "unix:", "https://gate", "http://", "http://gate:port", "http://gate:99999", "http://a/b", "u@h"]
        {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("is not like http://127.0.0.1:8470"), "{text}: {error}");
        }
    }

    fn router() -> Router {
        let hello = async |headers: HeaderMap| {
            let token = headers.get(AUTHORIZATION).map(|v| v.to_str().unwrap_or_default().to_owned());
            json!({"token": token}).to_string()
        };
        let refuse = async || (StatusCode::NOT_FOUND, json!({"detail": "unknown limit"}).to_string());
        let echo = async |body: String| body;
        Router::new()
            .route("/hello", get(hello))
            .route("/refuse", get(refuse))
            .route("/echo", post(echo))
            .route("/text", get(async || "no JSON"))
    }

    #[tokio::test]
    async fn a_daemon_is_asked_over_tcp_and_unix_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, token) = (dir.path().join("s.sock"), dir.path().join("token"));
        std::fs::write(&token, "s3cret\n").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (shutdown, seen) = watch::channel(false);
        let over_tcp = tokio::spawn(serve_tcp(listener, router(), seen.clone()));
        let over_unix = tokio::spawn(serve_unix(bind_unix(&socket).await.unwrap(), router(), seen));
        for address in [tcp("127.0.0.1", port), Address::Unix(socket)] {
            let client = Client::new(address, Some(&token)).unwrap();
            assert_eq!(client.get("/hello").await.unwrap()["token"], "Bearer s3cret");
            let body = json!({"key": "ü"});
            assert_eq!(client.post("/echo", &body, Duration::ZERO).await.unwrap(), body);
            let refused = client.get("/refuse").await.unwrap_err();
            assert_eq!(refused.to_string(), "unknown limit (status 404 Not Found)");
            let other = client.get("/text").await.unwrap_err().to_string();
            assert!(other.contains("does not answer as spillgate does"), "{other}");
        }
        shutdown.send(true).unwrap();
        over_tcp.await.unwrap();
        over_unix.await.unwrap();
    }

    #[tokio::test]
    async fn nobody_there_is_told_with_the_address() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let error = Client::new(tcp("127.0.0.1", port), None).unwrap().get("/hello").await.unwrap_err().to_string();
        assert!(error.contains(&format!("http://127.0.0.1:{port}")), "{error}");
        assert!(error.contains("is `spillgate serve` running?"), "{error}");
        let absent = Address::Unix("/nonexistent/s.sock".into());
        let error = Client::new(absent, None).unwrap().get("/hello").await.unwrap_err().to_string();
        assert!(error.contains("unix:/nonexistent/s.sock"), "{error}");
    }
}
