//! The written forms that keys and flags share: names, seeds, parts of a whole. It must not know where they stand.

use std::net::SocketAddr;

use toml::de::DeValue;

use super::keys::NAME_BYTES_MAX;
use super::wording::shorten;

/// A seed that nobody could dial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {0:?} must be a host and a port like \"10.0.0.1:8471\", \"node-b.example:8471\" or \"[fd00::1]:8471\"")]
pub(super) struct SeedError(String);

/// Whether a node or a cluster can be called so.
pub(super) fn is_name(text: &str) -> bool {
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= NAME_BYTES_MAX
        && end(text.chars().next())
        && end(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// A seed as it was given.
///
/// # Errors
/// It has no host, or no port that can be dialled.
pub(super) fn checked_seed(text: &str) -> Result<String, SeedError> {
    let wrong = || SeedError(shorten(text));
    if text.parse::<SocketAddr>().is_ok_and(|a| a.port() != 0) {
        return Ok(text.to_owned());
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host_fits =
        (1..=253).contains(&host.len()) && host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let port_fits = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p != 0);
    if host_fits && port_fits { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// `"5%"`, `0.05` or a whole 0 or 1, from 0 to 1.
pub(super) fn fraction(value: &DeValue<'_>) -> Option<f64> {
    let part = match value {
        DeValue::String(text) => text.trim().strip_suffix('%')?.trim_end().parse::<f64>().ok()? / 100.0,
        DeValue::Float(f) => f.as_str().parse().ok()?,
        DeValue::Integer(n) if n.radix() == 10 => n.as_str().parse().ok()?,
        _ => return None,
    };
    (0.0..=1.0).contains(&part).then_some(part)
}
