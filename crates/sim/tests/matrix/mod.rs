//! The accuracy matrix: one limit of 1000/s under every combination of nodes, bucket, delay, loss, demand and load, and
//! what is claimed of each. What each came to stands in `simulations/matrix.csv`, which the example `matrix` writes.

use std::fmt;
use std::path::{Path, PathBuf};

use spillgate_sim::judge::failures;
use spillgate_sim::run::RunResult;
use spillgate_sim::scenario::Scenario;

/// How far, in points, a cell that is short of its goal may fall below what it came to before.
const MARGIN: f64 = 1.0;

/// How the requests are spread: name, and the workload's lines beside its load.
const DEMANDS: [(&str, &str); 8] = [
    ("even", ""),
    ("zipf", "nodes = 'zipf'"),
    ("one", "nodes = 'n1'"),
    ("moving", "nodes = 'moving'\nmove_every = '1s'"),
    ("flash", "shape = 'flash'\nsurge_at = '2s'\nsurge_for = '2s'\nsurge_factor = 10"),
    ("cold-flash", "from = '1s'\nuntil = '4s'"),
    ("on-off", "shape = 'on-off'\non = '500ms'\noff = '500ms'"),
    ("retry-storm", "retry = { attempts = 3, after = '20ms' }"),
];

/// One combination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    pub nodes: u32,
    pub burst: u32,
    pub delay_us: u32,
    /// In per cent.
    pub loss: u32,
    /// Which of [`DEMANDS`].
    demand: usize,
    pub load: f64,
    /// For how long an answer may wait for a confirmation.
    pub wait_ms: u32,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, burst, delay_us, loss, load, wait_ms, .. } = self;
        write!(f, "{nodes},{burst},{},{loss},{},{load},{wait_ms}", f64::from(*delay_us) / 1000.0, self.demand())
    }
}

impl Cell {
    /// Every combination; of those with 50 nodes one in nine.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for nodes in [3, 10, 50] {
            for burst in [1000, 100] {
                for delay_us in [500, 5000, 20_000, 80_000] {
                    for loss in [0, 5, 20] {
                        for demand in 0..DEMANDS.len() {
                            for load in [0.7, 1.5, 3.0] {
                                let cell = Self { nodes, burst, delay_us, loss, demand, load, wait_ms: 5 };
                                if nodes == 50 && !cell.is_chosen() {
                                    continue;
                                }
                                all.push(cell);
                                if (burst, delay_us) == (100, 20_000) {
                                    all.push(Self { wait_ms: 100, ..cell });
                                }
                            }
                        }
                    }
                }
            }
        }
        all
    }

    /// Whether it is run with 50 nodes too, where each takes seconds.
    fn is_chosen(&self) -> bool {
        self.load == 1.5 && self.loss != 5 && ["even", "zipf", "cold-flash", "on-off"].contains(&self.demand())
    }

    pub fn demand(&self) -> &'static str {
        DEMANDS[self.demand].0
    }

    /// The utilisation that was set as the goal, in per cent: where the offered load is enough for it, an even share is
    /// five tokens or more, and the delay is one that a goal was set for.
    pub fn goal(&self, strict: bool) -> Option<f64> {
        let enough = self.load > 1.0 && self.burst >= 5 * self.nodes;
        let goal = match (self.delay_us, self.burst) {
            (500, _) => 99.0,
            (5000 | 20_000, 1000) if strict && self.nodes == 50 => 95.0,
            (5000 | 20_000, 1000) => 97.0,
            (20_000, _) if !strict => 95.0,
            (20_000, _) if self.wait_ms == 100 => 90.0,
            _ => return None,
        };
        enough.then_some(if self.loss == 0 { goal } else { goal - 4.0 })
    }

    /// How many checks that one central bucket would grant `bounded` may refuse, in per cent of those offered.
    pub fn false_refusals(&self) -> Option<f64> {
        match (self.delay_us, self.burst) {
            // ten times a load of 0.7 is none
            _ if self.load > 1.0 || self.loss > 0 || self.demand().ends_with("flash") => None,
            (500, _) => Some(0.1),
            (20_000, 1000) => Some(1.0),
            _ => None,
        }
    }

    /// The scenario, with its claims: a cell that was short of its goal when it was `recorded` is held to what it came to.
    pub fn scenario(&self, recorded: &[Row]) -> Scenario {
        let Self { nodes, burst, delay_us, loss, load, wait_ms, .. } = self;
        // a cold flash has ten times the load from nothing
        let load = if self.demand() == "cold-flash" { load * 10.0 } else { *load };
        let mut text = format!(
            "duration = '10s'\nstrategies = ['strict', 'bounded']\n[nodes]\ncount = {nodes}\n[network]\n\
             latency = '{delay_us}us'\njitter = '{}us'\nloss = {}\n[[limit]]\nrate = '1000/s'\nburst = {burst}\n\
             confirm_wait = '{wait_ms}ms'\n[[workload]]\nload = {load:?}\n{}\n",
            delay_us / 2,
            f64::from(*loss) / 100.0,
            DEMANDS[self.demand].1
        );
        let mut claim = |strategy: &str, measure: &str, bound: &str, value: f64| {
            text += &format!(
                "[[expect]]\nstrategy = '{strategy}'\nmeasure = '{measure}'\n{bound} = {value:?}\nwhy = 'the goal, or what was'\n"
            );
        };
        // what bounded states for small limits: a charge a peer
        let small = *burst < 5 * nodes;
        claim("strict", "overshoot", "max", 0.0);
        claim("bounded", "overshoot", "max", if small { f64::from(nodes - 1) } else { 0.05 * f64::from(*burst) });
        for strategy in ["strict", "bounded"] {
            let row = recorded.iter().find(|row| row.cell == self.to_string() && row.strategy == strategy);
            let was = row.map_or(f64::INFINITY, |row| row.utilisation - MARGIN);
            if let Some(goal) = self.goal(strategy == "strict") {
                claim(strategy, "utilisation_percent", "min", was.min(goal));
            }
        }
        let row = recorded.iter().find(|row| row.cell == self.to_string() && row.strategy == "bounded");
        if let Some(most) = self.false_refusals() {
            claim("bounded", "false_refusals_percent", "max", row.map_or(most, |row| most.max(row.refused + MARGIN)));
        }
        Scenario::parse(&format!("matrix {self}"), &text, &|_| Err(String::new())).expect("it can be read")
    }
}

/// A line of `simulations/matrix.csv`, as far as claims need it.
#[derive(Clone, Debug)]
pub struct Row {
    cell: String,
    strategy: String,
    utilisation: f64,
    refused: f64,
}

pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../simulations/matrix.csv")
}

/// What was recorded; nothing where there is no record.
pub fn recorded() -> Vec<Row> {
    let text = std::fs::read_to_string(path()).unwrap_or_default();
    let row = |line: &str| {
        let columns: Vec<&str> = line.split(',').collect();
        let number = |at: usize| columns[at].parse().expect("a number");
        let (utilisation, refused) = (number(9), number(10));
        Row { cell: columns[..7].join(","), strategy: columns[7].to_owned(), utilisation, refused }
    };
    text.lines().skip(1).map(row).collect()
}

pub const HEADER: &str = "nodes,burst,delay_ms,loss_percent,demand,load,confirm_wait_ms,strategy,overshoot_tokens,\
                          utilisation_percent,false_refusals_percent,fairness,fairness_oracle,goal_percent,reached";

/// What of the claims did not hold.
pub fn complaints(scenario: &Scenario, result: &RunResult) -> Vec<String> {
    let failed = failures(scenario, result).into_iter().map(|f| format!("{}: {f}", scenario.name));
    failed.chain(result.violations.iter().map(|v| format!("{}: {}: {v:?}", scenario.name, result.strategy))).collect()
}
