//! Listeners against rude and polite clients, on real sockets, with a trivial service behind them.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::api::body;

const DEADLINE: Duration = Duration::from_secs(20);
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const SHORT: Patience =
    Patience { head: Duration::from_secs(1), idle: Duration::from_secs(60), grace: Duration::from_secs(60) };

struct Running {
    address: SocketAddr,
    shutdown: watch::Sender<bool>,
    task: JoinHandle<()>,
    /// Requests to `/slow` that are being answered, and what lets them go on.
    waiting: Arc<AtomicUsize>,
    release: Arc<Notify>,
}

impl Running {
    async fn start(patience: Patience, connections: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, seen) = watch::channel(false);
        let (waiting, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let router = router(waiting.clone(), release.clone());
        let task = tokio::spawn(Server::new(router, seen, patience, connections).tcp(listener));
        Self { address, shutdown, task, waiting, release }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn end(self) {
        self.shutdown.send(true).unwrap();
        timeout(DEADLINE, self.task).await.expect("the listener must end").unwrap();
    }
}

fn router(waiting: Arc<AtomicUsize>, release: Arc<Notify>) -> Router {
    let slow = async move || {
        waiting.fetch_add(1, SeqCst);
        release.notified().await;
        "late"
    };
    let length = async |request: Request| match body::read(request).await {
        Ok(body) => body.len().to_string().into_response(),
        Err(problem) => problem.into_response(),
    };
    Router::new().route("/", get(async || "hello")).route("/slow", get(slow)).route("/length", post(length))
}

/// Reads until the text ends with `end`.
async fn read_to<S: AsyncRead + Unpin>(stream: &mut S, end: &str) -> String {
    let mut seen = Vec::new();
    let mut buf = [0; 4096];
    while !String::from_utf8_lossy(&seen).ends_with(end) {
        let n = timeout(DEADLINE, stream.read(&mut buf)).await.expect("no answer in time").unwrap();
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buf[..n]);
    }
    String::from_utf8(seen).unwrap()
}

/// Waits until the other side has closed; a reset counts too.
async fn assert_closed<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut rest = Vec::new();
    let end = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("still open");
    assert!(end.is_err() || rest.is_empty(), "unexpected {:?}", String::from_utf8_lossy(&rest));
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = tokio::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "never: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn connections_are_kept_and_requests_may_be_pipelined() {
    let server = Running::start(Patience::default(), 10).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(GET).await.unwrap();
        assert!(read_to(&mut stream, "hello").await.starts_with("HTTP/1.1 200 OK"));
    }
    stream.write_all(&GET.repeat(3)).await.unwrap();
    let mut answers = String::new();
    while answers.matches("hello").count() < 3 {
        answers += &read_to(&mut stream, "hello").await;
    }
    drop(stream);
    server.end().await;
}

#[tokio::test]
async fn http_2_is_spoken_on_the_same_port() {
    let server = Running::start(Patience::default(), 10).await;
    let io = TokioIo::new(server.connect().await);
    let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::builder().uri("http://x/").body(Body::empty()).unwrap();
    let response = timeout(DEADLINE, send.send_request(request)).await.unwrap().unwrap();
    assert_eq!(response.version(), axum::http::Version::HTTP_2);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    // the client stays: the shutdown must end its connection all the same
    server.end().await;
    timeout(DEADLINE, connection).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn the_silent_and_the_slow_are_closed_while_others_are_served() {
    let server = Running::start(SHORT, 10).await;
    let mut silent = server.connect().await;
    let mut slow = server.connect().await;
    let mut second_is_slow = server.connect().await;
    second_is_slow.write_all(GET).await.unwrap();
    read_to(&mut second_is_slow, "hello").await;
    let trickle = async |stream: &mut TcpStream| {
        for byte in b"GET / HTTP/1.1\r\nx-y: ".iter().chain(std::iter::repeat(&b'z')) {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let patient = async {
        let mut polite = server.connect().await;
        for _ in 0..20 {
            polite.write_all(GET).await.unwrap();
            read_to(&mut polite, "hello").await;
            sleep(Duration::from_millis(20)).await;
        }
    };
    let all = async {
        tokio::join!(trickle(&mut slow), trickle(&mut second_is_slow), assert_closed(&mut silent), patient);
    };
    timeout(DEADLINE, all).await.expect("a slow client is still connected");
    server.end().await;
}

#[tokio::test]
async fn an_idle_connection_outlives_the_time_for_a_head_but_not_its_own() {
    let patience = Patience { head: Duration::from_millis(500), idle: Duration::from_secs(4), ..SHORT };
    let server = Running::start(patience, 10).await;
    let mut stream = server.connect().await;
    stream.write_all(GET).await.unwrap();
    read_to(&mut stream, "hello").await;
    sleep(patience.head * 4).await;
    stream.write_all(GET).await.unwrap();
    read_to(&mut stream, "hello").await;
    let start = tokio::time::Instant::now();
    assert_closed(&mut stream).await;
    assert!(start.elapsed() >= patience.idle - Duration::from_millis(200), "closed after {:?}", start.elapsed());
    server.end().await;
}

#[tokio::test]
async fn garbage_is_answered_or_closed_and_harms_nobody() {
    let server = Running::start(SHORT, 10).await;
    let huge = [b"GET /", &[b'a'; 100_000][..], b" HTTP/1.1\r\n\r\n"].concat();
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX", &[0xff; 4096], &huge]
    {
        let mut stream = server.connect().await;
        // the other side may have closed in the middle of it
        let _ = stream.write_all(garbage).await;
        let mut answer = Vec::new();
        let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("still open");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.contains(" 4") || !answer.starts_with("HTTP/1"), "{answer}");
    }
    let mut stream = server.connect().await;
    stream.write_all(GET).await.unwrap();
    read_to(&mut stream, "hello").await;
    drop(stream);
    server.end().await;
}

#[tokio::test]
async fn a_client_that_sends_too_much_still_reads_why() {
    let server = Running::start(Patience::default(), 10).await;
    let size = 4 << 20;
    let counted = format!("content-length: {size}\r\n\r\n");
    let chunked = format!("transfer-encoding: chunked\r\n\r\n{size:x}\r\n");
    for (head, tail) in [(counted, ""), (chunked, "\r\n0\r\n\r\n")] {
        let mut stream = server.connect().await;
        let request = format!("POST /length HTTP/1.1\r\nhost: x\r\n{head}");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.write_all(&vec![b' '; size]).await.expect("all of it must be taken");
        stream.write_all(tail.as_bytes()).await.expect("all of it must be taken");
        let answer = read_to(&mut stream, "}").await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.contains("urn:spillgate:problem:body-too-large"), "{answer}");
    }
    server.end().await;
}

#[tokio::test]
async fn an_answer_is_not_held_back_by_what_follows_its_request() {
    let server = Running::start(Patience::default(), 10).await;
    for tail in [&b"\r\n"[..], b"GET /hal", b"\x00garbage\r\n\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(&[GET, tail].concat()).await.unwrap();
        let mut answer = vec![0; b"HTTP/1.1 200 OK".len()];
        timeout(DEADLINE, stream.read_exact(&mut answer)).await.expect("held back").expect("lost");
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 200 OK");
    }
    server.end().await;
}

#[tokio::test]
async fn who_asks_first_whether_to_send_too_much_is_told_not_to() {
    let server = Running::start(Patience::default(), 10).await;
    let mut stream = server.connect().await;
    let head = b"POST /length HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9999999\r\n\r\n";
    stream.write_all(head).await.unwrap();
    // and not with 100 (Continue) first
    let answer = read_to(&mut stream, "}").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    server.end().await;
}

#[tokio::test]
async fn connections_above_the_most_wait_for_one_to_end() {
    let server = Running::start(Patience::default(), 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(GET).await.unwrap();
        read_to(&mut stream, "hello").await;
        held.push(stream);
    }
    let mut third = server.connect().await;
    third.write_all(GET).await.unwrap();
    let early = timeout(Duration::from_millis(200), third.read_u8()).await;
    assert!(early.is_err(), "a third connection was served");
    held.pop();
    read_to(&mut third, "hello").await;
    drop((held, third));
    server.end().await;
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_being_answered_and_closes_the_idle() {
    let server = Running::start(SHORT, 10).await;
    let (mut idle, mut busy) = (server.connect().await, server.connect().await);
    idle.write_all(GET).await.unwrap();
    read_to(&mut idle, "hello").await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    until("the slow request arrives", || server.waiting.load(SeqCst) == 1).await;
    server.shutdown.send(true).unwrap();
    assert_closed(&mut idle).await;
    until("the port is closed", || std::net::TcpStream::connect(server.address).is_err()).await;
    assert!(!server.task.is_finished(), "a request was still being answered");
    server.release.notify_waiters();
    let answer = read_to(&mut busy, "late").await;
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    assert_closed(&mut busy).await;
    timeout(DEADLINE, server.task).await.expect("the listener must end").unwrap();
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let patience = Patience { grace: Duration::from_millis(100), ..SHORT };
    let server = Running::start(patience, 10).await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    until("the slow request arrives", || server.waiting.load(SeqCst) == 1).await;
    let address = server.address;
    server.end().await;
    assert_closed(&mut busy).await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_listener_survives_a_full_table_of_descriptors() {
    const EMFILE: i32 = 24;
    let (mut client, served) = tokio::io::duplex(4096);
    let mut served = Some(served);
    let mut failures = 3;
    let accept = move |_: &mut Context<'_>| {
        if failures > 0 {
            failures -= 1;
            return Poll::Ready(Err(io::Error::from_raw_os_error(EMFILE)));
        }
        served.take().map_or(Poll::Pending, |stream| Poll::Ready(Ok(stream)))
    };
    let (shutdown, seen) = watch::channel(false);
    let server = Server::new(router(Arc::default(), Arc::default()), seen, SHORT, 10);
    let task = tokio::spawn(async move {
        server.accept_all(accept).await;
        server.finish().await;
    });
    client.write_all(GET).await.unwrap();
    read_to(&mut client, "hello").await;
    shutdown.send(true).unwrap();
    timeout(DEADLINE, task).await.expect("the listener must end").unwrap();
}

#[tokio::test]
async fn a_unix_socket_is_served_and_removed_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spillgate.sock");
    let listener = bind_unix(&path).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let (shutdown, seen) = watch::channel(false);
    let task = tokio::spawn(serve_unix(listener, router(Arc::default(), Arc::default()), seen));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(GET).await.unwrap();
    read_to(&mut stream, "hello").await;
    assert_eq!(bind_unix(&path).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    shutdown.send(true).unwrap();
    timeout(DEADLINE, task).await.expect("the listener must end").unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_a_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    assert!(left.exists());
    drop(bind_unix(&left).await.unwrap());
    let file = dir.path().join("file");
    fs::File::create(&file).unwrap().write_all(b"precious").unwrap();
    assert_eq!(bind_unix(&file).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn the_limit_of_open_files_is_raised_to_what_is_allowed() {
    let allowed = raise_file_limit().unwrap();
    assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), allowed);
}
