//! What the node tells of itself, as JSON: limits, keys, the cluster. It must not know where the values come from.

use std::collections::BTreeMap;

use serde::Serialize;
use spillgate_core::limit::{Accuracy, Limit, Limits, Rule};
use spillgate_core::time::Nanos;
use spillgate_core::view::{Explanation, ReplicaCount, TopBy, TopKey};

use super::{DeciderView, Identity, MemberView, Readiness, StoreView};

/// The answer to `GET /v1/limits`.
#[derive(Serialize)]
pub struct LimitsJson<'a> {
    limits: Vec<LimitJson<'a>>,
}

#[derive(Serialize)]
struct LimitJson<'a> {
    name: &'a str,
    algorithm: &'static str,
    rate: String,
    /// Only of buckets.
    burst: Option<u64>,
    capacity: u64,
    window_ms: u64,
    accuracy: &'static str,
    /// Only of `bounded`: a fraction of the capacity.
    max_overshoot: Option<f64>,
    confirm_wait_ms: f64,
    on_partition: &'static str,
    enforce: bool,
    max_delay_ms: Option<u64>,
    reserve: BTreeMap<&'a str, f64>,
    overrides: Vec<OverrideJson>,
}

#[derive(Serialize)]
struct OverrideJson {
    key: String,
    rate: String,
    burst: Option<u64>,
    capacity: u64,
    window_ms: u64,
}

/// Every limit with all that it says.
pub fn limits(limits: &Limits) -> LimitsJson<'_> {
    LimitsJson { limits: limits.iter().map(|(name, l)| limit(name, l)).collect() }
}

fn burst(rule: &Rule) -> Option<u64> {
    (!rule.algorithm().windowed()).then(|| rule.capacity())
}

fn limit<'a>(name: &'a str, limit: &'a Limit) -> LimitJson<'a> {
    let rule = limit.rule();
    let spec = rule.spec();
    let overrides = limit.overrides().into_iter().map(|(key, rule)| OverrideJson {
        key,
        rate: rule.rate().to_string(),
        burst: burst(rule),
        capacity: rule.capacity(),
        window_ms: rule.window().as_millis_ceil(),
    });
    LimitJson {
        name,
        algorithm: spec.algorithm.as_str(),
        rate: spec.rate.to_string(),
        burst: burst(rule),
        capacity: rule.capacity(),
        window_ms: rule.window().as_millis_ceil(),
        accuracy: spec.accuracy.as_str(),
        max_overshoot: match spec.accuracy {
            Accuracy::Bounded { max_overshoot } => Some(max_overshoot),
            Accuracy::Strict | Accuracy::Gossip => None,
        },
        confirm_wait_ms: millis(spec.confirm_wait),
        on_partition: spec.on_partition.as_str(),
        enforce: spec.enforce,
        max_delay_ms: spec.max_delay.map(Nanos::as_millis_ceil),
        reserve: spec.reserve.iter().map(|r| (r.priority.as_str(), r.fraction)).collect(),
        overrides: overrides.collect(),
    }
}

/// The answer to `GET /v1/keys/{limit}/{key}`. What is `null` is not known, or has no bound.
#[derive(Serialize)]
pub struct KeyJson<'a> {
    limit: &'a str,
    key: &'a str,
    algorithm: &'static str,
    accuracy: &'static str,
    rate: String,
    capacity: u64,
    level: f64,
    unacked: f64,
    allowance: Option<f64>,
    weight: Option<f64>,
    demand: f64,
    bound: Option<f64>,
    window: Option<u64>,
    replicas: Vec<ReplicaJson<'a>>,
}

#[derive(Serialize)]
struct ReplicaJson<'a> {
    node: &'a str,
    incarnation: u64,
    granted: u64,
    refunded: u64,
    demand: f64,
    age_ms: f64,
}

/// A key that something is known of.
pub fn key<'a>(limit: &'a str, key: &'a str, e: &'a Explanation) -> KeyJson<'a> {
    let replica = |r: &'a ReplicaCount| ReplicaJson {
        node: &r.replica.node,
        incarnation: r.replica.incarnation,
        granted: r.granted,
        refunded: r.refunded,
        demand: r.demand,
        age_ms: millis(r.age),
    };
    KeyJson {
        limit,
        key,
        algorithm: e.algorithm,
        accuracy: e.accuracy,
        rate: e.rate.to_string(),
        capacity: e.capacity,
        level: e.level,
        unacked: e.unacked,
        allowance: finite(e.allowance),
        weight: finite(e.weight),
        demand: e.demand,
        bound: finite(e.bound),
        window: e.window,
        replicas: e.replicas.iter().map(replica).collect(),
    }
}

/// A key that nothing is known of, so that it is full.
pub fn unknown_key<'a>(limit: &'a str, key: &'a str, rule: &Rule) -> KeyJson<'a> {
    KeyJson {
        limit,
        key,
        algorithm: rule.algorithm().as_str(),
        accuracy: rule.spec().accuracy.as_str(),
        rate: rule.rate().to_string(),
        capacity: rule.capacity(),
        level: rule.capacity() as f64,
        unacked: 0.0,
        allowance: None,
        weight: None,
        demand: 0.0,
        bound: None,
        window: None,
        replicas: Vec::new(),
    }
}

/// The answer to `GET /v1/top`.
#[derive(Serialize)]
pub struct TopJson {
    by: &'static str,
    keys: Vec<TopKeyJson>,
}

#[derive(Serialize)]
struct TopKeyJson {
    limit: String,
    key: String,
    granted: u64,
    denied: u64,
}

/// The busiest keys, busiest first.
pub fn top(by: TopBy, keys: Vec<TopKey>) -> TopJson {
    let by = match by {
        TopBy::Granted => "granted",
        TopBy::Denied => "denied",
    };
    let json = |k: TopKey| TopKeyJson { limit: k.limit, key: k.key, granted: k.granted, denied: k.denied };
    TopJson { by, keys: keys.into_iter().map(json).collect() }
}

/// The answer to `GET /v1/cluster`.
#[derive(Serialize)]
pub struct ClusterJson {
    cluster: Option<String>,
    node: String,
    incarnation: u64,
    version: &'static str,
    uptime_ms: u64,
    state: &'static str,
    /// How the node decides now.
    mode: &'static str,
    /// The central store, where one is configured.
    redis: Option<RedisJson>,
    /// This node first.
    members: Vec<MemberJson>,
}

#[derive(Serialize)]
struct RedisJson {
    mode: &'static str,
    address: String,
    state: &'static str,
    cluster: Option<bool>,
    /// Whether this node's share holds beside what the store says.
    shares: bool,
    switched_over: u64,
    switched_back: u64,
    last_error: Option<String>,
}

impl RedisJson {
    fn of(store: StoreView) -> Self {
        Self {
            mode: store.when,
            address: store.address,
            state: if store.is_up { "up" } else { "down" },
            cluster: store.is_cluster,
            shares: store.shares,
            switched_over: store.switched_over,
            switched_back: store.switched_back,
            last_error: store.last_error,
        }
    }
}

#[derive(Serialize)]
struct MemberJson {
    node: String,
    incarnation: u64,
    address: Option<String>,
    #[serde(rename = "self")]
    is_self: bool,
    state: &'static str,
    round_trip_ms: Option<f64>,
    news_age_ms: Option<f64>,
    clock_offset_ms: Option<f64>,
    frames_sent: u64,
    frames_received: u64,
    frames_lost: u64,
}

/// This node, and the others as it sees them.
pub fn cluster(identity: Identity, readiness: Readiness, decider: DeciderView, others: Vec<MemberView>) -> ClusterJson {
    let this = MemberJson {
        node: identity.node.clone(),
        incarnation: identity.incarnation,
        address: identity.address,
        is_self: true,
        state: "alive",
        round_trip_ms: None,
        news_age_ms: None,
        clock_offset_ms: None,
        frames_sent: 0,
        frames_received: 0,
        frames_lost: 0,
    };
    let other = |m: MemberView| MemberJson {
        node: m.node,
        incarnation: m.incarnation,
        address: m.address,
        is_self: false,
        state: m.state.as_str(),
        round_trip_ms: m.round_trip.map(millis),
        news_age_ms: m.news_age.map(millis),
        clock_offset_ms: m.clock_offset.map(|s| s * 1e3),
        frames_sent: m.frames_sent,
        frames_received: m.frames_received,
        frames_lost: m.frames_lost,
    };
    ClusterJson {
        cluster: identity.cluster,
        node: identity.node,
        incarnation: identity.incarnation,
        version: identity.version,
        uptime_ms: identity.uptime.as_millis_ceil(),
        state: readiness.as_str(),
        mode: decider.mode,
        redis: decider.store.map(RedisJson::of),
        members: std::iter::once(this).chain(others.into_iter().map(other)).collect(),
    }
}

/// Milliseconds to the microsecond: news and round trips are often younger than one.
fn millis(time: Nanos) -> f64 {
    (time.0 / 1_000) as f64 / 1e3
}

/// JSON has no infinity; `null` stands for it.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use spillgate_core::limit::{Algorithm, OverrideSpec, Reserve, RuleSpec};
    use spillgate_core::view::{PeerState, ReplicaId};

    fn value(of: &impl Serialize) -> Value {
        serde_json::to_value(of).unwrap()
    }

    #[test]
    fn limits_say_all_that_was_configured() {
        let mut spec = RuleSpec::new(Algorithm::TokenBucket, "100/s".parse().unwrap());
        spec.burst = Some(200);
        spec.reserve = vec![Reserve { priority: "low".into(), fraction: 0.2 }];
        let premium = OverrideSpec { key: "premium-*".into(), rate: Some("1000/s".parse().unwrap()), burst: None };
        let api = Limit::new("api", spec, &[premium]).unwrap();
        let daily = RuleSpec::new(Algorithm::FixedWindow, "1M/d".parse().unwrap());
        let daily = Limit::new("daily", daily, &[]).unwrap();
        let json = value(&limits(&Limits::new([api, daily]).unwrap()));
        let expected = json!({
            "name": "api", "algorithm": "token-bucket", "rate": "100/s", "burst": 200, "capacity": 200,
            "window_ms": 2000, "accuracy": "bounded", "max_overshoot": 0.05, "confirm_wait_ms": 5.0,
            "on_partition": "share", "enforce": true, "max_delay_ms": null, "reserve": {"low": 0.2},
            "overrides": [{"key": "premium-*", "rate": "1000/s", "burst": 1000, "capacity": 1000, "window_ms": 1000}],
        });
        assert_eq!(json["limits"][0], expected);
        assert_eq!(json["limits"][1]["burst"], Value::Null);
        assert_eq!(json["limits"][1]["window_ms"], 86_400_000);
    }

    #[test]
    fn a_key_is_explained_and_infinity_is_null() {
        let explanation = Explanation {
            algorithm: "token-bucket",
            accuracy: "gossip",
            rate: "10/s".parse().unwrap(),
            capacity: 10,
            level: -1.5,
            unacked: 0.25,
            allowance: f64::INFINITY,
            weight: 0.5,
            demand: 3.0,
            bound: f64::INFINITY,
            window: None,
            replicas: vec![ReplicaCount {
                replica: ReplicaId { node: "a".into(), incarnation: 7 },
                granted: 12,
                refunded: 1,
                demand: 3.0,
                age: Nanos(1_234_567),
            }],
        };
        let json = value(&key("api", "k", &explanation));
        assert_eq!((&json["level"], &json["allowance"], &json["bound"]), (&json!(-1.5), &Value::Null, &Value::Null));
        let replica = json!({
            "node": "a", "incarnation": 7, "granted": 12, "refunded": 1, "demand": 3.0, "age_ms": 1.234,
        });
        assert_eq!(json["replicas"], json!([replica]));
        let rule = Limit::new("api", RuleSpec::new(Algorithm::TokenBucket, explanation.rate), &[]).unwrap();
        let json = value(&unknown_key("api", "k", rule.rule()));
        assert_eq!((&json["level"], &json["replicas"]), (&json!(10.0), &json!([])));
    }

    #[test]
    fn the_cluster_lists_this_node_first() {
        let identity = Identity {
            cluster: Some("prod".into()),
            node: "a".into(),
            incarnation: 3,
            address: Some("10.0.0.1:8471".into()),
            version: "0.1.0",
            uptime: Nanos::from_secs(5),
        };
        let b = MemberView {
            node: "b".into(),
            incarnation: 4,
            address: None,
            state: PeerState::Silent,
            round_trip: Some(Nanos(1_500_000)),
            news_age: None,
            clock_offset: Some(-0.002),
            frames_sent: 1,
            frames_received: 2,
            frames_lost: 3,
        };
        let decider = DeciderView { mode: "local", store: None };
        let json = value(&cluster(identity, Readiness::Ready, decider, vec![b]));
        assert_eq!((&json["mode"], &json["redis"]), (&json!("local"), &Value::Null));
        assert_eq!(json["state"], "ready");
        assert_eq!(json["members"][0]["self"], true);
        let expected = json!({
            "node": "b", "incarnation": 4, "address": null, "self": false, "state": "silent", "round_trip_ms": 1.5,
            "news_age_ms": null, "clock_offset_ms": -2.0, "frames_sent": 1, "frames_received": 2, "frames_lost": 3,
        });
        assert_eq!(json["members"][1], expected);
    }
}
