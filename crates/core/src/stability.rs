//! The rule: before its peers have confirmed hearing of it, a node never spends more than its share of what is left.
//! Everything of the design's accuracy page that can be said in numbers, and nothing else: it must not know tables,
//! frames or buckets.
//!
//! A charge of cost `c` is granted when the level covers it and
//!
//! ```text
//! unacked + c  <=  max( w V + z sqrt(w V),  c if c <= q )        V = min(level + unacked, b + r W)
//! ```
//!
//! with `w` this node's weight, `V` what the bucket would hold had this node not spent what is not common knowledge
//! yet, and `W` the time in which news becomes common knowledge. kappa, the factor before `w V`, is 1 in both modes
//! that use the rule; plain gossip (kappa infinite) leaves the second condition out. `strict` has z = q = 0 and counts
//! a charge as common knowledge when all peers are known to know that all have it; `bounded` counts it as such when
//! all are known to have it, and spends its `max_overshoot` on z and q.
//!
//! What the rule leans on is kept elsewhere, and each was found by a run that went over without it:
//!
//! - a tick is confirmed only once its frames have gone out and all of them, and all before them, are confirmed
//!   (`gossip::Peer::confirmed`);
//! - a confirmation counts only with all news that the confirming node had when it gave it, be it for the next round or at
//!   once: or a charge would leave the window while what the other had spent before hearing of it is still on its way, and
//!   both would spend the same tokens (`wire::Header::needs`, `Node::handle_frame`). Where something is always under way,
//!   it counts once the peer says that all it had told by then has arrived (`wire::EXTENSION_SETTLED`);
//! - no peer may hold a lesser demand of this node than the ones it reckons with: what is told again is what was told,
//!   and a late frame takes nothing back (`Entry::tell_again`, `News::hear`);
//! - a node has weight only once all it knows count it in, and count the same members as it does: of two joiners that have
//!   not met, each would have taken weight that the other has (`gossip::Links::judge`).
//!
//! **Turns.** A share below one token can't be spent, so at a strict limit of no more tokens than nodes the weight moves as a
//! whole. A node whose request waits says that it holds the key (a demand of 1) and asks all at once; one that has no
//! request waiting, or goes later by a rank that is dealt anew every few milliseconds, answers that it stands aside: it has
//! no weight then, not even the even part, and tells so beside all that it has granted. It says otherwise when it wants the
//! key itself. Who holds the key keeps it while nobody else asks, and several hold it where there is enough for each. That is
//! the rule with other weights, and as safe: who stands aside spends nothing from that moment on, and who takes its word back
//! spends nothing before all have confirmed hearing that, and with the confirmation comes what they have granted. Ranks and
//! judgements of who should give way may differ between nodes; that costs time. In a silence the key stays where it is: who
//! stood aside when it began has no part until the silent are back, or forgotten. (`turn`, `news::Turn`.)
//!
//! What is proved, searched and refuted of it stands in `ACCURACY.md`, beside `src`.
//!
//! **Silence.** A peer not heard of for the stale time, or that says that it does not hear this node, is silent: each side
//! goes on by itself, at the weights that both knew, and at even ones where nobody may have more: of a key for which nobody
//! had told all the others of any demand (`News::is_even`). The bucket is charged the silent's part of the rate, a little ahead of
//! time, and own charges that only they have not confirmed leave the window at this node's part. When they speak again they
//! tell how much of what they granted left their window by time; only that was charged here already. What was assumed too
//! much is not given back: a bucket that was full meanwhile would get back what it had lost by being full. It comes back
//! with the refill. (`Entry::assume`, `news::Silence`.)
//!
//! **Loss.** Who is given up, or comes back as another run, took charges with it that nobody had heard of: at most its
//! window, and no more than what is left, which is charged for good (`Entry::lose`).

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::limit::{Accuracy, OnPartition, Rule};
use crate::time::Nanos;

/// The part of the weight that is shared evenly, so that a node whose demand nobody has heard of may begin.
pub const EVEN_PART: f64 = 0.05;

/// An even share of fewer tokens than this is too small to share: `bounded` then allows each node one charge unacked.
pub const SHARE_SMALL: f64 = 5.0;

/// What a decision needs to know of the cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// Replicas that may spend, this one included.
    pub replicas: u32,
    /// Those of them that membership calls dead: they are among the silent, too.
    pub dead: u32,
    /// Whether the peers count this node in; a joiner has weight 0 until they do.
    pub admitted: bool,
    /// The newest tick that all peers that are not silent have confirmed.
    pub heard: u64,
    /// The newest tick whose being heard all of them have confirmed.
    pub stable: u64,
    /// Peers that are silent.
    pub silent: u32,
    /// W: about how long news takes to become common knowledge.
    pub settle: Nanos,
    /// Up to when all is known here that the peers granted: of all of them on average.
    pub known: Nanos,
    /// Peers that went on by themselves, or may have, and have not told all that they granted meanwhile.
    pub apart: u32,
    /// Up to when all is known that these granted, on average.
    pub apart_known: Nanos,
    /// The longest round trip to a peer that is not silent.
    pub round_trip: Nanos,
}

impl Outlook {
    /// The same for a limit that goes on without the dead: they count no longer.
    #[must_use]
    pub const fn without_dead(self) -> Self {
        Self {
            replicas: self.replicas.saturating_sub(self.dead),
            dead: 0,
            silent: self.silent.saturating_sub(self.dead),
            ..self
        }
    }

    /// What counts as common knowledge under `accuracy`.
    #[must_use]
    pub const fn common(&self, accuracy: Accuracy) -> Common {
        let tick = match accuracy {
            Accuracy::Strict => self.stable,
            Accuracy::Bounded { .. } | Accuracy::Gossip => self.heard,
        };
        Common { tick, silent: self.silent > 0 }
    }
}

/// What is common knowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Common {
    /// All news up to this tick is, to the peers that are not silent.
    pub tick: u64,
    /// Whether a peer is silent, who may lack it.
    pub silent: bool,
}

/// The outlook as the shards read it without a lock: written by gossip, read by every check.
///
/// The fields may be of two moments. Each only ever lags, and lagging is the safe side: less is confirmed, or the
/// confirmation of a tick is seen before the count of a new peer that has weight 0 yet.
#[derive(Debug)]
pub struct SharedOutlook {
    replicas: AtomicU32,
    dead: AtomicU32,
    admitted: AtomicBool,
    silent: AtomicU32,
    heard: AtomicU64,
    stable: AtomicU64,
    settle: AtomicU64,
    known: AtomicU64,
    apart: AtomicU32,
    apart_known: AtomicU64,
    round_trip: AtomicU64,
}

impl SharedOutlook {
    /// Of a node that has no peers yet.
    #[must_use]
    pub const fn new(admitted: bool) -> Self {
        Self {
            replicas: AtomicU32::new(1),
            dead: AtomicU32::new(0),
            admitted: AtomicBool::new(admitted),
            silent: AtomicU32::new(0),
            heard: AtomicU64::new(0),
            stable: AtomicU64::new(0),
            settle: AtomicU64::new(0),
            known: AtomicU64::new(0),
            apart: AtomicU32::new(0),
            apart_known: AtomicU64::new(0),
            round_trip: AtomicU64::new(0),
        }
    }

    /// The present view.
    #[must_use]
    pub fn load(&self) -> Outlook {
        Outlook {
            replicas: self.replicas.load(Relaxed),
            dead: self.dead.load(Relaxed),
            admitted: self.admitted.load(Relaxed),
            silent: self.silent.load(Relaxed),
            heard: self.heard.load(Relaxed),
            stable: self.stable.load(Relaxed),
            settle: Nanos(self.settle.load(Relaxed)),
            known: Nanos(self.known.load(Relaxed)),
            apart: self.apart.load(Relaxed),
            apart_known: Nanos(self.apart_known.load(Relaxed)),
            round_trip: Nanos(self.round_trip.load(Relaxed)),
        }
    }

    /// Replaces the view.
    pub fn store(&self, outlook: Outlook) {
        self.replicas.store(outlook.replicas, Relaxed);
        self.dead.store(outlook.dead, Relaxed);
        self.admitted.store(outlook.admitted, Relaxed);
        self.silent.store(outlook.silent, Relaxed);
        self.heard.store(outlook.heard, Relaxed);
        self.stable.store(outlook.stable, Relaxed);
        self.settle.store(outlook.settle.0, Relaxed);
        self.known.store(outlook.known.0, Relaxed);
        self.apart.store(outlook.apart, Relaxed);
        self.apart_known.store(outlook.apart_known.0, Relaxed);
        self.round_trip.store(outlook.round_trip.0, Relaxed);
    }
}

/// This node's part of the demand for a key, 0 to 1.
///
/// `own` is the least own demand that a live peer may hold to be true, `others` the sum of theirs. A node claims no
/// weight that its peers have not heard of, so each node's `own` is at most what every other one has in its `others`,
/// and the weights of all nodes sum to 1 or less. So do they where some stand aside (an `own` below 0): the even parts
/// are then shared by those with demand, among no fewer than those who do not stand aside, since a word that takes that
/// back, too, counts only once all have heard it.
#[must_use]
pub fn weight(own: f64, others: f64, aside: u32, outlook: &Outlook) -> f64 {
    let evenly = if own > 0.0 { outlook.replicas.saturating_sub(aside).max(1) } else { outlook.replicas };
    if outlook.admitted { share(own, own + others, evenly) } else { 0.0 }
}

/// Whether `rule` is strict and has no more tokens than `replicas`: then the nodes take turns, since an even share is a whole
/// token at no time but when the bucket is full.
#[must_use]
pub fn too_small_to_share(rule: &Rule, replicas: u32) -> bool {
    rule.spec().accuracy == Accuracy::Strict && rule.capacity() <= u64::from(replicas)
}

/// The weight of one that has `demand` of `total`, where `replicas` share the even part, 0 to 1.
#[must_use]
pub fn share(demand: f64, total: f64, replicas: u32) -> f64 {
    if demand < 0.0 {
        return 0.0;
    }
    let even = 1.0 / f64::from(replicas);
    if total <= 0.0 { even } else { (1.0 - EVEN_PART) * demand / total + EVEN_PART * even }
}

/// What of `max_overshoot` is spent on chance unevenness (`z`) and on a token too small to share (`q`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slack {
    /// Standard deviations of a share that are forgiven.
    pub z: f64,
    /// The largest charge, in tokens, that each node may hold unacked whatever its share, as long as it is the only one.
    /// A charge of a whole capacity is above it, or each node would grant one.
    pub q: f64,
}

/// The slack of a rule among `replicas`: `z sqrt(n (b + r W)) + (n - 1) q` stays within `max_overshoot`, but for a
/// limit whose even share is below [`SHARE_SMALL`]: there each node may hold one token, and n - 1 may be over.
///
/// Half of `max_overshoot` goes to q, so that a node that has just begun is not refused a request of some size while
/// another one has all the demand.
#[must_use]
pub fn slack(rule: &Rule, outlook: &Outlook) -> Slack {
    let Accuracy::Bounded { max_overshoot } = rule.spec().accuracy else {
        return Slack { z: 0.0, q: 0.0 };
    };
    let n = f64::from(outlook.replicas);
    let capacity = rule.capacity() as f64;
    let budget = max_overshoot * capacity;
    let charge = (budget / 2.0 / (n - 1.0).max(1.0)).floor();
    let q = if capacity < SHARE_SMALL * n { charge.max(1.0) } else { charge };
    let left = (budget - q * (n - 1.0)).max(0.0);
    Slack { z: (left / (n * most_to_share(rule, outlook)).sqrt()).min(1.0), q }
}

/// `b + r W`: more than this is never there to share while news goes round.
#[must_use]
pub fn most_to_share(rule: &Rule, outlook: &Outlook) -> f64 {
    let refill =
        if rule.algorithm().windowed() { 0.0 } else { rule.rate().per_second() * outlook.settle.as_secs_f64() };
    rule.capacity() as f64 + refill
}

/// The most that may be unacked after a grant of `cost`: the stability window, in tokens.
///
/// `level` is what is left as this node sees it, `unacked` its own charges that are not common knowledge.
#[must_use]
pub fn allowance(rule: &Rule, outlook: &Outlook, weight: f64, level: f64, unacked: f64, cost: f64) -> f64 {
    if matches!(rule.spec().accuracy, Accuracy::Gossip) {
        return f64::INFINITY;
    }
    let value = (level + unacked).clamp(0.0, most_to_share(rule, outlook));
    let share = weight * value;
    match rule.spec().accuracy {
        Accuracy::Bounded { .. } if outlook.admitted => {
            let slack = slack(rule, outlook);
            (share + slack.z * share.sqrt()).max(if cost <= slack.q { cost } else { 0.0 })
        }
        _ => share,
    }
}

/// The most that could have been admitted beyond the limit, cluster-wide, in tokens, by all that this node knows at `now`.
///
/// Nobody is over by more than what others granted that it does not know of (`ACCURACY.md`, 1 and 2).
///
/// - `strict` and `bounded` let nobody grant more than its window unheard, in a silence too: 0, and the slack. From three
///   nodes on that is what simulated networks keep to, not the worst there is: see `ACCURACY.md`, Refuted. But where
///   `on_partition = continue` lets each side run the whole limit, whoever is apart may have granted what follows.
/// - `gossip`: each peer may have granted a whole capacity, and what was refilled since the time up to which all is known
///   that it granted. So the bound is small while news flows, and grows with each second for which a peer is silent.
///
/// A peer given up after `forget_after` counts as lost: should it still run, nobody knows what it grants.
#[must_use]
pub fn bound(rule: &Rule, outlook: &Outlook, now: Nanos) -> f64 {
    let refill = if rule.algorithm().windowed() { 0.0 } else { rule.rate().per_second() };
    let unheard = |peers: u32, known: Nanos| {
        f64::from(peers) * refill.mul_add(now.since(known).as_secs_f64(), rule.capacity() as f64)
    };
    if matches!(rule.spec().accuracy, Accuracy::Gossip) {
        return unheard(outlook.replicas - 1, outlook.known);
    }
    let (live, apart) = match rule.spec().on_partition {
        OnPartition::Continue => (outlook.without_dead(), unheard(outlook.apart, outlook.apart_known)),
        OnPartition::Share | OnPartition::Deny => (*outlook, 0.0),
    };
    // strict has no slack
    let (n, slack) = (f64::from(live.replicas), slack(rule, &live));
    slack.z * (n * most_to_share(rule, &live)).sqrt() + (n - 1.0) * slack.q + apart
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Algorithm, Origin, RuleSpec};
    use proptest::prelude::*;

    fn rule(rate: &str, burst: u64, accuracy: Accuracy) -> Rule {
        let spec = RuleSpec {
            burst: Some(burst),
            accuracy,
            ..RuleSpec::new(Algorithm::TokenBucket, rate.parse().expect("a rate"))
        };
        Rule::new("test", Origin::Configured, spec).expect("a rule")
    }

    fn outlook(replicas: u32) -> Outlook {
        Outlook {
            replicas,
            dead: 0,
            admitted: true,
            heard: 0,
            stable: 0,
            silent: 0,
            settle: Nanos::from_millis(20),
            known: Nanos::ZERO,
            apart: 0,
            apart_known: Nanos::ZERO,
            round_trip: Nanos::from_millis(1),
        }
    }

    #[test]
    fn with_nothing_known_each_node_has_an_even_share() {
        assert!((weight(0.0, 0.0, 0, &outlook(4)) - 0.25).abs() < 1e-12);
    }

    /// What each second of silence adds, and for whom.
    #[test]
    fn the_bound_grows_in_a_silence_only_where_the_sides_do_not_share() {
        use OnPartition::{Continue, Deny, Share};
        let split = Outlook { silent: 2, dead: 1, apart: 2, ..outlook(4) };
        let most = |accuracy, on_partition, outlook: &Outlook, seconds| {
            let base = rule("10/s", 100, accuracy);
            let spec = RuleSpec { on_partition, ..base.spec().clone() };
            let rule = Rule::new("test", Origin::Configured, spec).expect("a rule");
            bound(&rule, outlook, Nanos::from_secs(seconds))
        };
        for on_partition in [Share, Deny] {
            assert_eq!(most(Accuracy::Strict, on_partition, &split, 60), 0.0);
            assert!(most(Accuracy::default(), on_partition, &split, 60) <= 5.0);
        }
        assert_eq!(most(Accuracy::Strict, Continue, &outlook(4), 3), 0.0);
        assert_eq!(most(Accuracy::Strict, Continue, &split, 3), 2.0 * (100.0 + 3.0 * 10.0));
        for on_partition in [Share, Deny, Continue] {
            assert_eq!(most(Accuracy::Gossip, on_partition, &split, 3), 3.0 * (100.0 + 3.0 * 10.0));
        }
    }

    #[test]
    fn a_node_that_is_not_counted_in_has_no_weight_and_no_slack() {
        let joiner = Outlook { admitted: false, ..outlook(4) };
        assert_eq!(weight(100.0, 0.0, 0, &joiner), 0.0);
        let bounded = rule("100/s", 2, Accuracy::default());
        assert_eq!(allowance(&bounded, &joiner, 0.0, 2.0, 0.0, 1.0), 0.0);
    }

    proptest! {
        /// Each node's own demand is at most what every other holds of it.
        #[test]
        fn weights_sum_to_one_or_less(claims in proptest::collection::vec((0.0..1e6f64, 0.0..1e6f64), 1..50)) {
            let n = u32::try_from(claims.len()).expect("few");
            // (what the node claims, what the others hold of it beyond that)
            let total: f64 = claims
                .iter()
                .enumerate()
                .map(|(i, (own, _))| {
                    let others: f64 =
                        claims.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, (c, more))| c + more).sum();
                    weight(*own, others, 0, &outlook(n))
                })
                .sum();
            prop_assert!(total <= 1.0 + 1e-9, "{total}");
        }

        #[test]
        fn the_stated_bound_of_bounded_is_within_max_overshoot_or_one_charge_a_peer(
            n in 2..200u32, burst in 1..100_000u64, overshoot in 0.001..1.0f64,
        ) {
            let rule = rule("1000/s", burst, Accuracy::Bounded { max_overshoot: overshoot });
            let bound = bound(&rule, &outlook(n), Nanos::ZERO);
            let small = (burst as f64) < SHARE_SMALL * f64::from(n);
            let most = (overshoot * burst as f64).max(if small { f64::from(n - 1) } else { 0.0 });
            prop_assert!(bound <= most + 1e-6, "{bound} > {most}");
        }

        #[test]
        fn strict_shares_of_one_level_never_exceed_it(level in 0.0..1e6f64, shares in proptest::collection::vec(0.0..1.0f64, 1..20)) {
            let sum: f64 = shares.iter().sum();
            let rule = rule("1000/s", 1_000_000, Accuracy::Strict);
            let n = u32::try_from(shares.len()).expect("few");
            let spent: f64 =
                shares.iter().map(|s| allowance(&rule, &outlook(n), s / sum.max(1.0), level, 0.0, 1.0)).sum();
            prop_assert!(spent <= level * (1.0 + 1e-9));
        }
    }
}
