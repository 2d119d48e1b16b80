//! What callers get wrong, or only look at: nothing is charged, demanded or pushed out of the table.

use std::sync::Arc;

use spillgate_core::decision::{Check, CheckError, LimitRef, Reason};
use spillgate_core::gossip::Pace;
use spillgate_core::limit::{Accuracy, Algorithm, Limit, Limits, Origin, Reserve, Rule, RuleSpec};
use spillgate_core::node::{Attempt, Node, NodeConfig};
use spillgate_core::time::{Nanos, Now};
use spillgate_core::view::ReplicaId;

const MAX_KEYS: usize = 1000;

fn spec(burst: u64) -> RuleSpec {
    let low = Reserve { priority: "low".into(), fraction: 0.2 };
    let rate = "1/h".parse().expect("a rate");
    RuleSpec { burst: Some(burst), reserve: vec![low], ..RuleSpec::new(Algorithm::TokenBucket, rate) }
}

fn now(ms: u64) -> Now {
    Now { at: Nanos::from_millis(ms), wall: 1_700_000_000_000_000_000 + ms * 1_000_000 }
}

fn check<'a>(key: &'a str, cost: u64, priority: &'a str) -> Check<'a> {
    Check { limit: LimitRef::Named("api"), key, cost, priority }
}

/// A node whose table is full of keys that each have used one token.
fn full_node() -> Node {
    let pace =
        Pace { interval: Nanos::from_millis(10), stale_after: Nanos::from_millis(200), forget_after: Nanos::SECOND };
    let config = NodeConfig {
        replica: ReplicaId { node: "a".into(), incarnation: 1 },
        hash_key: [7; 16],
        max_keys: MAX_KEYS,
        shards_max: 1,
        clustered: false,
        pace,
    };
    let node = Node::new(config, Limits::new([Limit::new("api", spec(100), &[]).expect("a limit")]).expect("limits"));
    for i in 0..MAX_KEYS {
        assert!(node.check(&check(&format!("known{i}"), 1, "normal"), now(1), Attempt::First).expect("a rule").allowed);
    }
    assert_eq!((node.len(), node.evictions()), (MAX_KEYS, 0));
    node
}

#[test]
fn errors_leave_no_trace() {
    let node = full_node();
    let before = format!("{node:?}");
    let long = "k".repeat(1025);
    let unknown = Check { limit: LimitRef::Named("apii"), ..check("new", 1, "normal") };
    for key in ["new", "known7"] {
        for (wrong, error) in [
            (unknown, CheckError::UnknownLimit("apii".into())),
            (check("", 1, "normal"), CheckError::KeyLength(0)),
            (check(&long, 1, "normal"), CheckError::KeyLength(1025)),
            (check(key, 1_000_000_001, "normal"), CheckError::Cost(1_000_000_001)),
            (
                check(key, 1, "lowest"),
                CheckError::Priority { limit: "api".into(), priority: "lowest".into(), known: ", low".into() },
            ),
        ] {
            assert_eq!(node.check(&wrong, now(2), Attempt::First), Err(error.clone()));
            let batch = [check("known1", 5, "normal"), check("new2", 5, "normal"), wrong];
            assert_eq!(node.check_all(&batch, now(2), &[]), Err((2, error)));
        }
    }
    assert!(node.refund(LimitRef::Named("apii"), "k", 1, now(2)).is_err());
    assert!(node.reset(LimitRef::Named("api"), &long, now(2)).is_err());
    assert!(node.explain(LimitRef::Named("api"), "", now(2)).is_err());
    assert_eq!(format!("{node:?}"), before);
}

#[test]
fn looking_and_giving_back_bring_no_key_into_the_table() {
    let node = full_node();
    let names = || node.top(spillgate_core::view::TopBy::Granted, MAX_KEYS * 2).len();
    for i in 0..3 * MAX_KEYS {
        let key = format!("new{i}");
        let peek = node.check(&check(&key, 0, "normal"), now(2), Attempt::First).expect("a rule");
        assert_eq!((peek.allowed, peek.remaining, peek.reset_after), (true, 100, Nanos::ZERO));
        let refunded = node.refund(LimitRef::Named("api"), &key, 5, now(2)).expect("a rule");
        assert_eq!((refunded.refunded, refunded.remaining), (0, 100));
        assert_eq!(node.reset(LimitRef::Named("api"), &key, now(2)).expect("a rule").refunded, 0);
        assert_eq!(node.explain(LimitRef::Named("api"), &key, now(2)), Ok(None));
    }
    assert_eq!((node.len(), node.evictions(), names()), (MAX_KEYS, 0, MAX_KEYS));
}

#[test]
fn what_can_never_be_granted_is_no_demand_and_no_key() {
    let node = full_node();
    for (key, cost, priority) in
        [("known1", 101, "normal"), ("known1", 1_000_000_000, "normal"), ("known1", 81, "low"), ("new", 101, "normal")]
    {
        let denied = node.check(&check(key, cost, priority), now(2), Attempt::First).expect("a rule");
        let left = if key == "new" { 100 } else { 99 };
        assert_eq!((denied.allowed, denied.reason, denied.remaining), (false, Some(Reason::TooLarge), left));
        assert_eq!(denied.retry_after, Nanos::MAX);
    }
    assert_eq!((node.len(), node.evictions()), (MAX_KEYS, 0));
    let explained = node.explain(LimitRef::Named("api"), "known1", now(1000)).expect("a rule").expect("known");
    assert!(explained.demand < 1.0, "{explained:?}");
    let (_, tally, _) = node.tallies(Nanos::ZERO).into_iter().find(|(name, ..)| name == "api").expect("configured");
    assert_eq!((tally.allowed, tally.denied), (MAX_KEYS as u64, [0, 0, 0, 4]));
}

/// Peeks in a batch that is refused are counted like the rest of it: as not allowed.
#[test]
fn a_refused_batch_counts_what_was_at_fault_alone() {
    let node = full_node();
    let batch = [check("known1", 5, "normal"), check("new", 0, "normal"), check("known2", 100, "normal")];
    let decisions = node.check_all(&batch, now(2), &[]).expect("a rule");
    assert_eq!(decisions.iter().map(|d| d.allowed).collect::<Vec<_>>(), [false; 3]);
    // as if it had not been asked for: a token comes back in an hour, and it was taken a millisecond ago
    assert_eq!(decisions.iter().map(|d| d.remaining).collect::<Vec<_>>(), [99, 100, 99]);
    let hour = Nanos::from_secs(3600).since(Nanos::from_millis(1));
    assert_eq!(decisions.iter().map(|d| d.reset_after).collect::<Vec<_>>(), [hour, Nanos::ZERO, hour]);
    let (_, tally, _) = node.tallies(Nanos::ZERO).into_iter().find(|(name, ..)| name == "api").expect("configured");
    assert_eq!((tally.allowed, tally.denied), (MAX_KEYS as u64, [1, 0, 0, 0]));
}

/// A dry run says what it would have refused, also of a key that is not there.
#[test]
fn a_dry_run_of_the_impossible_is_allowed() {
    let node = full_node();
    let spec = RuleSpec { enforce: false, accuracy: Accuracy::Gossip, ..spec(10) };
    let rule = Arc::new(Rule::new("dry", Origin::Inline, spec).expect("a rule"));
    let ask = Check { limit: LimitRef::Inline(&rule), ..check("new", 11, "normal") };
    let decision = node.check(&ask, now(2), Attempt::First).expect("a rule");
    assert_eq!((decision.allowed, decision.reason), (true, Some(Reason::TooLarge)));
    assert_eq!((decision.retry_after, decision.delay), (Nanos::ZERO, Nanos::ZERO));
}
