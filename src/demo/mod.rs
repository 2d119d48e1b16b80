//! The demonstration: real daemons as child processes, one limit over all of them, more load than it allows, and the
//! truth about what got through. It must not know the daemon's insides: it starts the program and speaks HTTP.

pub mod load;
pub mod measure;
mod nodes;

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use spillgate_core::rate::Rate;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use load::Load;
use measure::Measure;
use nodes::Nodes;

/// What to show.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many daemons.
    pub nodes: usize,
    /// The limit over all of them.
    pub rate: Rate,
    /// Its burst, tokens.
    pub burst: u64,
    /// Its accuracy, as the configuration names it.
    pub accuracy: &'static str,
    /// Times the rate that is offered.
    pub load: f64,
    /// For how long.
    pub run_for: Duration,
    /// Leave the daemons running until interrupted.
    pub stay: bool,
}

/// Columns of nodes that a terminal has room for; the others are summed up.
const COLUMNS_MAX: usize = 8;

/// Starts the daemons, shows them under load, and stops them, also when interrupted.
///
/// # Errors
/// A daemon could not be started or ended by itself; its own last words are in the text.
pub async fn run(plan: &Plan) -> anyhow::Result<()> {
    let mut end = Interrupt::listen()?;
    let (nodes, mut ended) = tokio::select! {
        nodes = Nodes::start(plan) => nodes?,
        () = end.wait() => return Ok(()),
    };
    let shown = tokio::select! {
        shown = show(plan, &nodes) => shown,
        error = ended.wait() => Err(error),
        () = end.wait() => Ok(()),
    };
    if shown.is_ok() && plan.stay {
        print_invitation(&nodes)?;
        tokio::select! {
            error = ended.wait() => return Err(error),
            () = end.wait() => {}
        }
    }
    nodes.stop().await;
    shown
}

/// The user has enough: Ctrl-C, `kill`, or a terminal that is closed. By default the last two would end this process
/// alone and leave the daemons behind.
struct Interrupt([Signal; 3]);

impl Interrupt {
    fn listen() -> anyhow::Result<Self> {
        let heard = || {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [interrupt, terminate, hangup] = kinds.map(signal);
            Ok::<_, std::io::Error>(Self([interrupt?, terminate?, hangup?]))
        };
        heard().context("cannot listen for signals")
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

async fn show(plan: &Plan, nodes: &Nodes) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} daemons hold {} together (burst {}, accuracy {}); {} x that is offered over HTTP, {:.0} % of it to {}",
        plan.nodes,
        plan.rate,
        plan.burst,
        plan.accuracy,
        plan.load,
        100.0 * load::shares(plan.nodes)[0],
        nodes.names().next().unwrap_or_default(),
    )?;
    writeln!(out, "\n{}", header(plan, nodes))?;
    let start = Instant::now();
    let mut measure = Measure::new(plan.rate, plan.burst, plan.nodes);
    let mut load = Load::start(plan, nodes.addresses());
    let seconds = plan.run_for.as_secs().max(1);
    let mut before = vec![0; plan.nodes];
    for second in 1..=seconds {
        let until = start + plan.run_for.mul_f64(second as f64 / seconds as f64);
        load.collect(until, &mut measure).await?;
        let age = nodes.slowest_news().await?;
        writeln!(out, "{}", row(plan, second, &measure, &before, age))?;
        out.flush()?;
        before = measure.admitted_by_node().to_vec();
        sleep_until(until).await;
    }
    load.finish(&mut measure).await?;
    let verdict = measure.verdict();
    if measure.unsent() > 0 {
        writeln!(
            out,
            "\n{} requests could not be sent in time: this machine is too busy for the load",
            measure.unsent()
        )?;
    }
    let per_cent = 100.0 * verdict.overshoot / plan.burst as f64;
    writeln!(
        out,
        "\nadmitted {} of {} offered, overshoot {:.1} tokens ({per_cent:.2} %), utilisation {:.1} %",
        verdict.admitted,
        verdict.offered,
        verdict.overshoot,
        100.0 * verdict.utilisation,
    )?;
    out.flush().context("cannot print")
}

fn header(plan: &Plan, nodes: &Nodes) -> String {
    let mut text = format!("{:>4} ", "s");
    for name in nodes.names().take(COLUMNS_MAX) {
        text += &format!("{name:>8} ");
    }
    if plan.nodes > COLUMNS_MAX {
        text += &format!("{:>8} ", "others");
    }
    text + &format!("{:>8} {:>8} {:>10} {:>10}", "total", "limit", "overshoot", "news age")
}

/// One second: admitted by each node and in all, what the limit alone would give, overshoot so far, slowest news.
fn row(plan: &Plan, second: u64, measure: &Measure, before: &[u64], age: Option<Duration>) -> String {
    let admitted: Vec<u64> = measure.admitted_by_node().iter().zip(before).map(|(now, then)| now - then).collect();
    let mut text = format!("{second:>4} ");
    for n in admitted.iter().take(COLUMNS_MAX) {
        text += &format!("{n:>8} ");
    }
    if plan.nodes > COLUMNS_MAX {
        text += &format!("{:>8} ", admitted[COLUMNS_MAX..].iter().sum::<u64>());
    }
    let total: u64 = admitted.iter().sum();
    // in the first second the full bucket may be had as well
    let seconds = plan.run_for.as_secs_f64() / plan.run_for.as_secs().max(1) as f64;
    let limit = plan.rate.per_second() * seconds + if second == 1 { plan.burst as f64 } else { 0.0 };
    let age = age.map_or_else(|| "-".to_owned(), |age| format!("{:.1} ms", age.as_secs_f64() * 1e3));
    text + &format!("{total:>8} {limit:>8.0} {:>10.1} {age:>10}", measure.overshoot())
}

fn print_invitation(nodes: &Nodes) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let addresses: Vec<String> = nodes.addresses().iter().map(ToString::to_string).collect();
    let first = &addresses[0];
    writeln!(out, "\nThe daemons go on until Ctrl-C. Try:\n")?;
    for address in addresses.iter().take(COLUMNS_MAX) {
        writeln!(
            out,
            "  curl -s -H 'content-type: application/json' -d '{{\"limit\":\"demo\",\"key\":\"me\",\"cost\":1}}' http://{address}/v1/check"
        )?;
    }
    writeln!(out, "  curl -s http://{first}/v1/keys/demo/me")?;
    writeln!(out, "  curl -s http://{first}/v1/cluster")?;
    writeln!(out, "  spillgate status --addr http://{first}")?;
    out.flush().context("cannot print")
}
