//! Where another than the node decides, it is asked about every command that checks, and a pipeline at once.

use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use spillgate_core::decision::{Check, Decision, LimitRef, Reason};
use spillgate_core::node::Attempt;
use tokio::sync::Notify;

use super::*;
use crate::driver::{Referee, Ruled};

/// Refuses the keys that begin with "no", leaves those that begin with "own" to the node, and grants the rest.
#[derive(Default)]
struct Strict {
    absent: AtomicBool,
    /// Whether it answers only once it is let.
    slow: bool,
    answers: Notify,
    asked: Mutex<Vec<Vec<String>>>,
}

impl Referee for Strict {
    fn presides(&self) -> bool {
        !self.absent.load(SeqCst)
    }

    fn decide<'a>(
        &'a self,
        checks: &'a [Check<'a>],
        _: &'a [Attempt],
        _: bool,
    ) -> Pin<Box<dyn Future<Output = Ruled> + Send + 'a>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(checks.iter().map(|c| c.key.to_owned()).collect());
            if self.slow {
                self.answers.notified().await;
            }
            let decide = |check: &Check<'_>| {
                let allowed = !check.key.starts_with("no");
                (!check.key.starts_with("own")).then_some(Decision {
                    allowed,
                    reason: (!allowed).then_some(Reason::OverLimit),
                    cost: check.cost,
                    capacity: 7,
                    remaining: 3,
                    retry_after: Nanos::from_millis(10),
                    reset_after: Nanos::from_secs(5),
                    delay: Nanos::ZERO,
                    confirm_wait: Nanos::ZERO,
                    window: Nanos::from_secs(7),
                })
            };
            Ok(checks.iter().map(decide).collect())
        })
    }

    fn given_back(&self, _: LimitRef<'_>, _: &str) {}
}

fn refereed(referee: &Arc<Strict>) -> Arc<Resp> {
    let resp = resp(Readiness::Ready, None);
    resp.api.driver.set_referee(referee.clone());
    resp
}

#[tokio::test]
async fn a_pipeline_is_asked_about_at_once_and_answered_in_order() {
    let referee = Arc::new(Strict::default());
    let mut client = Client::of(&refereed(&referee));
    client
        .send(
            "THROTTLE yes 1 1 60\r\nPING one\r\nTHROTTLE no 1 1 60\r\nTHROTTLE own 4 1 60\r\nSPILLGATE.CHECK nowhere k\r\n\
             PING two\r\n",
        )
        .await;
    client.expect("*5\r\n:1\r\n:7\r\n:3\r\n:5\r\n:0\r\n$3\r\none\r\n").await;
    client.expect("*5\r\n:0\r\n:7\r\n:3\r\n:5\r\n:1\r\n").await;
    // what it leaves to the node the node decides, by the rule that came with it
    client.expect("*5\r\n:1\r\n:4\r\n:3\r\n:60\r\n:0\r\n").await;
    client.expect("-ERR unknown limit \"nowhere\"").await;
    client.until("two\r\n").await;
    assert_eq!(*referee.asked.lock().unwrap(), [["yes", "no", "own"]]);
}

#[tokio::test]
async fn what_waits_is_asked_about_again() {
    let referee = Arc::new(Strict::default());
    let mut client = Client::of(&refereed(&referee));
    client.send("SPILLGATE.CHECK api no WAIT 60\r\nPING end\r\n").await;
    client.until("end\r\n").await;
    let asked = referee.asked.lock().unwrap().clone();
    assert!(asked.len() >= 2 && asked.iter().all(|keys| keys == &["no"]), "{asked:?}");
}

#[tokio::test]
async fn the_node_decides_at_once_when_nobody_presides() {
    let referee = Arc::new(Strict { absent: AtomicBool::new(true), ..Strict::default() });
    let mut client = Client::of(&refereed(&referee));
    client.ask("THROTTLE no 4 1 60", "*5\r\n:1\r\n:4\r\n:3\r\n:60\r\n:0\r\n").await;
    assert!(referee.asked.lock().unwrap().is_empty());
    referee.absent.store(false, SeqCst);
    client.ask("THROTTLE no 4 1 60", "*5\r\n:0\r\n:7\r\n:3\r\n:5\r\n:1\r\n").await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_referee_for_good() {
    let referee = Arc::new(Strict { slow: true, ..Strict::default() });
    let mut client = Client::of(&refereed(&referee));
    client.send("PING\r\nTHROTTLE yes 1 1 60\r\n").await;
    let asked = async {
        while referee.asked.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), asked).await.expect("nobody is asked");
    client.shutdown.send(true).unwrap();
    let rest = client.rest().await;
    assert!(rest.starts_with("+PONG\r\n-DRAINING "), "{rest}");
    client.ended().await;
}
