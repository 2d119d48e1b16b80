//! Bodies of requests: JSON in, values that the driver takes out. It must not know HTTP, nor any state.
//!
//! What can't be read is `malformed` (400); what was read and is out of range is `invalid-value` (422). `null` is the
//! same as absent; an unknown member is an error, so that a typo is never silently ignored.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use spillgate_core::decision::{Check, CheckError, LimitRef};
use spillgate_core::limit::{Accuracy, Algorithm, CAPACITY_MAX, COST_MAX, KEY_BYTES_MAX, Origin, Rule, RuleSpec};
use spillgate_core::rate::Rate;
use spillgate_core::time::Nanos;

use super::problem::{Kind, Problem};

/// The longest wait that a request may ask for, in milliseconds.
pub const WAIT_MS_MAX: u64 = 60_000;
/// The most checks in one batch.
pub const CHECKS_MAX: usize = 1000;

/// The limit a request names or brings.
#[derive(Debug, PartialEq)]
pub enum Limit<'a> {
    /// A configured one.
    Named(Cow<'a, str>),
    /// The caller's own rule.
    Inline(Arc<Rule>),
}

impl Limit<'_> {
    /// As the driver takes it.
    pub fn as_ref(&self) -> LimitRef<'_> {
        match self {
            Self::Named(name) => LimitRef::Named(name),
            Self::Inline(rule) => LimitRef::Inline(rule),
        }
    }
}

/// One check, whatever way it came.
#[derive(Debug, PartialEq)]
pub struct Wanted<'a> {
    /// Under which limit.
    pub limit: Limit<'a>,
    /// Who is counted.
    pub key: Cow<'a, str>,
    /// Tokens wanted.
    pub cost: u64,
    /// How long the answer may be held until it can be allowed.
    pub wait: Nanos,
    /// As the limit's `reserve` names it.
    pub priority: Cow<'a, str>,
}

impl Wanted<'_> {
    /// As the driver takes it.
    pub fn check(&self) -> Check<'_> {
        Check { limit: self.limit.as_ref(), key: &self.key, cost: self.cost, priority: &self.priority }
    }

    /// The same, with texts of its own.
    pub fn into_owned(self) -> Wanted<'static> {
        Wanted {
            limit: match self.limit {
                Limit::Named(name) => Limit::Named(Cow::Owned(name.into_owned())),
                Limit::Inline(rule) => Limit::Inline(rule),
            },
            key: Cow::Owned(self.key.into_owned()),
            cost: self.cost,
            wait: self.wait,
            priority: Cow::Owned(self.priority.into_owned()),
        }
    }
}

/// Whether the checks of a batch stand by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each is decided by itself.
    Each,
    /// All are granted, or none.
    All,
}

/// Several checks.
#[derive(Debug, PartialEq)]
pub struct Batch<'a> {
    /// 1 to [`CHECKS_MAX`] of them.
    pub checks: Vec<Wanted<'a>>,
    /// How they hang together.
    pub mode: Mode,
}

/// A key to refund or to reset.
#[derive(Debug, PartialEq)]
pub struct Target<'a> {
    /// Under which limit.
    pub limit: Limit<'a>,
    /// Who is counted.
    pub key: Cow<'a, str>,
    /// Tokens to give back; 0 in a reset, which has none.
    pub cost: u64,
}

/// Reads the body of `POST /v1/check`.
///
/// # Errors
/// A [`Problem`] that names the member and the value.
pub fn check(body: &[u8]) -> Result<Wanted<'_>, Problem> {
    read::<CheckBody<'_>>(body, r#"{"limit":"api","key":"user:42","cost":1}"#)?.wanted()
}

/// Reads the body of `POST /v1/checks`.
///
/// # Errors
/// A [`Problem`] that names the item, the member and the value.
pub fn batch(body: &[u8]) -> Result<Batch<'_>, Problem> {
    let example = r#"{"checks":[{"limit":"api","key":"user:42","cost":1}],"mode":"each"}"#;
    let body: BatchBody<'_> = read(body, example)?;
    let mode = match body.mode.as_deref() {
        None | Some("each") => Mode::Each,
        Some("all") => Mode::All,
        Some(other) => return Err(invalid(format!("mode {:?} must be \"each\" or \"all\"", shorten(other)))),
    };
    let n = body.checks.len();
    if n == 0 || n > CHECKS_MAX {
        return Err(invalid(format!("there are {n} checks in the batch, it must have 1 to {CHECKS_MAX}")));
    }
    let items = body.checks.into_iter().enumerate();
    let checks = items.map(|(i, item)| item.0.wanted().map_err(|p| p.at(i))).collect::<Result<_, _>>()?;
    Ok(Batch { checks, mode })
}

/// Reads the body of `POST /v1/refund`.
///
/// # Errors
/// A [`Problem`] that names the member and the value.
pub fn refund(body: &[u8]) -> Result<Target<'_>, Problem> {
    let body: RefundBody<'_> = read(body, r#"{"limit":"api","key":"user:42","cost":1}"#)?;
    Ok(Target { limit: body.limit.limit()?, key: checked_key(body.key)?, cost: cost(body.cost)? })
}

/// Reads the body of `POST /v1/reset`.
///
/// # Errors
/// A [`Problem`] that names the member and the value.
pub fn reset(body: &[u8]) -> Result<Target<'_>, Problem> {
    let body: ResetBody<'_> = read(body, r#"{"limit":"api","key":"user:42"}"#)?;
    Ok(Target { limit: body.limit.limit()?, key: checked_key(body.key)?, cost: 0 })
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8], example: &str) -> Result<T, Problem> {
    serde_json::from_slice::<Object<T>>(body).map(|o| o.0).map_err(|e| {
        // JSON's grammar has numbers beyond f64; a cost of 1e999 is out of range, not unreadable
        let kind = if e.to_string().starts_with("number out of range") { Kind::InvalidValue } else { Kind::Malformed };
        Problem::new(kind, format!("the body can't be read: {e}; send for example {example}"))
    })
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Kind::InvalidValue, detail)
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

fn cost(given: Option<Number>) -> Result<u64, Problem> {
    given.map_or(Ok(1), |n| n.whole("cost", COST_MAX))
}

fn checked_key(key: Cow<'_, str>) -> Result<Cow<'_, str>, Problem> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(invalid(CheckError::KeyLength(key.len()).to_string()));
    }
    Ok(key)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckBody<'a> {
    #[serde(borrow)]
    limit: LimitBody<'a>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    cost: Option<Number>,
    wait_ms: Option<Number>,
    priority: Option<String>,
}

impl<'a> CheckBody<'a> {
    fn wanted(self) -> Result<Wanted<'a>, Problem> {
        let wait_ms = self.wait_ms.map_or(Ok(0), |n| n.whole("wait_ms", WAIT_MS_MAX))?;
        Ok(Wanted {
            cost: cost(self.cost)?,
            limit: self.limit.limit()?,
            key: checked_key(self.key)?,
            wait: Nanos::from_millis(wait_ms),
            priority: self.priority.map_or(Cow::Borrowed("normal"), Cow::Owned),
        })
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody<'a> {
    #[serde(borrow)]
    checks: Vec<Object<CheckBody<'a>>>,
    mode: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RefundBody<'a> {
    #[serde(borrow)]
    limit: LimitBody<'a>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    cost: Option<Number>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetBody<'a> {
    #[serde(borrow)]
    limit: LimitBody<'a>,
    #[serde(borrow)]
    key: Cow<'a, str>,
}

/// A rule that the caller brings.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleBody {
    name: String,
    rate: String,
    burst: Option<Number>,
    algorithm: Option<String>,
    accuracy: Option<String>,
    max_overshoot: Option<Fraction>,
}

impl RuleBody {
    fn rule(self) -> Result<Rule, Problem> {
        let rate: Rate = self.rate.parse().map_err(|e| invalid(format!("{e}")))?;
        let mut spec = RuleSpec::new(algorithm(self.algorithm.as_deref())?, rate);
        spec.burst = self.burst.map(|n| n.whole("burst", CAPACITY_MAX)).transpose()?;
        spec.accuracy = accuracy(self.accuracy.as_deref(), self.max_overshoot)?;
        Rule::new(&self.name, Origin::Inline, spec).map_err(|e| invalid(e.to_string()))
    }
}

fn algorithm(given: Option<&str>) -> Result<Algorithm, Problem> {
    use Algorithm::{FixedWindow, LeakyBucket, SlidingWindow, TokenBucket};
    let all = [TokenBucket, LeakyBucket, FixedWindow, SlidingWindow];
    let Some(given) = given else { return Ok(TokenBucket) };
    all.into_iter().find(|a| a.as_str() == given).ok_or_else(|| {
        let known = all.map(Algorithm::as_str).join(", ");
        invalid(format!("algorithm {:?} must be one of {known}", shorten(given)))
    })
}

fn accuracy(given: Option<&str>, max_overshoot: Option<Fraction>) -> Result<Accuracy, Problem> {
    match (given, max_overshoot) {
        (None | Some("bounded"), None) => Ok(Accuracy::default()),
        (None | Some("bounded"), Some(f)) => Ok(Accuracy::Bounded { max_overshoot: f.value()? }),
        (Some("strict"), None) => Ok(Accuracy::Strict),
        (Some("gossip"), None) => Ok(Accuracy::Gossip),
        (Some(a @ ("strict" | "gossip")), Some(_)) => {
            Err(invalid(format!("max_overshoot has no meaning for accuracy {a:?}; leave one of them out")))
        }
        (Some(other), _) => {
            Err(invalid(format!("accuracy {:?} must be one of strict, bounded, gossip", shorten(other))))
        }
    }
}

/// A share of the capacity: `"5%"`, or the fraction as a number.
#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "max_overshoot must be a percentage like \"5%\" or a fraction like 0.05")]
enum Fraction {
    Number(f64),
    Text(String),
}

impl Fraction {
    fn value(self) -> Result<f64, Problem> {
        match self {
            Self::Number(n) => Ok(n),
            Self::Text(text) => {
                let percent = text.strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok());
                let malformed = || invalid(format!("max_overshoot {:?} is not like \"5%\" or 0.05", shorten(&text)));
                percent.map(|p| p / 100.0).ok_or_else(malformed)
            }
        }
    }
}

/// A limit's name, or a rule as an object.
enum LimitBody<'a> {
    Named(Cow<'a, str>),
    Rule(RuleBody),
}

impl<'a> LimitBody<'a> {
    fn limit(self) -> Result<Limit<'a>, Problem> {
        match self {
            Self::Named(name) => Ok(Limit::Named(name)),
            Self::Rule(body) => Ok(Limit::Inline(Arc::new(body.rule()?))),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for LimitBody<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrRule;
        impl<'de> Visitor<'de> for NameOrRule {
            type Value = LimitBody<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a limit's name or an object with \"name\" and \"rate\"")
            }
            fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(LimitBody::Named(Cow::Borrowed(name)))
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(LimitBody::Named(Cow::Owned(name.to_owned())))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                RuleBody::deserialize(MapAccessDeserializer::new(map)).map(LimitBody::Rule)
            }
        }
        deserializer.deserialize_any(NameOrRule)
    }
}

/// An object of members, and nothing else: a derived struct would also take an array of its members in order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(Members(PhantomData)).map(Object)
    }
}

/// A JSON number as it came; whether it is whole and in range is asked later, as that is another kind of error.
enum Number {
    Whole(u64),
    Other(String),
}

impl Number {
    fn whole(self, member: &str, max: u64) -> Result<u64, Problem> {
        let shown = match self {
            Self::Whole(n) if n <= max => return Ok(n),
            Self::Whole(n) => n.to_string(),
            Self::Other(text) => text,
        };
        Err(invalid(format!("{member} {shown} must be a whole number from 0 to {max}")))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNumber;
        impl Visitor<'_> for AnyNumber {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Number, E> {
                Ok(Number::Whole(n))
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Number, E> {
                Ok(u64::try_from(n).map_or_else(|_| Number::Other(n.to_string()), Number::Whole))
            }
            fn visit_f64<E: de::Error>(self, n: f64) -> Result<Number, E> {
                // JSON does not tell 1.0 from 1; up to 2^53 a float is the whole number it shows
                let whole = n.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&n);
                Ok(if whole { Number::Whole(n as u64) } else { Number::Other(format!("{n:?}")) })
            }
        }
        deserializer.deserialize_any(AnyNumber)
    }
}

#[cfg(test)]
mod tests;
