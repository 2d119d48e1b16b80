//! The engine, part by part: every fault of the network and of nodes does what it says, every shape and spread of
//! requests comes as described, mistakes are named at their lines, and runs repeat.

use std::collections::{BTreeMap, BTreeSet};

use spillgate_core::time::Nanos;
use spillgate_sim::observe::{Decided, Fate, Fault, Observation, Observer, Reason};
use spillgate_sim::run::{Options, RunResult, run, run_all};
use spillgate_sim::scenario::{Problem, Scenario};
use spillgate_sim::strategy;

fn read(text: &str) -> Result<Scenario, Vec<Problem>> {
    Scenario::parse("test", text, &|path| match path.to_str() {
        Some("rows.csv") => Ok("time,key,cost\n0.5,a,2\n1.25,b\n1.5,a,3\n".to_owned()),
        _ => Err(format!("{}: no such file", path.display())),
    })
}

/// All that a test looks at.
#[derive(Default)]
struct Seen {
    /// Fates of messages, with when and whose.
    sent: Vec<(Nanos, usize, usize, Fate)>,
    decided: Vec<Decided>,
    faults: Vec<(Nanos, Fault)>,
    links: Vec<(Nanos, String, bool)>,
}

impl Observer for Seen {
    fn observe(&mut self, seen: &Observation<'_>) {
        match *seen {
            Observation::Sent { at, from, to, fate, .. } => self.sent.push((at, from, to, fate)),
            Observation::Decided(decided) => self.decided.push(*decided),
            Observation::Fault { at, fault } => self.faults.push((at, fault)),
            Observation::Links { at, label, over } => self.links.push((at, label.to_owned(), over)),
            _ => {}
        }
    }
}

impl Seen {
    fn fates(&self, fate: Fate) -> usize {
        self.sent.iter().filter(|s| s.3 == fate).count()
    }

    /// When something of the kind was seen, in milliseconds.
    fn when(&self, fits: impl Fn(&Fault) -> bool) -> Vec<u64> {
        self.faults.iter().filter(|(_, f)| fits(f)).map(|(at, _)| at.0 / 1_000_000).collect()
    }

    /// Requests that arrived between, milliseconds.
    fn arrived(&self, from: u64, until: u64) -> usize {
        let span = Nanos::from_millis(from)..Nanos::from_millis(until);
        self.decided.iter().filter(|d| span.contains(&d.request.at)).count()
    }

    fn by_node(&self) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        for decided in &self.decided {
            *counts.entry(decided.request.node).or_default() += 1;
        }
        counts
    }
}

fn watch(text: &str, strategy: &str, seed: u64) -> (RunResult, Seen) {
    let scenario = read(text).expect("a scenario");
    let mut seen = Seen::default();
    let one = strategy::find(strategy).expect("it exists");
    let options = Options { checkers: Vec::new(), observers: vec![Box::new(&mut seen)] };
    let result = (one.run)(one.name, &scenario, seed, options);
    (result, seen)
}

/// Three nodes, a limit of 300/s, 300 requests a second for four seconds, and what is added.
fn faulty(more: &str) -> (RunResult, Seen) {
    watch(&format!("duration = '4s'\n[[limit]]\nrate = '300/s'\n[[workload]]\nload = 1\n{more}"), "strict", 1)
}

const ONE_WAY: (usize, usize) = (0, 1);

#[test]
fn lost_doubled_and_late_messages_are_as_many_as_asked_for() {
    let (_, seen) = faulty("[network]\nloss = 0.1\nduplicate = 0.3");
    let all = seen.sent.len() as f64;
    let (lost, doubled) = (seen.fates(Fate::Lost) as f64 / all, seen.fates(Fate::Doubled) as f64 / all);
    assert!((lost - 0.1).abs() < 0.02 && (doubled - 0.27).abs() < 0.03, "{lost} {doubled}");
    let (calm, _) = faulty("");
    let (late, _) = faulty("[network]\nreorder = 0.5\nreorder_by = '40ms'");
    assert_ne!(calm.hash, late.hash);
    assert_eq!(late.measures.value("overshoot"), Some(0.0));
}

#[test]
fn a_narrow_link_fills_and_a_short_datagram_refuses_long_frames() {
    let (_, seen) = faulty("[network]\nbandwidth = '20kbit/s'\nqueue = '20ms'");
    assert!(seen.fates(Fate::Full) > 100, "{}", seen.fates(Fate::Full));
    let (_, wide) = faulty("[network]\nbandwidth = '1Gbit/s'");
    assert_eq!(wide.fates(Fate::Full) + wide.fates(Fate::TooLong), 0);
}

#[test]
fn a_partition_cuts_just_the_links_between_its_sides_while_it_lasts() {
    let cut = "[[event]]\nat = '1s'\nkind = 'partition'\nsides = [['n1'], ['n2', 'n3']]\nfor = '1s'";
    let (_, seen) = faulty(cut);
    let (from, until) = (Nanos::SECOND, Nanos::from_secs(2));
    for (at, a, b, fate) in &seen.sent {
        let between = (*a == 0) != (*b == 0) && *at > from && *at < until;
        assert_eq!(*fate == Fate::Cut, between, "{at} n{} to n{}: {fate:?}", a + 1, b + 1);
    }
    assert!(seen.fates(Fate::Cut) > 10);
    assert_eq!(seen.links.iter().map(|l| (l.0, l.2)).collect::<Vec<_>>(), [(from, false), (until, true)]);
}

#[test]
fn one_way_isolation_and_heal_cut_what_they_name() {
    let (_, seen) = faulty("[[event]]\nat = '1s'\nkind = 'one-way'\nfrom = 'n1'\nto = 'n2'\nfor = '200ms'");
    let cut: BTreeSet<_> = seen.sent.iter().filter(|s| s.3 == Fate::Cut).map(|s| (s.1, s.2)).collect();
    assert_eq!(cut, BTreeSet::from([ONE_WAY]));
    let alone = "[[event]]\nat = '1s'\nkind = 'isolate'\nnode = 'n2'\n[[event]]\nat = '1500ms'\nkind = 'heal'";
    let (_, seen) = faulty(alone);
    let cut: Vec<_> = seen.sent.iter().filter(|s| s.3 == Fate::Cut).collect();
    assert!(cut.iter().all(|s| s.1 == 1 || s.2 == 1) && !cut.is_empty());
    assert!(cut.iter().all(|s| s.0 >= Nanos::SECOND && s.0 < Nanos::from_millis(1500)));
}

#[test]
fn a_clogged_link_holds_and_then_delivers() {
    let (result, seen) = faulty("[[event]]\nat = '1s'\nkind = 'clog'\nfrom = 'n1'\nto = '*'\nfor = '500ms'");
    assert_eq!(seen.fates(Fate::Lost) + seen.fates(Fate::Cut), 0);
    assert_eq!(result.measures.value("overshoot"), Some(0.0));
    assert_ne!(result.hash, faulty("").0.hash);
}

#[test]
fn crash_restart_leave_and_join_are_seen_at_their_times() {
    let (_, seen) = faulty("[[event]]\nat = '1s'\nkind = 'crash'\nnode = 'n2'\nfor = '500ms'");
    assert_eq!(seen.when(|f| *f == Fault::Crashed(1)), [1000]);
    assert_eq!(seen.when(|f| *f == Fault::Up(1)), [0, 1500]);
    assert_eq!(seen.when(|f| matches!(f, Fault::PeerUp { peer: 1, incarnation: 2, .. })).len(), 2);
    let (_, seen) = faulty("[[event]]\nat = '1s'\nkind = 'restart'\nnode = 'n2'\nfor = '1s'");
    assert_eq!(seen.when(|f| *f == Fault::Leaving(1)), [1000]);
    let gone = seen.when(|f| *f == Fault::Gone(1));
    assert!(gone.len() == 1 && gone[0] < 1500, "its last word was heard: {gone:?}");
    let (_, seen) =
        faulty("[[event]]\nat = '1s'\nkind = 'join'\nnode = 'n4'\n[[event]]\nat = '2s'\nkind = 'leave'\nnode = 'n1'");
    assert_eq!(seen.when(|f| *f == Fault::Up(3)), [1000]);
    assert!(seen.decided.iter().any(|d| d.request.node == 3 && d.verdict.allowed), "it joined and serves");
    let late = |d: &&Decided| d.request.node == 0 && d.request.at > Nanos::from_secs(2);
    assert_eq!(seen.decided.iter().filter(late).count(), 0);
}

#[test]
fn a_node_that_stands_still_answers_nothing_meanwhile() {
    let (_, seen) = faulty("[[event]]\nat = '1s'\nkind = 'pause'\nnode = 'n1'\nfor = '400ms'");
    let still = |d: &&Decided| d.request.node == 0 && d.at > Nanos::SECOND && d.at < Nanos::from_millis(1400);
    assert_eq!(seen.decided.iter().filter(still).count(), 0);
    assert!(seen.decided.iter().any(|d| d.request.node == 0 && d.waited() > Nanos::from_millis(300)));
    let (_, seen) =
        faulty("[nodes]\nclient_timeout = '100ms'\n[[event]]\nat = '1s'\nkind = 'pause'\nnode = 'n1'\nfor = '400ms'");
    assert!(seen.decided.iter().any(|d| d.verdict.reason == Reason::Unanswered));
}

#[test]
fn clocks_and_wrong_suspicion_are_felt() {
    // a clock twice as fast refills twice as fast
    let alone = "duration = '10s'\n[nodes]\ncount = 1\n[[limit]]\nrate = '100/s'\nburst = 10\n[[workload]]\nload = 5\n";
    let (plain, _) = watch(alone, "strict", 1);
    let (fast, _) = watch(&format!("{alone}[[node]]\nname = 'n1'\nclock_ppm = 1000000"), "strict", 1);
    let ratio = fast.measures.admitted.sum as f64 / plain.measures.admitted.sum as f64;
    assert!((ratio - 2.0).abs() < 0.05, "{ratio}");
    let (_, seen) = faulty("[[event]]\nat = '1s'\nkind = 'suspect'\nnode = 'n1'\nby = 'n2'\nfor = '300ms'");
    assert_eq!(seen.when(|f| matches!(f, Fault::PeerDead { node: 1, peer: 0, .. })), [1000]);
    assert_eq!(seen.when(|f| matches!(f, Fault::PeerUp { node: 1, peer: 0, .. })).last(), Some(&1300));
}

fn load(workload: &str) -> Seen {
    let text = format!("duration = '4s'\n[nodes]\ncount = 4\n[[limit]]\nrate = '1000/s'\n[[workload]]\n{workload}");
    watch(&text, "oracle", 3).1
}

#[test]
fn every_shape_comes_as_described() {
    let near = |n: usize, wanted: f64| (n as f64 - wanted).abs() < 0.12 * wanted;
    let steady = load("rate = '1000/s'");
    assert!(near(steady.arrived(0, 2000), 2000.0) && near(steady.arrived(2000, 4000), 2000.0));
    let even = load("rate = '1000/s'\narrivals = 'constant'");
    assert_eq!(even.arrived(0, 4000), 4000);
    let on_off = load("rate = '1000/s'\nshape = 'on-off'\non = '1s'\noff = '1s'");
    assert!(near(on_off.arrived(0, 1000), 1000.0) && on_off.arrived(1000, 2000) == 0);
    let flash = load("rate = '200/s'\nshape = 'flash'\nsurge_at = '1s'\nsurge_for = '1s'\nsurge_factor = 10");
    assert!(near(flash.arrived(1000, 2000), 2000.0) && flash.arrived(2000, 3000) < 260);
    let day = load("rate = '1000/s'\nshape = 'diurnal'\nperiod = '4s'\namplitude = 1");
    assert!(near(day.arrived(0, 2000), 2000.0 * (1.0 + 2.0 / std::f64::consts::PI)), "{}", day.arrived(0, 2000));
    let drawn = load("rate = '1000/s'\nshape = 'on-off'\non = '50ms'\noff = '50ms'\nrandom = true");
    assert!(near(drawn.arrived(0, 4000), 2000.0) || drawn.arrived(0, 4000) > 1200);
    let span = load("rate = '1000/s'\nfrom = '1s'\nuntil = '2s'");
    assert_eq!((span.arrived(0, 1000), span.arrived(2000, 4000)), (0, 0));
    let rows = load("trace = 'rows.csv'");
    let told: Vec<_> = rows.decided.iter().map(|d| (d.request.at.0 / 1_000_000, d.request.cost)).collect();
    assert_eq!(told, [(500, 2), (1250, 1), (1500, 3)]);
}

#[test]
fn every_spread_reaches_the_nodes_it_names() {
    let counts = |workload: &str| load(&format!("rate = '1000/s'\n{workload}")).by_node();
    let even = counts("nodes = 'even'");
    assert!((0..4).all(|n| (850..1150).contains(&even[&n])), "{even:?}");
    let zipf = counts("nodes = 'zipf'");
    assert!(zipf[&0] > 17 * zipf[&1] / 10 && zipf[&1] > zipf[&3], "{zipf:?}");
    let turns = counts("nodes = 'round-robin'\narrivals = 'constant'");
    assert_eq!(turns.into_values().collect::<Vec<_>>(), [1000; 4]);
    assert_eq!(counts("nodes = 'n3'").into_keys().collect::<Vec<_>>(), [2]);
    assert_eq!(counts("node_weights = [1, 0, 3]").into_keys().collect::<Vec<_>>(), [0, 2]);
    let moving = load("rate = '1000/s'\nnodes = 'moving'\nmove_every = '1s'");
    assert!(moving.decided.iter().all(|d| d.request.node as u64 == d.request.at.0 / 1_000_000_000));
    let sticky = load("rate = '1000/s'\nnodes = 'sticky'\nkeys = 50");
    let homes: BTreeSet<_> = sticky.decided.iter().map(|d| (d.request.key, d.request.node)).collect();
    assert_eq!(homes.len(), 50, "each key has one home");
}

#[test]
fn refused_clients_come_back_as_often_as_they_are_told() {
    let text = "duration = '2s'\n[[limit]]\nrate = '10/s'\nburst = 1\n[[workload]]\nrate = '100/s'\n[workload.retry]\nattempts = 3\nafter = '20ms'";
    let (_, seen) = watch(text, "oracle", 1);
    let most = seen.decided.iter().map(|d| d.request.attempt).max();
    assert_eq!(most, Some(3));
    let firsts: BTreeSet<_> = seen.decided.iter().map(|d| d.request.first).collect();
    assert!(seen.decided.len() > 2 * firsts.len());
}

#[test]
fn mistakes_are_named_at_their_lines() {
    let first = |text: &str| {
        let problems = read(text).expect_err("it is wrong");
        (problems[0].line, problems[0].text.clone())
    };
    let base = "duration = '1s'\n[[limit]]\nrate = '1/s'\n[[workload]]\nload = 1\n";
    let cases: [(String, usize, &str); 12] = [
        ("duration = 3".into(), 1, "duration"),
        ("duration = '1s'\n[[limit]]\nrate = 'x'\n[[workload]]\nload = 1".into(), 3, "rate"),
        (format!("{base}shape = 'flush'"), 6, "did you mean \"flash\""),
        (format!("{base}nodes = 'n9'"), 6, "nodes"),
        (format!("{base}load_ = 2"), 6, "not a known key"),
        (format!("{base}[[event]]\nat = '1s'\nkind = 'partition'\nsides = [['n1'], ['n1']]"), 9, "must not share"),
        (format!("{base}[[event]]\nat = '1s'\nkind = 'crash'\nnode = 'n7'"), 9, "\"n7\""),
        (format!("{base}[[event]]\nat = '1s'\nkind = 'clock'\nnode = 'n1'"), 8, "changes nothing"),
        (format!("{base}[network]\nloss = 2"), 7, "loss"),
        (format!("{base}[network]\nbandwidth = 'wide'"), 7, "bandwidth"),
        (format!("{base}[[expect]]\nmeasure = 'overshot'\nmax = 1\nwhy = 'x'"), 7, "overshoot"),
        (base.replace("load = 1", "trace = 'none.csv'"), 5, "no such file"),
    ];
    for (text, line, part) in cases {
        let (at, what) = first(&text);
        assert!(at == line && what.contains(part), "line {line} {part:?}: line {at} {what}\n{text}");
    }
    assert_eq!(first("[swarm]\nnodes = [0, 3]").0, 2);
    assert!(first("[swarm]\nfaultz = 3").1.contains("faults"));
}

const BUSY: &str = "
duration = '3s'
[nodes]
count = 4
[network]
latency = ['1ms', '9ms']
loss = 0.05
duplicate = 0.05
reorder = 0.1
[[limit]]
rate = '500/s'
burst = 100
[[workload]]
load = 1.5
nodes = 'zipf'
[[workload]]
load = 0.5
keys = 20
shape = 'on-off'
on = '300ms'
off = '200ms'
[[event]]
at = '1s'
kind = 'crash'
node = 'n2'
for = '500ms'
[[event]]
at = '1200ms'
kind = 'partition'
sides = [['n1', 'n3'], ['n4']]
for = '600ms'
";

/// Pinned, so that every profile and every machine has to come to the same. Those of `strict` and `bounded` change with
/// what the core does and says, that of `oracle` only with the engine: a change is to be meant, then they are put in anew.
const HASHES: [(&str, &str); 3] =
    [("oracle", "d71dbad90de9797f"), ("strict", "0de7d31961aaf041"), ("bounded", "e263ff7f1da4dfa8")];

#[test]
fn runs_repeat_in_every_profile() {
    let scenario = read(BUSY).expect("a scenario");
    let hash = |name: &'static str| (name, run(&scenario, strategy::find(name).expect("it exists"), 7).hash);
    let found: Vec<_> = HASHES.map(|(name, _)| hash(name)).to_vec();
    assert_eq!(found, HASHES.map(|(name, _)| hash(name)));
    assert_eq!(found, HASHES.map(|(name, pinned)| (name, pinned.to_owned())), "core or engine behaves differently");
}

#[test]
fn many_threads_come_to_the_same_as_one_and_swarms_draw_by_seed() {
    let swarm = read("[swarm]\nnodes = [2, 3]\nrate_max = 300").expect("a swarm");
    let done = std::sync::atomic::AtomicUsize::new(0);
    let count = |_| {
        done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let seeds = [1, 2, 3];
    let many = run_all(&swarm, &swarm.strategies, &seeds, 3, &count);
    assert_eq!(many, run_all(&swarm, &swarm.strategies, &seeds, 1, &|_| {}));
    assert_eq!((many.len(), done.into_inner()), (6, 6));
    assert_eq!(many.iter().map(|r| &r.hash).collect::<BTreeSet<_>>().len(), 6);
}

#[test]
fn every_seed_of_a_swarm_draws_a_scenario_that_can_be_read() {
    let swarm = read("[swarm]\nnodes = [1, 8]\nfaults = [0, 8]").expect("a swarm");
    let mut kinds = BTreeSet::new();
    for seed in 0..500 {
        let drawn = swarm.drawn(seed).expect("it is a swarm").expect("it can be read");
        assert!(drawn.events.iter().all(|e| e.at < drawn.duration));
        kinds.extend(drawn.events.iter().map(|e| std::mem::discriminant(&e.what)).map(|d| format!("{d:?}")));
    }
    assert!(kinds.len() >= 7, "{kinds:?}");
}

fn found() -> Vec<Scenario> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/found");
    let files = std::fs::read_dir(folder).expect("the folder is there");
    let read = |file: std::io::Result<std::fs::DirEntry>| Scenario::load(&file.expect("a file").path());
    files.map(|file| read(file).expect("it can be read")).collect()
}

#[test]
fn what_the_swarm_found_can_be_replayed() {
    assert!(found().len() >= 4);
}

#[test]
fn what_the_swarm_found_is_mended() {
    for scenario in found() {
        let result = run(&scenario, scenario.strategies[0], scenario.seed);
        let mut agreement = spillgate_sim::swarm::Agreement::new(&scenario);
        let options = Options { checkers: Vec::new(), observers: vec![Box::new(&mut agreement)] };
        let _ = (scenario.strategies[0].run)(scenario.strategies[0].name, &scenario, scenario.seed, options);
        assert_eq!(result.violations, [], "{}", scenario.name);
        assert_eq!(agreement.verdict(), None, "{}", scenario.name);
        // a bounded limit may go over a little
        if scenario.strategies[0].name == "strict" {
            assert_eq!(result.measures.value("overshoot"), Some(0.0), "{}", scenario.name);
        }
    }
}
