//! The load: requests in even spacing to each node, whatever the answers, over kept-alive connections. It must not know
//! what an answer means for the limit.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::Plan;
use super::measure::{Answer, Measure};

/// Connections to each node: so many requests may be under way there at once.
const CONNECTIONS: usize = 16;
/// Requests that may wait for a free connection; more than that are dropped and told of.
const WAITING_MAX: usize = 256;
/// Requests are sent off in steps of this length.
const STEP: Duration = Duration::from_millis(1);
/// How long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// What part of the load each node gets: the first most, the i-th 1/i of that.
#[must_use]
pub fn shares(nodes: usize) -> Vec<f64> {
    let weights: Vec<f64> = (1..=nodes).map(|i| 1.0 / i as f64).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

enum Report {
    Answered(Answer),
    Unsent,
    Failed(anyhow::Error),
}

/// Load under way.
pub struct Load {
    reports: mpsc::UnboundedReceiver<Report>,
    // ends the senders when dropped
    _tasks: JoinSet<()>,
}

impl Load {
    /// Begins at once and goes on for the plan's time: one token a request, of the key `everybody` under the limit
    /// `demo`.
    #[must_use]
    pub fn start(plan: &Plan, nodes: &[SocketAddr]) -> Self {
        let (report, reports) = mpsc::unbounded_channel();
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (node, (address, share)) in nodes.iter().zip(shares(nodes.len())).enumerate() {
            let rate = plan.rate.per_second() * plan.load * share;
            let (due, queue) = async_queue();
            for _ in 0..CONNECTIONS {
                tasks.spawn(send(node, *address, start, queue.clone(), report.clone()));
            }
            tasks.spawn(schedule(rate, start, plan.run_for, due, report.clone()));
        }
        Self { reports, _tasks: tasks }
    }

    /// Hands every answer that comes before `until` to `measure`.
    ///
    /// # Errors
    /// A node can't be asked, or answers otherwise than spillgate does.
    pub async fn collect(&mut self, until: Instant, measure: &mut Measure) -> anyhow::Result<()> {
        while let Ok(Some(report)) = timeout_at(until, self.reports.recv()).await {
            match report {
                Report::Answered(answer) => measure.take(answer),
                Report::Unsent => measure.miss(),
                Report::Failed(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes in the last answers.
    ///
    /// # Errors
    /// Those of [`Load::collect`].
    pub async fn finish(&mut self, measure: &mut Measure) -> anyhow::Result<()> {
        self.collect(Instant::now() + LAST_ANSWERS, measure).await
    }
}

/// Many senders take from one queue.
type Queue = std::sync::Arc<tokio::sync::Mutex<mpsc::Receiver<()>>>;

fn async_queue() -> (mpsc::Sender<()>, Queue) {
    let (due, queue) = mpsc::channel(WAITING_MAX);
    (due, std::sync::Arc::new(tokio::sync::Mutex::new(queue)))
}

/// Has a request sent whenever one is due.
async fn schedule(
    rate: f64,
    start: Instant,
    run_for: Duration,
    due: mpsc::Sender<()>,
    report: mpsc::UnboundedSender<Report>,
) {
    let mut steps = interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sent = 0u64;
    loop {
        steps.tick().await;
        let passed = start.elapsed().min(run_for);
        let wanted = (passed.as_secs_f64() * rate) as u64;
        for _ in sent..wanted {
            if due.try_send(()).is_err() && report.send(Report::Unsent).is_err() {
                return;
            }
        }
        sent = wanted;
        if passed == run_for {
            return;
        }
    }
}

#[derive(Deserialize)]
struct Allowed {
    allowed: bool,
}

/// Sends requests over one connection until there are no more.
async fn send(node: usize, address: SocketAddr, start: Instant, queue: Queue, report: mpsc::UnboundedSender<Report>) {
    let run = async {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        while let Some(()) = { queue.lock().await.recv().await } {
            let sent = start.elapsed();
            let allowed = ask(&mut sender, address).await?;
            let answer = Answer { node, sent, answered: start.elapsed(), allowed };
            if report.send(Report::Answered(answer)).is_err() {
                break;
            }
        }
        drop(sender);
        let _ = connection.await;
        anyhow::Ok(())
    };
    if let Err(error) = run.await {
        // nobody listens any more when the demonstration is over
        let _ = report.send(Report::Failed(error));
    }
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, address: SocketAddr) -> anyhow::Result<bool> {
    const BODY: Bytes = Bytes::from_static(br#"{"limit":"demo","key":"everybody","cost":1}"#);
    let request = Request::post("/v1/check")
        .header("host", address.to_string())
        .header("content-type", "application/json")
        .body(Full::new(BODY))?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let answer: Allowed = serde_json::from_slice(&body)
        .with_context(|| format!("{address} answered {status}: {}", String::from_utf8_lossy(&body)))?;
    Ok(answer.allowed)
}
