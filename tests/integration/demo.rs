//! The demonstration as a process: its verdict, and that nothing of it is left behind.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::command::{Outcome, command, run};
use crate::daemon::{DEADLINE, until};

/// The last line, in numbers.
#[derive(Debug)]
struct Verdict {
    admitted: u64,
    offered: u64,
    overshoot_percent: f64,
    utilisation_percent: f64,
}

impl Verdict {
    fn of(outcome: &Outcome) -> Self {
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let line = outcome.out.lines().last().unwrap();
        let read = || {
            let (admitted, rest) = line.strip_prefix("admitted ")?.split_once(" of ")?;
            let (offered, rest) = rest.split_once(" offered, overshoot ")?;
            let (tokens, rest) = rest.split_once(" tokens (")?;
            let (overshoot, rest) = rest.split_once(" %), utilisation ")?;
            tokens.parse::<f64>().ok()?;
            Some(Self {
                admitted: admitted.parse().ok()?,
                offered: offered.parse().ok()?,
                overshoot_percent: overshoot.parse().ok()?,
                utilisation_percent: rest.strip_suffix(" %")?.parse().ok()?,
            })
        };
        read().unwrap_or_else(|| panic!("the last line is {line:?} of\n{}", outcome.out))
    }

    /// What `bounded` promises of the demonstration.
    fn holds(&self) -> bool {
        self.overshoot_percent <= 1.0 && self.utilisation_percent >= 97.0
    }
}

/// The figures are measured on the wall clock from outside, and err upwards where this machine stalls; so of three runs
/// one has to come out as promised.
async fn demonstrate(args: &[&str]) {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let outcome = run(&[&["demo", "--for", "2s"], args].concat()).await;
        let verdict = Verdict::of(&outcome);
        // three times the rate for 2 s, less what a busy machine could not send; more than the 3000 that may be had
        assert!((3100..=6001).contains(&verdict.offered), "{verdict:?}");
        assert!(verdict.admitted <= verdict.offered, "{verdict:?}");
        if verdict.holds() {
            return;
        }
        seen.push(verdict);
    }
    panic!("not as promised in any of {seen:?}");
}

#[tokio::test]
async fn three_nodes_hold_one_limit() {
    demonstrate(&[]).await;
}

#[tokio::test]
async fn five_nodes_hold_one_limit() {
    demonstrate(&["--nodes", "5"]).await;
}

/// A demonstration that goes on.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut child = command(&[&["demo"], args].concat()).stderr(Stdio::inherit()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads on to a line that holds `part`; that and what came before.
    async fn read_to(&mut self, part: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let line = timeout(DEADLINE, self.lines.next_line()).await.expect("it says no more").unwrap();
            seen.push(line.unwrap_or_else(|| panic!("it ended before {part:?}: {seen:?}")));
            if seen.last().is_some_and(|line| line.contains(part)) {
                return seen;
            }
        }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id().expect("it runs")).unwrap()
    }

    /// Processes that it has started.
    fn children(&self) -> Vec<i32> {
        // whichever of its threads has started them
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let texts = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        texts.flat_map(|text| text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<i32>>()).collect()
    }

    /// Sends it a signal and waits for its end; its exit code, none where the signal ended it.
    async fn end(mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
        timeout(DEADLINE, self.child.wait()).await.expect("it does not end").unwrap().code()
    }
}

fn runs(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    // a zombie has ended, and waits for its parent
    status.is_ok_and(|s| s.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

#[tokio::test]
async fn an_interrupt_ends_all_of_it() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut running = Running::start(&["--for", "60s"]);
        running.read_to("news age").await;
        let children = running.children();
        assert_eq!(children.iter().filter(|pid| runs(**pid)).count(), 3, "{children:?}");
        assert_eq!(running.end(signal).await, Some(0));
        until("its daemons have ended", async || !children.iter().any(|pid| runs(*pid))).await;
    }
}

#[tokio::test]
async fn who_stays_can_be_asked() {
    let mut running = Running::start(&["--for", "1s", "--nodes", "2", "--stay", "--limit", "10/h", "--burst", "50"]);
    let shown = running.read_to("spillgate status").await;
    let children = running.children();
    let lines: Vec<&str> = shown.iter().map(|l| l.trim()).filter(|l| l.starts_with("curl ")).collect();
    assert_eq!(lines.len(), 4, "{shown:?}");
    for line in &lines {
        let asked = tokio::process::Command::new("sh").args(["-c", line]).kill_on_drop(true).output();
        let asked = timeout(DEADLINE, asked).await.expect("no answer").unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&asked.stdout)
            .unwrap_or_else(|e| panic!("{line}: {e} {}", String::from_utf8_lossy(&asked.stderr)));
        assert!(answer["allowed"] == true || answer["key"] == "me" || answer["cluster"] == "demo", "{line}: {answer}");
    }
    let status: Vec<&str> = shown.last().unwrap().split_whitespace().skip(1).collect();
    assert!(run(&status).await.good().starts_with("node a, cluster demo, ready"));
    assert_eq!(running.end(Signal::INT).await, Some(0));
    until("its daemons have ended", async || !children.iter().any(|pid| runs(*pid))).await;
}
