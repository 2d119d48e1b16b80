//! Whole connections over memory: a real driver behind them, no socket.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use spillgate_core::gossip::Pace;
use spillgate_core::limit::{Algorithm, Limit, Limits, RuleSpec};
use spillgate_core::node::NodeConfig;
use spillgate_core::time::Nanos;
use spillgate_core::view::ReplicaId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

mod any_bytes;
mod referee;

use super::*;
use crate::api::{Control, DeciderView, Identity, MemberView, Readiness, Token};
use crate::driver::Driver;

const DEADLINE: Duration = Duration::from_secs(100);
const PATIENCE: Patience =
    Patience { head: Duration::from_secs(10), idle: Duration::from_secs(75), grace: Duration::from_millis(300) };

/// A daemon that is in one state for good.
struct Still(Readiness);

impl Control for Still {
    fn readiness(&self) -> Readiness {
        self.0
    }
    fn reload(&self) -> Result<String, String> {
        Ok(String::new())
    }
    fn drain(&self) {}
    fn metrics(&self) -> String {
        String::new()
    }
    fn identity(&self) -> Identity {
        let uptime = Nanos::from_secs(7);
        Identity { cluster: None, node: "a".into(), incarnation: 1, address: None, version: "9.9.9", uptime }
    }
    fn members(&self) -> Vec<MemberView> {
        Vec::new()
    }
    fn decider(&self) -> DeciderView {
        DeciderView { mode: "local", store: None }
    }
}

fn resp(readiness: Readiness, token: Option<&str>) -> Arc<Resp> {
    resp_with(readiness, token, crate::api::CHECKS_MAX)
}

fn resp_with(readiness: Readiness, token: Option<&str>, checks_max: usize) -> Arc<Resp> {
    let limit = |name: &str, rate: &str, burst| {
        let spec = RuleSpec { burst: Some(burst), ..RuleSpec::new(Algorithm::TokenBucket, rate.parse().unwrap()) };
        Limit::new(name, spec, &[]).unwrap()
    };
    let limits = Limits::new([limit("api", "1/h", 1000), limit("quick", "10/s", 1)]).unwrap();
    let times = [10, 200, 60_000].map(Nanos::from_millis);
    let config = NodeConfig {
        replica: ReplicaId { node: "a".into(), incarnation: 1 },
        hash_key: [1; 16],
        max_keys: 10_000,
        shards_max: 16,
        clustered: false,
        pace: Pace { interval: times[0], stale_after: times[1], forget_after: times[2] },
    };
    let driver = Driver::new(config, limits, metrics::Histogram::noop());
    let token = token.map(|t| Arc::new(Token::new(t).unwrap()));
    let checks = Arc::new(Semaphore::new(checks_max));
    Resp::new(Arc::new(Api { driver, control: Arc::new(Still(readiness)), token, checks }), Arc::default())
}

/// One connection, its daemon's side served by a task.
struct Client {
    stream: DuplexStream,
    shutdown: watch::Sender<bool>,
    served: JoinHandle<()>,
    writes: Arc<AtomicUsize>,
}

impl Client {
    fn of(resp: &Arc<Resp>) -> Self {
        let (stream, other) = duplex(1 << 20);
        let (shutdown, seen) = watch::channel(false);
        let writes = Arc::default();
        let counted = Counted { stream: other, writes: Arc::clone(&writes) };
        let served = tokio::spawn(resp.clone().serve(counted, seen, PATIENCE));
        Self { stream, shutdown, served, writes }
    }

    fn new() -> Self {
        Self::of(&resp(Readiness::Ready, None))
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Waits for exactly these answers.
    async fn expect(&mut self, answers: &str) {
        let mut seen = vec![0; answers.len()];
        let read = timeout(DEADLINE, self.stream.read_exact(&mut seen)).await;
        let seen = String::from_utf8_lossy(&seen);
        read.unwrap_or_else(|_| panic!("only {seen:?} came")).unwrap();
        assert_eq!(seen, answers);
    }

    /// All that comes, up to this.
    async fn until(&mut self, end: &str) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(end.as_bytes()) {
            let byte = timeout(DEADLINE, self.stream.read_u8()).await;
            seen.push(byte.unwrap_or_else(|_| panic!("only {:?} came", String::from_utf8_lossy(&seen))).unwrap());
        }
        String::from_utf8(seen).unwrap()
    }

    async fn ask(&mut self, command: &str, answers: &str) {
        self.send(format!("{command}\r\n")).await;
        self.expect(answers).await;
    }

    /// All that comes until the daemon closes.
    async fn rest(&mut self) -> String {
        let mut rest = String::new();
        timeout(DEADLINE, self.stream.read_to_string(&mut rest)).await.expect("still open").unwrap();
        rest
    }

    /// Waits until nothing is left of the daemon's side.
    async fn ended(self) {
        timeout(DEADLINE, self.served).await.expect("still served").unwrap();
    }
}

/// Counts writes.
struct Counted {
    stream: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.writes.fetch_add(1, SeqCst);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn cl_throttle_answers_as_redis_cell_does() {
    let mut client = Client::new();
    // limit is the burst and one more; a token comes every two hours
    client.ask("CL.THROTTLE k 2 1 7200", "*5\r\n:0\r\n:3\r\n:2\r\n:-1\r\n:7200\r\n").await;
    client.ask("cl.throttle k 2 1 7200 2", "*5\r\n:0\r\n:3\r\n:0\r\n:-1\r\n:21600\r\n").await;
    client.ask("CL.THROTTLE k 2 1 7200", "*5\r\n:1\r\n:3\r\n:0\r\n:7200\r\n:21600\r\n").await;
    // a peek, and what can never be
    client.ask("CL.THROTTLE k 2 1 7200 0", "*5\r\n:0\r\n:3\r\n:0\r\n:-1\r\n:21600\r\n").await;
    client.ask("CL.THROTTLE k 2 1 7200 4", "*5\r\n:1\r\n:3\r\n:0\r\n:-1\r\n:21600\r\n").await;
    client.ask("CL.THROTTLE other 0 1 1", "*5\r\n:0\r\n:1\r\n:0\r\n:-1\r\n:1\r\n").await;
}

#[tokio::test]
async fn throttle_answers_as_throttlecrab_does() {
    let mut client = Client::new();
    client.ask("THROTTLE k 3 1 7200", "*5\r\n:1\r\n:3\r\n:2\r\n:7200\r\n:0\r\n").await;
    client.ask("THROTTLE k 3 1 7200 2", "*5\r\n:1\r\n:3\r\n:0\r\n:21600\r\n:0\r\n").await;
    client.ask("THROTTLE k 3 1 7200", "*5\r\n:0\r\n:3\r\n:0\r\n:21600\r\n:7200\r\n").await;
    // the two commands count apart
    client.ask("CL.THROTTLE k 2 1 7200", "*5\r\n:0\r\n:3\r\n:2\r\n:-1\r\n:7200\r\n").await;
}

#[tokio::test]
async fn spillgate_check_answers_as_http_does() {
    let mut client = Client::new();
    let two = "*20\r\n$7\r\nallowed\r\n:1\r\n$5\r\nlimit\r\n$3\r\napi\r\n$3\r\nkey\r\n$1\r\nk\r\n$4\r\ncost\r\n:5\r\n\
               $8\r\ncapacity\r\n:1000\r\n$9\r\nremaining\r\n:995\r\n$14\r\nretry_after_ms\r\n:0\r\n\
               $14\r\nreset_after_ms\r\n:18000000\r\n$8\r\ndelay_ms\r\n:0\r\n$6\r\nreason\r\n$-1\r\n";
    client.ask("SPILLGATE.CHECK api k 5", two).await;
    client.send("HELLO 3\r\n").await;
    client.until("modules\r\n*0\r\n").await;
    let three = "%10\r\n$7\r\nallowed\r\n#t\r\n$5\r\nlimit\r\n$3\r\napi\r\n$3\r\nkey\r\n$3\r\nnew\r\n$4\r\ncost\r\n:0\r\n\
                 $8\r\ncapacity\r\n:1000\r\n$9\r\nremaining\r\n:1000\r\n$14\r\nretry_after_ms\r\n:0\r\n\
                 $14\r\nreset_after_ms\r\n:0\r\n$8\r\ndelay_ms\r\n:0\r\n$6\r\nreason\r\n_\r\n";
    client.ask("SPILLGATE.CHECK api new 0", three).await;
    for (command, error) in [
        ("SPILLGATE.CHECK apii k", "-ERR unknown limit \"apii\"; known are api, quick\r\n"),
        (
            "SPILLGATE.CHECK api k 1001",
            "-ERR cost 1001 is above the capacity 1000 of limit \"api\": it can never be granted; ask for less, or raise the limit's burst\r\n",
        ),
    ] {
        client.ask(command, error).await;
    }
}

#[tokio::test]
async fn mistakes_are_named_and_change_nothing() {
    let mut client = Client::new();
    for (command, part) in [
        ("CL.THROTTLE k 2 1", "wrong number of arguments; send CL.THROTTLE key max_burst count period [quantity]"),
        ("CL.THROTTLE k 2 1 60 1 1", "wrong number of arguments"),
        ("CL.THROTTLE k -1 1 60", "max_burst \"-1\" must be a whole number"),
        ("CL.THROTTLE k 1e3 1 60", "max_burst \"1e3\""),
        ("CL.THROTTLE k 2 0 60", "must give from 1"),
        ("CL.THROTTLE k 2 1 0", "must be from 1ms to 366d"),
        ("CL.THROTTLE k 18446744073709551615 1 60", "burst 18446744073709551615 must be from 1 to"),
        ("THROTTLE k 0 1 60", "burst 0 must be from 1"),
        ("THROTTLE k 2 1 60 1000000001", "quantity \"1000000001\" must be a whole number from 0 to 1000000000"),
        ("SPILLGATE.CHECK api", "wrong number of arguments; send SPILLGATE.CHECK limit key"),
        ("SPILLGATE.CHECK api k one", "cost \"one\" must be a whole number"),
        ("SPILLGATE.CHECK api k 1 2", "\"2\" has no meaning there"),
        ("SPILLGATE.CHECK api k WAIT", "\"WAIT\" has no meaning there"),
        ("SPILLGATE.CHECK api k WAIT 60001", "WAIT \"60001\" must be a whole number from 0 to 60000"),
        ("ECHO", "wrong number of arguments for 'echo' command"),
        ("SELECT 1", "DB index is out of range"),
        ("AUTH x", "without any token configured"),
        ("HELLO 4", "unsupported protocol version"),
        ("HELLO 3 SETNAME", "syntax error in HELLO"),
        ("CLIENT KILL", "unknown subcommand"),
        ("SET a b", "unknown command 'SET'; there are CL.THROTTLE"),
        ("A.NAME.LONGER.THAN.ANY.COMMAND", "unknown command 'A.NAME.LONGER.THAN.ANY.COMMAND'"),
    ] {
        client.send(format!("{command}\r\nPING\r\n")).await;
        let seen = client.until("+PONG\r\n").await;
        assert!(seen.starts_with('-') && seen.contains(part) && seen.matches("\r\n").count() == 2, "{command}: {seen}");
    }
    let long = "k".repeat(1025);
    client.send(format!("*3\r\n$15\r\nSPILLGATE.CHECK\r\n$3\r\napi\r\n$1025\r\n{long}\r\n")).await;
    client.expect("-ERR the key has 1025 bytes, it must have 1 to 1024\r\n").await;
    client.send("*3\r\n$15\r\nSPILLGATE.CHECK\r\n$3\r\napi\r\n$1\r\n\u{7f}\r\n").await;
    client.expect("*20\r\n$7\r\nallowed\r\n:1\r\n").await;
    let mut other = Client::of(&resp(Readiness::Draining, None));
    let text = "-DRAINING this node is draining and decides no more; ask another node\r\n";
    other.ask("CL.THROTTLE k 2 1 60", text).await;
}

#[tokio::test]
async fn a_key_may_be_any_text_but_not_any_bytes() {
    let mut client = Client::new();
    client.send(b"*3\r\n$15\r\nSPILLGATE.CHECK\r\n$3\r\napi\r\n$2\r\n\xff\xfe\r\n").await;
    client.expect("-ERR key \"\u{fffd}\u{fffd}\" is not UTF-8").await;
}

#[tokio::test]
async fn a_pipeline_is_answered_in_order_and_with_one_write() {
    let mut client = Client::new();
    let asked: String = (0..20).map(|i| format!("PING {i}\r\nCL.THROTTLE k 99 1 7200\r\n")).collect();
    client.send(&asked).await;
    for i in 0..20_usize {
        let number = i.to_string();
        let (left, reset) = (99 - i, 7200 * (i + 1));
        client
            .expect(&format!("${}\r\n{number}\r\n*5\r\n:0\r\n:100\r\n:{left}\r\n:-1\r\n:{reset}\r\n", number.len()))
            .await;
    }
    assert_eq!(client.writes.load(SeqCst), 1);
}

#[tokio::test]
async fn a_held_answer_holds_what_comes_behind_it_and_others_are_held_beside_it() {
    let mut client = Client::new();
    client.ask("SPILLGATE.CHECK quick a\r\nSPILLGATE.CHECK quick b\r\nPING", "*20\r\n$7\r\nallowed\r\n:1\r\n").await;
    client.until("+PONG\r\n").await;
    // both buckets are empty for a tenth of a second: the answers wait together, and PONG behind them
    let start = Instant::now();
    client
        .send("ECHO x\r\nSPILLGATE.CHECK quick a WAIT 5000\r\nHELLO 3\r\nSPILLGATE.CHECK quick b WAIT 5000\r\nPING\r\n")
        .await;
    // comes while the others wait
    tokio::task::yield_now().await;
    client.send("PING late\r\n").await;
    client.expect("$1\r\nx\r\n*20\r\n$7\r\nallowed\r\n:1\r\n").await;
    let seen = client.until("$4\r\nlate\r\n").await;
    let places = ["%7\r\n", "%10\r\n$7\r\nallowed\r\n#t\r\n", "+PONG\r\n"].map(|part| seen.find(part).expect(part));
    assert!(places.is_sorted(), "{seen}");
    assert!(start.elapsed() < Duration::from_secs(4), "held until the end of its time");
    // and where the time is up, the answer is no
    client.send("SPILLGATE.CHECK quick a WAIT 20\r\n").await;
    client.expect("%10\r\n$7\r\nallowed\r\n#f\r\n").await;
}

#[tokio::test]
async fn a_client_that_goes_while_it_waits_is_not_charged() {
    let resp = resp(Readiness::Ready, None);
    let mut client = Client::of(&resp);
    client.ask("CL.THROTTLE k 0 1 3600", "*5\r\n:0\r\n:1\r\n:0\r\n:-1\r\n:3600\r\n").await;
    client.ask("SPILLGATE.CHECK quick k", "*20\r\n").await;
    client.send("SPILLGATE.CHECK quick k WAIT 60000\r\n").await;
    client.stream.shutdown().await.unwrap();
    // it gets its answer, and the connection does not outlive it
    let rest = client.rest().await;
    assert!(rest.contains("over_limit"), "{rest}");
    client.ended().await;
}

#[tokio::test]
async fn checks_beyond_those_that_are_answered_at_once_are_told_so_and_change_nothing() {
    let resp = resp_with(Readiness::Ready, None, 2);
    let (mut waiting, mut other) = (Client::of(&resp), Client::of(&resp));
    // a slot that is not held is free again at once
    other.ask("SPILLGATE.CHECK api k", "*20\r\n$7\r\nallowed\r\n:1\r\n").await;
    other.until("$6\r\nreason\r\n$-1\r\n").await;
    waiting.ask("SPILLGATE.CHECK api k 999", "*20\r\n$7\r\nallowed\r\n:1\r\n").await;
    waiting.until("$6\r\nreason\r\n$-1\r\n").await;
    waiting.send("SPILLGATE.CHECK api k WAIT 60000\r\n".repeat(2)).await;
    while resp.api.checks.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let text = "-OVERLOADED this node answers as many checks as it can at once: try again in a moment\r\n";
    for command in ["CL.THROTTLE k 0 1 3600", "THROTTLE k 1 1 3600", "SPILLGATE.CHECK api k"] {
        other.ask(command, text).await;
    }
    other.ask("PING", "+PONG\r\n").await;
    // who goes gives its slots back
    drop(waiting.stream);
    timeout(DEADLINE, waiting.served).await.unwrap().unwrap();
    assert_eq!(resp.api.checks.available_permits(), 2);
    other.ask("CL.THROTTLE k 0 1 3600", "*5\r\n:0\r\n").await;
}

#[tokio::test]
async fn who_has_not_presented_the_token_can_do_nothing() {
    let resp = resp(Readiness::Ready, Some("s3cret"));
    let mut client = Client::of(&resp);
    for command in
        ["CL.THROTTLE k 2 1 60", "SPILLGATE.CHECK api k", "PING", "INFO", "COMMAND", "CLIENT ID", "CONFIG GET save"]
    {
        client.ask(command, "-NOAUTH Authentication required; send AUTH with the text of the token file\r\n").await;
    }
    client.ask("HELLO 3", "-NOAUTH Authentication required; send HELLO 3 AUTH default TOKEN\r\n").await;
    client
        .ask("AUTH wrong", "-WRONGPASS invalid username-password pair; the password is the token file's text\r\n")
        .await;
    client.ask("HELLO 3 AUTH default wrong", "-WRONGPASS invalid username-password pair\r\n").await;
    client.ask("AUTH default s3cret", "+OK\r\n").await;
    client.ask("PING", "+PONG\r\n").await;
    client.ask("RESET", "+RESET\r\n").await;
    client.ask("PING", "-NOAUTH").await;
    let mut client = Client::of(&resp);
    client.ask("HELLO 3 AUTH default s3cret SETNAME me", "%7\r\n").await;
    let mut client = Client::of(&resp);
    client.ask("AUTH s3cret", "+OK\r\n").await;
}

#[tokio::test]
async fn what_is_no_command_ends_the_connection_with_a_word_why() {
    for (bytes, error) in [
        ("PING\r\n*1\r\n:1\r\nPING\r\n", "+PONG\r\n-ERR Protocol error: expected '$', got ':'\r\n"),
        ("*999999999\r\n", "-ERR Protocol error: invalid multibulk length, a command has at most 256 arguments\r\n"),
        (
            "POST /v1/check HTTP/1.1\r\n\r\nPING\r\n",
            "-ERR Protocol error: this is HTTP, and here the Redis protocol is spoken\r\n",
        ),
    ] {
        let mut client = Client::new();
        client.send(bytes).await;
        assert_eq!(client.rest().await, error);
        drop(client.stream);
        timeout(DEADLINE, client.served).await.expect("still served").unwrap();
    }
    let mut client = Client::new();
    client.send("PING\r\nQUIT\r\nPING\r\n").await;
    assert_eq!(client.rest().await, "+PONG\r\n+OK\r\n");
}

#[tokio::test(start_paused = true)]
async fn half_a_command_is_waited_for_and_an_idle_client_stays() {
    let start = Instant::now();
    let mut silent = Client::new();
    assert_eq!((silent.rest().await.as_str(), start.elapsed().as_secs()), ("", 75));
    let start = Instant::now();
    let mut slow = Client::new();
    slow.ask("PING", "+PONG\r\n").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    slow.ask("PING", "+PONG\r\n").await;
    let asked = Instant::now();
    slow.send("*1\r\n$4\r\n").await;
    for byte in ["P", "I"] {
        tokio::time::sleep(Duration::from_secs(4)).await;
        slow.send(byte).await;
    }
    assert_eq!(slow.rest().await, "");
    assert_eq!((asked.elapsed().as_secs(), start.elapsed().as_secs()), (10, 3610));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_take_the_answers_gets_no_more_of_them_and_then_none() {
    let resp = resp(Readiness::Ready, None);
    let (mut stream, other) = duplex(1000);
    let (_shutdown, seen) = watch::channel(false);
    let served = tokio::spawn(resp.clone().serve(other, seen, PATIENCE));
    let start = Instant::now();
    // each answer is some hundred times as long as its question
    let sent = async {
        let mut sent = 0;
        while stream.write_all(b"COMMAND\r\n").await.is_ok() {
            sent += 1;
        }
        sent
    };
    let sent: usize = timeout(DEADLINE * 10, sent).await.expect("never refused");
    timeout(DEADLINE, served).await.expect("still served").unwrap();
    assert_eq!(start.elapsed().as_secs(), 75);
    // what one read brings, and what waits in between; none of it is kept as answers beyond the bound
    assert!(sent * 9 < (connection_input_max() + 2000), "{sent} commands were taken");
}

const fn connection_input_max() -> usize {
    super::wire::COMMAND_BYTES_MAX
}

#[tokio::test]
async fn a_shutdown_ends_the_idle_and_lets_the_waiting_have_their_answer() {
    let resp = resp(Readiness::Ready, None);
    let (mut idle, mut waiting) = (Client::of(&resp), Client::of(&resp));
    idle.ask("PING", "+PONG\r\n").await;
    waiting.ask("SPILLGATE.CHECK quick k", "*20\r\n").await;
    waiting.send("SPILLGATE.CHECK quick k WAIT 60000\r\nSPILLGATE.CHECK quick k WAIT 60000\r\n").await;
    // until they are held
    while resp.counts.commands().nth(2) != Some(("spillgate.check", 3)) {
        tokio::task::yield_now().await;
    }
    for client in [&idle, &waiting] {
        client.shutdown.send(true).unwrap();
    }
    assert_eq!(idle.rest().await, "");
    let rest = waiting.rest().await;
    assert_eq!(rest.matches("$7\r\nallowed").count(), 3, "{rest}");
    idle.ended().await;
    waiting.ended().await;
    assert_eq!(resp.counts.open(), 0);
}

#[tokio::test]
async fn commands_errors_and_connections_are_counted() {
    let resp = resp(Readiness::Ready, None);
    let mut client = Client::of(&resp);
    client.send("CL.THROTTLE k 1 1 60\r\nTHROTTLE k 1 1 60\r\nTHROTTLE k\r\nSPILLGATE.CHECK api k\r\nFOO\r\nPING\r\nPING end\r\n").await;
    client.until("end\r\n").await;
    let counts: Vec<_> = resp.counts.commands().collect();
    assert_eq!(counts, [("cl.throttle", 1), ("throttle", 2), ("spillgate.check", 1), ("other", 3)]);
    assert_eq!((resp.counts.errors(), resp.counts.open()), (2, 1));
    client.send("INFO\r\n").await;
    client.expect("$").await;
}
