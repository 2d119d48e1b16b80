//! A number of tokens as an exact fraction. It must not know where it comes from.

/// Tokens as an exact fraction, `parts / unit`; negative is debt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// So many parts.
    pub parts: i128,
    /// Parts to the token, at least 1.
    pub unit: u64,
}

impl Level {
    /// The nearest floating-point number of tokens: for estimates and reports, never to decide.
    #[must_use]
    pub fn tokens(self) -> f64 {
        self.parts as f64 / self.unit as f64
    }

    /// Whole tokens, rounded down; zero in debt.
    #[must_use]
    pub fn whole(self) -> u64 {
        // this is on every answer's path: a 64-bit division is several times faster than a 128-bit one
        if let Ok(parts) = u64::try_from(self.parts) {
            return parts.checked_div(self.unit).unwrap_or(0);
        }
        let parts = u128::try_from(self.parts).unwrap_or(0);
        parts.checked_div(u128::from(self.unit)).map_or(0, |n| u64::try_from(n).unwrap_or(u64::MAX))
    }

    /// Whole tokens, rounded up; zero in debt.
    pub(super) fn whole_ceil(self) -> u64 {
        Self { parts: self.parts.saturating_add(i128::from(self.unit) - 1), ..self }.whole()
    }

    /// Whether at least `tokens` are there; exact. In debt not even none are.
    #[must_use]
    pub fn covers(self, tokens: u64) -> bool {
        u128::try_from(self.parts).is_ok_and(|parts| parts >= u128::from(tokens) * u128::from(self.unit))
    }
}
