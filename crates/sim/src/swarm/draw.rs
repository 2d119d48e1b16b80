//! Draws a scenario's text from a seed. It must not know how scenarios are read.

use std::fmt::Write as _;

use super::Swarm;
use crate::random::{Purpose, Random};

/// When faults begin and end, milliseconds since the start of the workload.
const FAULTS_FROM: u64 = 300;
const FAULTS_UNTIL: u64 = 3300;
/// When all faults have been healed.
const HEALED_AT: u64 = 3400;
/// How long requests come: after healing, nodes have time to be called up, to join and to speak under load.
const DURATION: u64 = 5000;
/// From then on, counted from the end of the workload, nothing is on its way any more, in milliseconds: what is held
/// has been answered, and restarted nodes that could not join in time have begun.
pub(crate) const QUIET_AFTER: u64 = 1000;

struct Draw {
    random: Random,
    nodes: u64,
    text: String,
}

/// The text of a seed's scenario.
pub(super) fn draw(swarm: &Swarm, seed: u64) -> String {
    let mut random = Random::new(seed, Purpose::Swarm);
    let nodes = random.between(swarm.nodes.0, swarm.nodes.1);
    let mut draw = Draw { random, nodes, text: String::new() };
    let strategies = swarm.strategies.join("\", \"");
    draw.line(format_args!("question = \"what does the swarm find under seed {seed}?\"\nseed = {seed}"));
    draw.line(format_args!("strategies = [\"{strategies}\"]"));
    draw.line(format_args!("duration = \"{DURATION}ms\"\nwarmup = \"2s\"\nsettle = \"3s\""));
    draw.cluster();
    draw.network();
    let limits = draw.limits();
    draw.workloads(&limits, swarm.rate_max);
    let windowed = limits.iter().any(|limit| limit.windowed);
    for _ in 0..draw.random.between(swarm.faults.0, swarm.faults.1) {
        draw.fault(windowed);
    }
    draw.line(format_args!("\n[[event]]\nat = \"{HEALED_AT}ms\"\nkind = \"heal\""));
    draw.text
}

/// A limit that was drawn.
struct Limit {
    windowed: bool,
    rate: u64,
    capacity: u64,
}

impl Draw {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // writing to a text can't fail
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.random.below(choices.len() as u64) as usize]
    }

    /// Between the two, small ones as often as large ones.
    fn magnitude(&mut self, least: u64, most: u64) -> u64 {
        let span = crate::math::ln(most as f64 / least as f64);
        ((least as f64 * crate::math::exp(span * self.random.unit())) as u64).clamp(least, most)
    }

    fn node(&mut self) -> u64 {
        self.random.between(1, self.nodes)
    }

    /// Some of the nodes, not all.
    fn side(&mut self) -> String {
        let most = self.nodes / 2;
        let count = self.random.between(1, most.max(1));
        let first = self.node();
        let names: Vec<String> = (0..count).map(|i| format!("\"n{}\"", (first - 1 + i) % self.nodes + 1)).collect();
        names.join(", ")
    }

    fn cluster(&mut self) {
        let nodes = self.nodes;
        self.line(format_args!("\n[nodes]\ncount = {nodes}"));
        let interval = self.one_of(&[5, 10, 10, 10, 20]);
        self.line(format_args!("gossip_interval = \"{interval}ms\""));
        if self.random.happens(0.2) {
            let keys = self.one_of(&[4, 64]);
            self.line(format_args!("max_keys = {}", keys * 16));
        }
    }

    fn network(&mut self) {
        let latency = self.magnitude(50, 60_000);
        self.line(format_args!("\n[network]\nlatency = [\"{}us\", \"{latency}us\"]", latency / 2));
        if self.random.happens(0.5) {
            let (loss, double, late) = (self.magnitude(1, 30), self.random.between(0, 20), self.random.between(0, 30));
            self.line(format_args!("loss = \"{loss}%\"\nduplicate = \"{double}%\"\nreorder = \"{late}%\""));
            let by = self.magnitude(1, 100);
            self.line(format_args!("reorder_by = \"{by}ms\""));
        }
        if self.random.happens(0.15) {
            let bandwidth = self.magnitude(500, 20_000);
            self.line(format_args!("bandwidth = \"{bandwidth}kbit/s\""));
        }
    }

    fn limits(&mut self) -> Vec<Limit> {
        let count = self.one_of(&[1, 1, 2]);
        (0..count).map(|i| self.limit(i)).collect()
    }

    fn limit(&mut self, i: u64) -> Limit {
        let algorithm =
            self.one_of(&["token-bucket", "token-bucket", "leaky-bucket", "fixed-window", "sliding-window"]);
        let rate = self.magnitude(2, 2000);
        self.line(format_args!("\n[[limit]]\nname = \"l{i}\"\nalgorithm = \"{algorithm}\"\nrate = \"{rate}/s\""));
        let mut capacity = rate;
        if algorithm.ends_with("bucket") {
            capacity = match self.random.below(4) {
                0 => self.random.between(1, 2 * self.nodes),
                1 => (rate / 10).max(1),
                2 => rate * 2,
                _ => rate,
            };
            self.line(format_args!("burst = {capacity}"));
        }
        let policy = self.one_of(&["share", "share", "share", "deny"]);
        self.line(format_args!("on_partition = \"{policy}\""));
        if self.random.happens(0.3) {
            let wait = self.one_of(&[0, 5, 50, 200]);
            self.line(format_args!("confirm_wait = \"{wait}ms\""));
        }
        Limit { windowed: !algorithm.ends_with("bucket"), rate, capacity }
    }

    fn workloads(&mut self, limits: &[Limit], rate_max: u64) {
        let count = self.one_of(&[1, 2, 3]);
        for _ in 0..count {
            let place = self.random.below(limits.len() as u64) as usize;
            let limit = &limits[place];
            let keys = self.one_of(&[1, 1, 1, 3, 200]);
            let cost = if self.random.happens(0.2) { self.random.between(1, limit.capacity.min(10)) } else { 1 };
            let percent = self.magnitude(20, 1000);
            let rate = (limit.rate * percent * keys.min(3) / 100 / cost).clamp(1, rate_max / count);
            self.line(format_args!("\n[[workload]]\nlimit = \"l{place}\"\nrate = \"{rate}/s\"\ncost = {cost}"));
            if keys > 1 {
                self.line(format_args!("keys = {keys}"));
            }
            self.shape();
            let spread = self.one_of(&["even", "zipf", "round-robin", "sticky", "moving", "one"]);
            let node = if spread == "one" { format!("n{}", self.node()) } else { spread.to_owned() };
            self.line(format_args!("nodes = \"{node}\""));
            if self.random.happens(0.2) {
                let wait = self.one_of(&[10, 100, 500]);
                self.line(format_args!("wait = \"{wait}ms\""));
            }
            if self.random.happens(0.2) {
                let heed = self.random.happens(0.5);
                let after = self.one_of(&[10, 50, 200]);
                self.line(format_args!("retry = {{ attempts = 3, after = \"{after}ms\", heed_retry_after = {heed} }}"));
            }
        }
    }

    fn shape(&mut self) {
        match self.random.below(4) {
            0 => {
                let (on, off) = (self.magnitude(50, 2000), self.magnitude(50, 2000));
                self.line(format_args!("shape = \"on-off\"\non = \"{on}ms\"\noff = \"{off}ms\""));
            }
            1 => {
                let (at, lasts) = (self.random.between(0, DURATION), self.magnitude(50, 2000));
                self.line(format_args!("shape = \"flash\"\nsurge_at = \"{at}ms\"\nsurge_for = \"{lasts}ms\""));
                self.line(format_args!("surge_factor = 5"));
            }
            _ => {}
        }
    }

    fn fault(&mut self, windowed: bool) {
        let at = self.random.between(FAULTS_FROM, FAULTS_UNTIL - 100);
        let lasts = self.magnitude(20, FAULTS_UNTIL - at);
        let (node, other) = (self.node(), self.node());
        self.line(format_args!("\n[[event]]\nat = \"{at}ms\""));
        match self.random.below(10) {
            0 => self.line(format_args!("kind = \"crash\"\nnode = \"n{node}\"\nfor = \"{lasts}ms\"")),
            1 => self.line(format_args!("kind = \"restart\"\nnode = \"n{node}\"\nfor = \"{lasts}ms\"")),
            2 => self.line(format_args!("kind = \"pause\"\nnode = \"n{node}\"\nfor = \"{lasts}ms\"")),
            // windows go by the clock: where one is ahead, it lets the next one begin
            3 if !windowed => {
                let ppm = self.random.between(0, 400).cast_signed() - 200;
                self.line(format_args!("kind = \"clock\"\nnode = \"n{node}\"\nclock_ppm = {ppm}"));
            }
            4 => {
                let side = self.side();
                self.line(format_args!("kind = \"partition\"\nsides = [[{side}]]\nfor = \"{lasts}ms\""));
            }
            5 => self.line(format_args!("kind = \"isolate\"\nnode = \"n{node}\"\nfor = \"{lasts}ms\"")),
            6 if node != other => {
                self.line(format_args!(
                    "kind = \"one-way\"\nfrom = \"n{node}\"\nto = \"n{other}\"\nfor = \"{lasts}ms\""
                ));
            }
            7 => self.line(format_args!("kind = \"clog\"\nfrom = \"n{node}\"\nto = \"*\"\nfor = \"{lasts}ms\"")),
            8 => {
                let (loss, latency) = (self.random.between(0, 90), self.magnitude(1, 200));
                self.line(format_args!("kind = \"network\"\nfrom = \"n{node}\"\nto = \"*\"\nfor = \"{lasts}ms\""));
                self.line(format_args!("loss = \"{loss}%\"\nlatency = \"{latency}ms\""));
            }
            _ => self.line(format_args!("kind = \"suspect\"\nnode = \"n{node}\"\nfor = \"{lasts}ms\"")),
        }
    }
}
