//! Limits: named rules, valid by construction. It must not know counters, peers or any file format.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::rate::Rate;
use crate::time::Nanos;

/// The largest cost of one request, in tokens.
pub const COST_MAX: u64 = 1_000_000_000;
/// The largest capacity of a limit, in tokens.
pub const CAPACITY_MAX: u64 = 1_000_000_000_000;
/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest name of a limit, in bytes: it travels in a frame beside a key that a peer has never seen.
pub const NAME_BYTES_MAX: usize = 128;
/// How long an answer may wait for peers to confirm, unless the limit says otherwise.
pub const CONFIRM_WAIT_DEFAULT: Nanos = Nanos::from_millis(5);
/// What `bounded` may admit beyond the limit, as a fraction of its capacity, unless the limit says otherwise.
pub const MAX_OVERSHOOT_DEFAULT: f64 = 0.05;

/// How tokens are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Up to `burst` tokens at once, refilled at the rate.
    TokenBucket,
    /// A queue that leaks at the rate: an allowed request may be told to wait for its turn.
    LeakyBucket,
    /// At most `rate` tokens in each window aligned to the epoch.
    FixedWindow,
    /// The present fixed window plus the part of the last one that the sliding window still covers.
    SlidingWindow,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 4] = [Self::TokenBucket, Self::LeakyBucket, Self::FixedWindow, Self::SlidingWindow];

    /// Whether it counts by windows of wall time rather than by a refilling bucket.
    #[must_use]
    pub const fn windowed(self) -> bool {
        matches!(self, Self::FixedWindow | Self::SlidingWindow)
    }

    /// The name in configuration and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenBucket => "token-bucket",
            Self::LeakyBucket => "leaky-bucket",
            Self::FixedWindow => "fixed-window",
            Self::SlidingWindow => "sliding-window",
        }
    }
}

/// The dial from strict to available.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Accuracy {
    /// No overshoot: kappa 1, no slack, confirmations of level 2.
    Strict,
    /// Overshoot up to `max_overshoot` (a fraction of the capacity, above 0 and at most 1) buys utilisation.
    Bounded {
        /// Fraction of the capacity that may be admitted beyond it.
        max_overshoot: f64,
    },
    /// Plain gossip: whatever the local level allows.
    Gossip,
}

impl Accuracy {
    /// The name in configuration and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Bounded { .. } => "bounded",
            Self::Gossip => "gossip",
        }
    }
}

impl Default for Accuracy {
    fn default() -> Self {
        Self::Bounded { max_overshoot: MAX_OVERSHOOT_DEFAULT }
    }
}

/// What a node does while a peer is silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnPartition {
    /// Goes on with its share of the limit until the peer is forgotten.
    #[default]
    Share,
    /// Takes the whole limit as soon as membership calls the peer dead.
    Continue,
    /// Refuses.
    Deny,
}

impl OnPartition {
    /// The name in configuration and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Continue => "continue",
            Self::Deny => "deny",
        }
    }
}

/// The part of the capacity that requests of one priority may not take.
#[derive(Clone, Debug, PartialEq)]
pub struct Reserve {
    /// The priority that is held back, as requests name it.
    pub priority: String,
    /// Fraction of the capacity kept from it, 0 to 1.
    pub fraction: f64,
}

/// Why a limit was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LimitError {
    /// The name is empty, too long or has characters that a label or a header could not carry.
    #[error("limit name {0:?} must be 1 to {NAME_BYTES_MAX} letters, digits, '-', '_', '.' or ':'")]
    Name(String),
    /// A second limit has the same name.
    #[error("limit {0:?} is defined twice")]
    Duplicate(String),
    /// Bursts are from 1 to [`CAPACITY_MAX`].
    #[error("burst {0} must be from 1 to {CAPACITY_MAX}")]
    Burst(u64),
    /// Windows hold what the rate says; a burst would contradict it.
    #[error("burst {0} has no meaning for {1}: its window holds what the rate says")]
    BurstOfWindow(u64, &'static str),
    /// Only a leaky bucket delays.
    #[error("max_delay has no meaning for {0}: only leaky-bucket delays requests")]
    DelayOfOther(&'static str),
    /// The fraction of overshoot is out of range.
    #[error("max_overshoot {0} must be above 0 and at most 1 (100%); for none use accuracy = \"strict\"")]
    MaxOvershoot(f64),
    /// The reserved fraction is out of range.
    #[error("reserve of priority {0:?} is {1}, it must be from 0 to 1")]
    Reserve(String, f64),
    /// The pattern is empty, too long, or has `*` elsewhere than at its end.
    #[error("override key {0:?} must be 1 to {KEY_BYTES_MAX} bytes with '*' at most once, at the end")]
    Pattern(String),
    /// Two overrides of a limit have the same pattern.
    #[error("override key {0:?} is given twice")]
    DuplicatePattern(String),
}

/// Where a rule came from: the two name spaces never meet, so a caller's own rule can't touch a configured limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The configuration.
    Configured,
    /// The request itself.
    Inline,
}

/// What a rule says, unchecked; [`Rule::new`] checks it.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// How tokens are counted.
    pub algorithm: Algorithm,
    /// Tokens a period.
    pub rate: Rate,
    /// Capacity of a bucket in tokens; `None`: one second's worth, at least 1.
    pub burst: Option<u64>,
    /// Strict to available.
    pub accuracy: Accuracy,
    /// How long an answer may wait for confirmation when only that is missing.
    pub confirm_wait: Nanos,
    /// What to do while peers are silent.
    pub on_partition: OnPartition,
    /// `false`: a dry run, always allowed.
    pub enforce: bool,
    /// Leaky bucket: the longest delay an answer may ask for; `None`: as long as the queue is.
    pub max_delay: Option<Nanos>,
    /// Priorities that are held back.
    pub reserve: Vec<Reserve>,
}

impl RuleSpec {
    /// A rule with every default.
    #[must_use]
    pub fn new(algorithm: Algorithm, rate: Rate) -> Self {
        Self {
            algorithm,
            rate,
            burst: None,
            accuracy: Accuracy::default(),
            confirm_wait: CONFIRM_WAIT_DEFAULT,
            on_partition: OnPartition::default(),
            enforce: true,
            max_delay: None,
            reserve: Vec::new(),
        }
    }
}

/// A checked rule, as one key meets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    limit: Arc<str>,
    origin: Origin,
    spec: RuleSpec,
    capacity: u64,
    /// The rate in its lowest terms, tokens and nanoseconds: it keeps a bucket's numbers small, and divisions cheap.
    lowest: (u64, u64),
}

impl Rule {
    /// Checks `spec` and works out the capacity.
    ///
    /// # Errors
    /// [`LimitError`] names the value that is out of range.
    pub fn new(limit: &str, origin: Origin, spec: RuleSpec) -> Result<Self, LimitError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if limit.is_empty() || limit.len() > NAME_BYTES_MAX || !limit.chars().all(fits) {
            return Err(LimitError::Name(limit.chars().take(NAME_BYTES_MAX).collect()));
        }
        let capacity = match (spec.algorithm.windowed(), spec.burst) {
            (true, None) => spec.rate.tokens(),
            (true, Some(b)) => return Err(LimitError::BurstOfWindow(b, spec.algorithm.as_str())),
            (false, None) => spec.rate.tokens_in(Nanos::SECOND).clamp(1, CAPACITY_MAX),
            (false, Some(b)) => b,
        };
        if capacity == 0 || capacity > CAPACITY_MAX {
            return Err(LimitError::Burst(capacity));
        }
        if spec.max_delay.is_some() && spec.algorithm != Algorithm::LeakyBucket {
            return Err(LimitError::DelayOfOther(spec.algorithm.as_str()));
        }
        if let Accuracy::Bounded { max_overshoot } = spec.accuracy
            && !(max_overshoot > 0.0 && max_overshoot <= 1.0)
        {
            return Err(LimitError::MaxOvershoot(max_overshoot));
        }
        for r in &spec.reserve {
            if !(0.0..=1.0).contains(&r.fraction) {
                return Err(LimitError::Reserve(r.priority.clone(), r.fraction));
            }
        }
        let (tokens, period) = (spec.rate.tokens(), spec.rate.period().0);
        let divisor = greatest_common_divisor(tokens, period);
        Ok(Self { limit: limit.into(), origin, capacity, lowest: (tokens / divisor, period / divisor), spec })
    }

    /// The limit's name.
    #[must_use]
    pub fn limit(&self) -> &str {
        &self.limit
    }

    /// Configured, or brought by the caller.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// Everything it says.
    #[must_use]
    pub const fn spec(&self) -> &RuleSpec {
        &self.spec
    }

    /// How tokens are counted.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.spec.algorithm
    }

    /// Tokens a period.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        self.spec.rate
    }

    /// Tokens that can be had at once: the burst of a bucket, the content of a window.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Parts that a nanosecond refills, where a token has [`Self::parts_per_token`].
    pub(crate) const fn parts_per_ns(&self) -> u64 {
        self.lowest.0
    }

    /// Parts of one token: the smallest number that makes every refill whole.
    pub(crate) const fn parts_per_token(&self) -> u64 {
        self.lowest.1
    }

    /// The time in which the whole capacity comes back: a window's length, or an empty bucket's time to fill.
    #[must_use]
    pub fn window(&self) -> Nanos {
        if self.spec.algorithm.windowed() { self.spec.rate.period() } else { self.spec.rate.time_for(self.capacity) }
    }

    /// Whether `cost` tokens, leaving `reserved`, are more than even a full bucket holds.
    #[must_use]
    pub const fn can_never_grant(&self, cost: u64, reserved: u64) -> bool {
        cost > 0 && cost.saturating_add(reserved) > self.capacity
    }

    /// Tokens that a request of `priority` must leave behind; `None` when the limit does not know that priority.
    ///
    /// To the nearest token. `normal` leaves nothing unless it is named too, and so does any priority where the limit
    /// reserves nothing at all.
    #[must_use]
    pub fn reserved(&self, priority: &str) -> Option<u64> {
        if let Some(r) = self.spec.reserve.iter().find(|r| r.priority == priority) {
            // the nearest, since a percentage of a whole number is often a hair below the next whole number
            return Some((r.fraction * self.capacity as f64).round() as u64);
        }
        (priority == "normal" || self.spec.reserve.is_empty()).then_some(0)
    }
}

/// Of two numbers of which one is not zero.
const fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// What an override says of the keys it matches, unchecked.
#[derive(Clone, Debug, PartialEq)]
pub struct OverrideSpec {
    /// The key, or a prefix with `*` behind it.
    pub key: String,
    /// Replaces the rate.
    pub rate: Option<Rate>,
    /// Replaces the burst; where only the rate is given, a bucket's burst is one second's worth of that.
    pub burst: Option<u64>,
}

/// A named limit: its rule, and other rules for some keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    rule: Arc<Rule>,
    exact: BTreeMap<String, Arc<Rule>>,
    /// Longest first, so that the first match wins.
    prefixes: Vec<(String, Arc<Rule>)>,
}

impl Limit {
    /// A configured limit from its rule and overrides.
    ///
    /// # Errors
    /// [`LimitError`], of the rule or of an override.
    pub fn new(name: &str, spec: RuleSpec, overrides: &[OverrideSpec]) -> Result<Self, LimitError> {
        let mut exact = BTreeMap::new();
        let mut prefixes: Vec<(String, Arc<Rule>)> = Vec::new();
        for o in overrides {
            let (text, is_prefix) = match o.key.strip_suffix('*') {
                Some(prefix) => (prefix, true),
                None => (o.key.as_str(), false),
            };
            if o.key.is_empty() || o.key.len() > KEY_BYTES_MAX || text.contains('*') {
                return Err(LimitError::Pattern(o.key.chars().take(KEY_BYTES_MAX).collect()));
            }
            let rule = Rule::new(
                name,
                Origin::Configured,
                RuleSpec {
                    rate: o.rate.unwrap_or(spec.rate),
                    burst: o.burst.or(if o.rate.is_some() { None } else { spec.burst }),
                    ..spec.clone()
                },
            )?;
            let taken = if is_prefix {
                let taken = prefixes.iter().any(|(p, _)| p == text);
                prefixes.push((text.to_owned(), Arc::new(rule)));
                taken
            } else {
                exact.insert(text.to_owned(), Arc::new(rule)).is_some()
            };
            if taken {
                return Err(LimitError::DuplicatePattern(o.key.clone()));
            }
        }
        prefixes.sort_by_key(|(p, _)| std::cmp::Reverse(p.len()));
        let rule = Arc::new(Rule::new(name, Origin::Configured, spec)?);
        Ok(Self { rule, exact, prefixes })
    }

    /// The rule of keys that no override matches.
    #[must_use]
    pub const fn rule(&self) -> &Arc<Rule> {
        &self.rule
    }

    /// The rule that `key` meets: an exact override, else the longest prefix that matches, else the limit's own.
    #[must_use]
    pub fn rule_for(&self, key: &str) -> &Arc<Rule> {
        self.exact
            .get(key)
            .or_else(|| self.prefixes.iter().find(|(p, _)| key.starts_with(p.as_str())).map(|(_, r)| r))
            .unwrap_or(&self.rule)
    }

    /// Every override: pattern (with its `*`) and rule, exact ones first, in order of their text.
    #[must_use]
    pub fn overrides(&self) -> Vec<(String, &Arc<Rule>)> {
        let mut all: Vec<_> = self.exact.iter().map(|(k, r)| (k.clone(), r)).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.extend(self.prefixes.iter().map(|(p, r)| (format!("{p}*"), r)));
        all
    }
}

/// All configured limits by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits(BTreeMap<String, Limit>);

impl Limits {
    /// A set of limits.
    ///
    /// # Errors
    /// [`LimitError::Duplicate`] when two share a name.
    pub fn new(limits: impl IntoIterator<Item = Limit>) -> Result<Self, LimitError> {
        let mut by_name = BTreeMap::new();
        for limit in limits {
            let name = limit.rule.limit().to_owned();
            if by_name.insert(name.clone(), limit).is_some() {
                return Err(LimitError::Duplicate(name));
            }
        }
        Ok(Self(by_name))
    }

    /// The limit of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Limit> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Limit)> {
        self.0.iter().map(|(n, l)| (n.as_str(), l))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;
