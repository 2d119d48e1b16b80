//! What nodes state of one limit, sample by sample, against what is true between. It must not know how the truth is found.

use spillgate_core::time::Nanos;

use crate::scenario::KeyIndex;

/// What was true of a key and none of the statements around it covers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uncovered {
    /// When.
    pub at: Nanos,
    /// Of which key.
    pub key: KeyIndex,
    /// Tokens over.
    pub over: f64,
    /// Tokens that were stated at most.
    pub stated: f64,
}

/// One sample: the most that any node stated, and by how much that grows each second.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at: Nanos,
    tokens: f64,
    growth: f64,
}

/// What was stated and what was true.
///
/// Nodes are asked now and then. What a node would have said between two samples is at most what it said at the first and
/// the growth since, unless it has found out that somebody is silent meanwhile: then the second one tells. So the truth
/// between two samples is held against the more of the two.
#[derive(Clone, Debug, Default)]
pub struct Stated {
    before: Sample,
    present: Option<Sample>,
    /// The most over between the two samples, and since the present one, where the earlier sample does not cover it.
    between: Option<Uncovered>,
    since: Option<Uncovered>,
}

impl Stated {
    /// One node's statement. The first of a sample returns what the last two samples do not cover between them.
    pub fn state(&mut self, at: Nanos, tokens: f64, growth: f64) -> Option<Uncovered> {
        let mut uncovered = None;
        if self.present.is_none_or(|present| present.at != at) {
            uncovered = self.uncovered();
            self.before = self.present.unwrap_or_default();
            self.between = self.since.take();
            self.present = Some(Sample { at, ..Sample::default() });
        }
        if let Some(present) = &mut self.present {
            (present.tokens, present.growth) = (present.tokens.max(tokens), present.growth.max(growth));
        }
        uncovered
    }

    /// So much was over.
    pub fn admitted(&mut self, at: Nanos, key: KeyIndex, over: f64) {
        let Some(present) = self.present else { return };
        let stated = present.growth.mul_add(at.since(present.at).as_secs_f64(), present.tokens);
        if over > stated && self.since.is_none_or(|worst| over > worst.over) {
            self.since = Some(Uncovered { at, key, over, stated });
        }
    }

    /// What the last two samples do not cover of what was over between them.
    #[must_use]
    pub fn uncovered(&self) -> Option<Uncovered> {
        let present = self.present?.tokens;
        self.between
            .filter(|worst| worst.over > present)
            .map(|worst| Uncovered { stated: worst.stated.max(present), ..worst })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Nanos {
        Nanos::from_millis(ms)
    }

    /// Stated 4 and 10 more a second, 6 over after 100 ms, then stated `later`.
    fn after(over: f64, later: f64) -> Option<f64> {
        let mut stated = Stated::default();
        assert_eq!(stated.state(ms(0), 4.0, 10.0), None);
        assert_eq!(stated.state(ms(0), 1.0, 0.0), None);
        stated.admitted(ms(100), 3, over);
        assert_eq!(stated.state(ms(200), later, 0.0), None);
        let found = stated.uncovered();
        assert_eq!(stated.state(ms(300), 99.0, 0.0), found);
        found.map(|found| found.over)
    }

    #[test]
    fn the_more_of_two_samples_covers_what_is_between_them() {
        assert_eq!(after(5.0, 0.0), None, "what it has grown to");
        assert_eq!(after(6.0, 0.0), Some(6.0));
        assert_eq!(after(6.0, 6.0), None, "the later one");
    }
}
