//! Callers of the daemons while things break: what they were granted, and how long they waited. It must not know what
//! breaks.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::limits::{LIMITS, Limit};
use crate::daemon::{DEADLINE, Daemon, until};
use crate::http1::{Http1, request};

/// Between two turns of a caller: the first node is asked most, so that shares are uneven.
const PAUSES_MS: [u64; 5] = [5, 20, 20, 30, 30];
/// How often it is looked how late the machine lets a task run.
const WITNESS_EVERY: Duration = Duration::from_millis(5);

/// A token that a caller was granted.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    pub limit: Limit,
    pub node: usize,
    /// Since the run's start, both.
    pub sent: Duration,
    pub answered: Duration,
    /// The same by the wall clock, since the epoch.
    pub wall: [Duration; 2],
}

/// What callers have seen since it was last taken.
#[derive(Debug, Default)]
pub struct Seen {
    pub grants: Vec<Grant>,
    pub answers: u64,
    /// Requests that a node had not answered when its process ended: it may have granted them.
    pub unanswered: u64,
    /// The longest wait for an answer, without the time for which its node was made to stand still.
    pub slowest: Duration,
}

#[derive(Debug)]
struct Shared {
    begun: Instant,
    addresses: Mutex<Vec<SocketAddr>>,
    /// When each node was made to stand still, and until when.
    halts: Mutex<Vec<(usize, Duration, Option<Duration>)>>,
    seen: Mutex<Seen>,
    /// How late a task of this process was let run at worst: the machine, not the daemons.
    machine_late_us: AtomicU64,
    resting: AtomicBool,
    asking: AtomicU64,
}

/// The callers; they end when dropped.
pub struct Load {
    shared: Arc<Shared>,
    callers: JoinSet<()>,
}

impl Load {
    /// One caller a daemon.
    pub fn start(daemons: &[Daemon]) -> Self {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            addresses: Mutex::new(daemons.iter().map(|d| d.http).collect()),
            halts: Mutex::default(),
            seen: Mutex::default(),
            machine_late_us: AtomicU64::new(0),
            resting: AtomicBool::new(false),
            asking: AtomicU64::new(0),
        });
        let mut callers = JoinSet::new();
        for node in 0..daemons.len() {
            callers.spawn(shared.clone().call(node));
        }
        callers.spawn(shared.clone().witness());
        Self { shared, callers }
    }

    /// Since the start.
    pub fn now(&self) -> Duration {
        self.shared.begun.elapsed()
    }

    /// A node was started again, and listens elsewhere.
    pub fn moved(&self, node: usize, to: SocketAddr) {
        self.shared.addresses.lock().unwrap()[node] = to;
    }

    /// A node is made to stand still, or goes on.
    pub fn halt(&self, node: usize, stands: bool) {
        let now = self.now();
        let mut halts = self.shared.halts.lock().unwrap();
        if stands {
            halts.push((node, now, None));
        } else if let Some(halt) = halts.iter_mut().rev().find(|h| h.0 == node) {
            halt.2 = Some(now);
        }
    }

    /// No request is made from now on, and none is under way any more.
    pub async fn rest(&self) {
        self.shared.resting.store(true, Relaxed);
        until("nobody asks", async || self.shared.asking.load(Relaxed) == 0).await;
    }

    pub fn go_on(&self) {
        self.shared.resting.store(false, Relaxed);
    }

    /// How many such grants there were since the last time.
    pub fn count(&self, such: impl Fn(&&Grant) -> bool) -> usize {
        self.shared.seen.lock().unwrap().grants.iter().filter(such).count()
    }

    /// What was seen since the last time, and how late the machine was.
    pub fn take(&self) -> (Seen, Duration) {
        let late = Duration::from_micros(self.shared.machine_late_us.swap(0, Relaxed));
        (std::mem::take(&mut self.shared.seen.lock().unwrap()), late)
    }

    /// Ends the callers; panics with any of them.
    pub async fn finish(mut self) {
        self.rest().await;
        if let Some(Err(ended)) = self.callers.try_join_next() {
            panic!("{ended}");
        }
        self.callers.shutdown().await;
    }
}

impl Shared {
    async fn witness(self: Arc<Self>) {
        loop {
            let due = Instant::now() + WITNESS_EVERY;
            sleep(WITNESS_EVERY).await;
            self.machine_late_us.fetch_max(u64::try_from(due.elapsed().as_micros()).unwrap(), Relaxed);
        }
    }

    async fn call(self: Arc<Self>, node: usize) {
        let mut connection = None;
        loop {
            self.asking.fetch_add(1, Relaxed);
            // looked at after that, so that who waits for nobody to ask waits for this one too
            if !self.resting.load(Relaxed) {
                for limit in LIMITS {
                    self.ask(node, limit, &mut connection).await;
                }
            }
            self.asking.fetch_sub(1, Relaxed);
            sleep(Duration::from_millis(PAUSES_MS[node % PAUSES_MS.len()])).await;
        }
    }

    async fn ask(&self, node: usize, limit: Limit, connection: &mut Option<Http1<tokio::net::TcpStream>>) {
        let address = self.addresses.lock().unwrap()[node];
        if connection.is_none() {
            // nobody is there while a node is down; one that stands still has its socket take connections all the same
            *connection = Http1::try_tcp(address).await;
        }
        let Some(http) = connection else { return };
        let body = format!(r#"{{"limit":"{}","key":"k"}}"#, limit.name());
        let bytes = request("POST", "/v1/check", &[("content-type", "application/json")], body.as_bytes());
        let (sent, wall_sent) = (self.begun.elapsed(), wall());
        http.send_or_fail(bytes).await;
        let answer = timeout(DEADLINE, http.answer_or_end()).await.unwrap_or_else(|_| panic!("node {node} is dumb"));
        let (answered, wall_answered) = (self.begun.elapsed(), wall());
        let mut seen = self.seen.lock().unwrap();
        let Some(answer) = answer else {
            seen.unanswered += 1;
            *connection = None;
            return;
        };
        seen.answers += 1;
        let took = (answered - sent).saturating_sub(self.halted(node, sent, answered));
        seen.slowest = seen.slowest.max(took);
        match answer.status {
            200 if answer.json()["allowed"] == Value::Bool(true) => {
                seen.grants.push(Grant { limit, node, sent, answered, wall: [wall_sent, wall_answered] });
            }
            200 => {}
            // it is on its way out
            503 => *connection = None,
            other => panic!("node {node} answers {other}: {}", answer.text()),
        }
    }

    /// How much of that time the node was made to stand still.
    fn halted(&self, node: usize, from: Duration, to: Duration) -> Duration {
        let halts = self.halts.lock().unwrap();
        let overlap = |(_, begin, end): &(usize, Duration, Option<Duration>)| {
            end.unwrap_or(to).min(to).saturating_sub((*begin).max(from))
        };
        halts.iter().filter(|h| h.0 == node).map(overlap).sum()
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}
