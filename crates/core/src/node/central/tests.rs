//! The accounts between a node and a central store, whatever is lost on the way between them.

use proptest::prelude::*;

use super::*;
use crate::central::Used;
use crate::decision::LimitRef;
use crate::gossip::Pace;
use crate::limit::{Algorithm, Limit, Limits, RuleSpec};
use crate::node::NodeConfig;
use crate::view::ReplicaId;

/// So slow that what comes back during a test is far less than a token.
const RATE: &str = "1/366d";

fn node(algorithm: Algorithm, rate: &str, burst: Option<u64>) -> Node {
    let mut spec = RuleSpec::new(algorithm, rate.parse().unwrap());
    spec.burst = burst;
    let limits = Limits::new([Limit::new("api", spec, &[]).unwrap()]).unwrap();
    let pace = Pace {
        interval: Nanos::from_millis(10),
        stale_after: Nanos::from_millis(200),
        forget_after: Nanos::from_secs(60),
    };
    let replica = ReplicaId { node: "a".into(), incarnation: 1 };
    let config = NodeConfig { replica, hash_key: [7; 16], max_keys: 1000, shards_max: 1, clustered: false, pace };
    Node::new(config, limits)
}

const fn ask(cost: u64) -> Check<'static> {
    Check { limit: LimitRef::Named("api"), key: "k", cost, priority: "normal" }
}

/// A store that counts a bucket, and grants whatever it is asked.
#[derive(Default)]
struct Store(Option<f64>);

impl Store {
    fn hear(&mut self, brief: &Brief, cost: u64) -> Word {
        let Used::Bucket(known) = brief.known else { panic!("{:?}", brief.known) };
        let state = match self.0 {
            Some(state) if !brief.first => state,
            state => state.unwrap_or(0.0).max(known),
        };
        let state = (state + brief.owed as f64 + brief.owed_before as f64).max(0.0) + cost as f64;
        self.0 = Some(state);
        Word { granted: true, used: Used::Bucket(state), wall: 0 }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The node grants by itself.
    Local(u64),
    Refund(u64),
    /// A question goes out.
    Ask(u64),
    /// The oldest question under way reaches the store (one connection keeps their order), and its word is taken in time;
    Heard,
    /// or after the node has granted the request by itself;
    Late,
    /// or after it has refused it.
    Unwanted,
    /// The n-th never reaches the store.
    Lost(usize),
    /// The store forgets everything while nothing is under way.
    Flushed,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (1..20u64).prop_map(Step::Local),
        1 => (1..20u64).prop_map(Step::Refund),
        10 => (0..20u64).prop_map(Step::Ask),
        20 => Just(Step::Heard),
        10 => Just(Step::Late),
        10 => Just(Step::Unwanted),
        10 => (0..8usize).prop_map(Step::Lost),
        5 => Just(Step::Flushed),
    ]
}

struct Run {
    node: Node,
    store: Store,
    under_way: Vec<(Brief, u64)>,
}

impl Run {
    fn take(&mut self, n: usize) -> Option<(Brief, u64)> {
        (n < self.under_way.len()).then(|| self.under_way.remove(n))
    }

    fn ask(&mut self, cost: u64) {
        let brief = self.node.brief(&ask(cost), Now::default(), 1).unwrap().expect("it could be granted");
        self.under_way.push((brief, cost));
    }

    fn local(&self, cost: u64) {
        assert!(self.node.check(&ask(cost), Now::default(), Attempt::First).unwrap().allowed);
    }

    fn heard(&mut self) {
        if let Some((brief, cost)) = self.take(0) {
            let word = self.store.hear(&brief, cost);
            let items = [(&ask(cost), &brief, word)];
            self.node.take_words(&items, Now::default(), |_| Attempt::First, false, false).unwrap();
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Local(cost) => self.local(cost),
            Step::Refund(cost) => {
                self.node.refund(LimitRef::Named("api"), "k", cost, Now::default()).unwrap();
            }
            Step::Ask(cost) => self.ask(cost),
            Step::Heard => self.heard(),
            Step::Late | Step::Unwanted => {
                if let Some((brief, cost)) = self.take(0) {
                    if matches!(step, Step::Late) && cost > 0 {
                        self.local(cost);
                    }
                    self.store.hear(&brief, cost);
                    self.node.note_counted(&brief, cost);
                }
            }
            Step::Lost(n) => {
                if let Some((brief, _)) = self.take(n) {
                    self.node.unsaid(&brief);
                }
            }
            Step::Flushed if self.under_way.is_empty() => self.store.0 = None,
            Step::Flushed => {}
        }
    }

    fn used(&self) -> f64 {
        let view = self.node.explain(LimitRef::Named("api"), "k", Now::default()).unwrap();
        view.map_or(0.0, |v| v.capacity as f64 - v.level)
    }
}

proptest! {
    /// Once all is said, the store has counted what the node has charged: no token less, and none more but where it heard
    /// of a refund before it heard of the charge, and had nothing to give back.
    #[test]
    fn the_store_counts_each_charge_once(steps in prop::collection::vec(step(), 1..60)) {
        let mut run = Run { node: node(Algorithm::TokenBucket, RATE, Some(1_000_000)), store: Store::default(), under_way: Vec::new() };
        // the first question is answered: before that the store is told all that is known, which may be more
        run.ask(1);
        run.heard();
        let refunds = steps.iter().any(|step| matches!(step, Step::Refund(_)));
        for step in steps {
            run.step(step);
        }
        while !run.under_way.is_empty() {
            run.heard();
        }
        run.ask(0);
        run.heard();
        let (counted, used) = (run.store.0.unwrap(), run.used());
        prop_assert!(counted > used - 0.01, "the store has {counted}, the node {used}");
        prop_assert!(refunds || counted < used + 0.01, "the store has {counted}, the node {used}");
    }
}

#[test]
fn what_was_charged_before_the_store_was_asked_is_told_with_the_first_question_and_no_more() {
    let node = node(Algorithm::TokenBucket, RATE, Some(100));
    node.check(&ask(30), Now::default(), Attempt::First).unwrap();
    let brief = node.brief(&ask(1), Now::default(), 1).unwrap().unwrap();
    // no tick has told anybody of it: only this node can tell the store
    assert_eq!((brief.first, brief.owed, brief.known), (true, 30, Used::Bucket(0.0)));
    let again = node.brief(&ask(1), Now::default(), 1).unwrap().unwrap();
    // nothing is owed twice, and until the store has answered it must take no less than what is known
    assert_eq!((again.first, again.owed, again.known), (true, 0, Used::Bucket(0.0)));
    node.unsaid(&brief);
    node.note_counted(&again, 0);
    let after = node.brief(&ask(1), Now::default(), 1).unwrap().unwrap();
    assert_eq!((after.first, after.owed), (false, 30), "what was lost is owed again, what was not is not");
    let anew = node.brief(&ask(1), Now::default(), 2).unwrap().unwrap();
    assert!(anew.first, "it began to ask anew");
}

#[test]
fn what_can_never_be_granted_is_not_asked_for_and_a_peek_leaves_nothing() {
    let node = node(Algorithm::TokenBucket, RATE, Some(100));
    assert!(node.brief(&ask(101), Now::default(), 1).unwrap().is_none());
    let brief = node.brief(&ask(0), Now::default(), 1).unwrap().unwrap();
    let word = Word { granted: true, used: Used::Bucket(25.0), wall: 0 };
    let peek = [(&ask(0), &brief, word)];
    let decisions = node.take_words(&peek, Now::default(), |_| Attempt::First, false, false).unwrap();
    assert_eq!((decisions[0].remaining, decisions[0].allowed), (75, true));
    assert!(node.is_empty());
}

#[test]
fn a_grant_of_another_window_is_counted_in_that_window() {
    let period = 10_000_000_000;
    let at = |window: u64| Now { at: Nanos(window * period), wall: window * period + period / 2 };
    let node = node(Algorithm::SlidingWindow, "100/10s", None);
    let grant = |now: Now, window: u64, cost: u64| {
        let brief = node.brief(&ask(cost), now, 1).unwrap().unwrap();
        let used = Used::Window { number: window, current: cost, previous: 0 };
        let word = Word { granted: true, used, wall: now.wall };
        node.take_words(&[(&ask(cost), &brief, word)], now, |_| Attempt::First, false, false).unwrap();
    };
    let level = |now: Now| node.explain(LimitRef::Named("api"), "k", now).unwrap().unwrap().level;
    grant(at(100), 100, 10);
    // the store's clock is behind: of its window counts the half that the present one still covers
    grant(at(101), 100, 20);
    assert_eq!(level(at(101)), 100.0 - 30.0 / 2.0);
    // and ahead
    grant(at(101), 102, 40);
    assert_eq!(level(at(102)), 100.0 - 40.0);
    let counts = &node.explain(LimitRef::Named("api"), "k", at(102)).unwrap().unwrap().replicas[0];
    assert_eq!(counts.granted - 1, 70, "counters hold every grant, whatever its window");
}

#[test]
fn a_batch_that_one_refuses_charges_nothing_unless_that_one_is_a_dry_run() {
    let mut dry = RuleSpec::new(Algorithm::TokenBucket, RATE.parse().unwrap());
    (dry.burst, dry.enforce) = (Some(10), false);
    let other = node(Algorithm::TokenBucket, RATE, Some(100));
    let mut limits: Vec<Limit> = other.limits().iter().map(|(_, limit)| limit.clone()).collect();
    limits.push(Limit::new("dry", dry, &[]).unwrap());
    other.set_limits(Limits::new(limits).unwrap(), Now::default());
    let checks = [ask(5), Check { limit: LimitRef::Named("dry"), ..ask(5) }];
    let briefs: Vec<Brief> = checks.iter().map(|c| other.brief(c, Now::default(), 1).unwrap().unwrap()).collect();
    let word = |granted| Word { granted, used: Used::Bucket(5.0), wall: 0 };
    let words = |first, second| -> Vec<(&Check<'_>, &Brief, Word)> {
        vec![(&checks[0], &briefs[0], word(first)), (&checks[1], &briefs[1], word(second))]
    };
    let take = |words: Vec<_>| other.take_words(&words, Now::default(), |_| Attempt::First, true, false).unwrap();
    let decisions = take(words(false, true));
    assert_eq!([decisions[0].allowed, decisions[1].allowed], [false, false]);
    let reasons: Vec<_> = decisions.iter().map(|d| d.reason).collect();
    assert_eq!(reasons, [Some(Reason::OverLimit), None]);
    assert_eq!(other.tallies(Nanos::ZERO).iter().map(|t| t.1.allowed).sum::<u64>(), 0);
    let decisions = take(words(true, false));
    assert_eq!([decisions[0].allowed, decisions[1].allowed], [true, true]);
    let granted = other.explain(LimitRef::Named("api"), "k", Now::default()).unwrap().unwrap();
    assert_eq!((granted.capacity as f64 - granted.level).round(), 5.0);
}
