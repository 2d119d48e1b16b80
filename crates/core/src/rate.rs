//! Rates: tokens a period, exact. It must not know limits or buckets.

use std::fmt;
use std::str::FromStr;

use crate::limit::CAPACITY_MAX;
use crate::time::Nanos;

/// The longest period of a rate: 366 days.
pub const PERIOD_MAX: Nanos = Nanos::from_secs(366 * 86_400);
/// The shortest period of a rate: one millisecond.
pub const PERIOD_MIN: Nanos = Nanos::from_millis(1);

/// So many tokens in so long a period; both matter, since a window is one period long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    tokens: u64,
    period: Nanos,
}

/// Why a rate or a duration could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not of the form of a rate.
    #[error("rate {0:?} is not like \"100/s\", \"5000/m\", \"1M/d\" or \"10/10s\"")]
    Rate(String),
    /// The number of tokens is out of range.
    #[error("rate {0:?} must give from 1 to {CAPACITY_MAX} tokens a period")]
    Tokens(String),
    /// The period is out of range.
    #[error("the period of rate {0:?} must be from {PERIOD_MIN} to {PERIOD_MAX}")]
    Period(String),
    /// Not of the form of a duration.
    #[error("duration {0:?} is not like \"10ms\", \"1.5s\", \"1m\", \"2h\" or \"1d\"")]
    Duration(String),
    /// A duration that 2^64 nanoseconds do not hold.
    #[error("duration {0:?} is too long, at most 213503d can be told")]
    TooLong(String),
}

impl RateError {
    /// The same error about another text, of which it keeps enough to recognise it.
    fn about(self, text: &str) -> Self {
        let text = text.chars().take(64).collect();
        match self {
            Self::Rate(_) | Self::Duration(_) => Self::Rate(text),
            Self::Tokens(_) => Self::Tokens(text),
            Self::Period(_) | Self::TooLong(_) => Self::Period(text),
        }
    }
}

impl Rate {
    /// `tokens` (1 to [`CAPACITY_MAX`]) every `period` ([`PERIOD_MIN`] to [`PERIOD_MAX`]).
    ///
    /// # Errors
    /// [`RateError`] when one is out of range.
    pub fn new(tokens: u64, period: Nanos) -> Result<Self, RateError> {
        let text = || format!("{tokens}/{period}");
        if tokens == 0 || tokens > CAPACITY_MAX {
            return Err(RateError::Tokens(text()));
        }
        if period < PERIOD_MIN || period > PERIOD_MAX {
            return Err(RateError::Period(text()));
        }
        Ok(Self { tokens, period })
    }

    /// Tokens a period.
    #[must_use]
    pub const fn tokens(self) -> u64 {
        self.tokens
    }

    /// The period.
    #[must_use]
    pub const fn period(self) -> Nanos {
        self.period
    }

    /// Tokens a second, for estimates and reports.
    #[must_use]
    pub fn per_second(self) -> f64 {
        self.tokens as f64 / self.period.as_secs_f64()
    }

    /// Whole tokens that come in `time`, rounded down.
    #[must_use]
    pub fn tokens_in(self, time: Nanos) -> u64 {
        let tokens = u128::from(self.tokens) * u128::from(time.0) / u128::from(self.period.0);
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }

    /// The time in which `tokens` come, rounded up.
    #[must_use]
    pub fn time_for(self, tokens: u64) -> Nanos {
        let time = (u128::from(tokens) * u128::from(self.period.0)).div_ceil(u128::from(self.tokens));
        Nanos(u64::try_from(time).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = self.period.to_string();
        write!(
            f,
            "{}/{}",
            self.tokens,
            period.strip_prefix('1').filter(|u| !u.starts_with(char::is_numeric)).unwrap_or(&period)
        )
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let malformed = || RateError::Rate(String::new()).about(text);
        let (tokens, period) = text.split_once('/').ok_or_else(malformed)?;
        let (tokens, period) = (tokens.trim(), period.trim());
        let (digits, factor) = match tokens.as_bytes().last() {
            Some(b'k' | b'K') => (&tokens[..tokens.len() - 1], 1_000),
            Some(b'M') => (&tokens[..tokens.len() - 1], 1_000_000),
            Some(b'G') => (&tokens[..tokens.len() - 1], 1_000_000_000),
            _ => (tokens, 1),
        };
        let digits: String = digits.chars().filter(|c| *c != '_').collect();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed());
        }
        let tokens = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
        let tokens = tokens.ok_or_else(|| RateError::Tokens(String::new()).about(text))?;
        let period = if period.starts_with(|c: char| c.is_ascii_alphabetic()) {
            parse_duration(&format!("1{period}"))
        } else {
            parse_duration(period)
        };
        period.and_then(|period| Self::new(tokens, period)).map_err(|e| e.about(text))
    }
}

/// Reads `"10ms"`, `"1.5s"`, `"1m"`, `"2h"`, `"1d"`; `"0"` needs no unit.
///
/// # Errors
/// [`RateError::Duration`] or [`RateError::TooLong`] with the text.
pub fn parse_duration(text: &str) -> Result<Nanos, RateError> {
    let malformed = || RateError::Duration(text.chars().take(64).collect());
    let text_trimmed = text.trim();
    if text_trimmed == "0" {
        return Ok(Nanos::ZERO);
    }
    let at = text_trimmed.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(malformed)?;
    let (number, unit) = text_trimmed.split_at(at);
    let size: u64 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return Err(malformed()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return Err(malformed());
    }
    let too_long = || RateError::TooLong(text.chars().take(64).collect());
    let whole: u64 = whole.parse().map_err(|_| too_long())?;
    let scale = 10u64.pow(u32::try_from(fraction.len()).map_err(|_| malformed())?);
    let fraction: u64 = fraction.parse().map_err(|_| malformed())?;
    let part = u128::from(fraction) * u128::from(size) / u128::from(scale);
    let total = u128::from(whole) * u128::from(size) + part;
    u64::try_from(total).map(Nanos).map_err(|_| too_long())
}

#[cfg(test)]
mod tests;
