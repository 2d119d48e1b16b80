//! Which rule a key meets: the configured limits, rules that callers bring, rules that peers describe. It must not know
//! keys' states.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decision::{CheckError, LimitRef};
use crate::limit::{Accuracy, Algorithm, Limits, Origin, Rule, RuleSpec};
use crate::rate::Rate;
use crate::time::Nanos;
use crate::wire::Describe;

/// The place of a limit's tally: stable over reloads.
pub type TallyId = u16;

/// Where limits are tallied that this node has not configured: callers' own and peers'.
pub const TALLY_OTHER: TallyId = 0;
/// The name of that tally.
pub const TALLY_OTHER_NAME: &str = "(other)";

/// The configured limits, and where each is tallied.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The configured limits.
    pub limits: Arc<Limits>,
    tallies: BTreeMap<String, TallyId>,
    names: Vec<String>,
}

impl Catalog {
    /// Of these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let empty = Self { limits: Arc::default(), tallies: BTreeMap::new(), names: vec![TALLY_OTHER_NAME.to_owned()] };
        empty.replaced(limits)
    }

    /// With other limits; those that stay keep their tallies, and no tally is given away again.
    #[must_use]
    pub fn replaced(&self, limits: Limits) -> Self {
        let mut next = self.clone();
        for (name, _) in limits.iter() {
            // past so many names in one life, further ones are counted together
            let Ok(id) = TallyId::try_from(next.names.len()) else { break };
            if !next.tallies.contains_key(name) {
                next.tallies.insert(name.to_owned(), id);
                next.names.push(name.to_owned());
            }
        }
        next.limits = Arc::new(limits);
        next
    }

    /// Names by [`TallyId`].
    #[must_use]
    pub fn tally_names(&self) -> &[String] {
        &self.names
    }

    /// Where `rule` is tallied.
    #[must_use]
    pub fn tally(&self, rule: &Rule) -> TallyId {
        match rule.origin() {
            Origin::Configured => self.tallies.get(rule.limit()).copied().unwrap_or(TALLY_OTHER),
            Origin::Inline => TALLY_OTHER,
        }
    }

    /// The rule of `key` under `limit`.
    ///
    /// # Errors
    /// [`CheckError::UnknownLimit`].
    pub fn rule(&self, limit: LimitRef<'_>, key: &str) -> Result<Arc<Rule>, CheckError> {
        match limit {
            LimitRef::Named(name) => match self.limits.find(name) {
                Some(limit) => Ok(Arc::clone(limit.rule_for(key))),
                None => Err(CheckError::UnknownLimit(name.chars().take(128).collect())),
            },
            LimitRef::Inline(rule) => Ok(Arc::clone(rule)),
        }
    }

    /// The rule that a peer describes, with this node's own settings of that limit where it has them; `None` when the
    /// description makes no valid rule.
    #[must_use]
    pub fn described(&self, describe: &Describe) -> Option<Arc<Rule>> {
        let origin = if describe.inline { Origin::Inline } else { Origin::Configured };
        let own = self.limits.find(&describe.limit).filter(|_| !describe.inline).map(|l| l.rule());
        let algorithm = match describe.algorithm {
            0 => Algorithm::TokenBucket,
            1 => Algorithm::LeakyBucket,
            2 => Algorithm::FixedWindow,
            3 => Algorithm::SlidingWindow,
            _ => return None,
        };
        let rate = Rate::new(describe.tokens, Nanos(describe.period)).ok()?;
        if let Some(own) = own
            && (own.algorithm(), own.rate(), own.capacity()) == (algorithm, rate, describe.capacity)
        {
            return Some(Arc::clone(own));
        }
        let mut spec = own.map_or_else(|| RuleSpec::new(algorithm, rate), |own| own.spec().clone());
        spec.algorithm = algorithm;
        spec.rate = rate;
        spec.burst = (!algorithm.windowed()).then_some(describe.capacity);
        if algorithm != Algorithm::LeakyBucket {
            spec.max_delay = None;
        }
        spec.accuracy = match describe.accuracy {
            0 => Accuracy::Strict,
            1 => Accuracy::Bounded { max_overshoot: f64::from(describe.overshoot_ppm) / 1e6 },
            2 => Accuracy::Gossip,
            _ => return None,
        };
        let rule = Rule::new(&describe.limit, origin, spec).ok()?;
        (rule.capacity() == describe.capacity).then(|| Arc::new(rule))
    }
}
