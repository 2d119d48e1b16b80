//! What flags and the environment say over the file: their names, and the written form of a limit. It must not know
//! the command line's parser.

use std::net::SocketAddr;
use std::path::PathBuf;

use spillgate_core::limit::{Algorithm, Limit, LimitError, RuleSpec};
use spillgate_core::rate::{Rate, RateError};

pub(super) const NODE_ID_FLAG: &str = "--node-id";
pub(super) const HTTP_FLAG: &str = "--http";
pub(super) const RESP_FLAG: &str = "--resp";
pub(super) const TOKEN_FILE_FLAG: &str = "--token-file";
pub(super) const CLUSTER_LISTEN_FLAG: &str = "--cluster-listen";
pub(super) const ADVERTISE_FLAG: &str = "--advertise";
pub(super) const SEED_FLAG: &str = "--seed";
pub(super) const SECRET_FILE_FLAG: &str = "--secret-file";
pub(super) const LIMIT_FLAG: &str = "--limit";

/// What replaces values of the file, or stands in for a file that is not there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// Replaces `node.id`.
    pub node_id: Option<String>,
    /// Replaces `node.data_dir`.
    pub data_dir: Option<PathBuf>,
    /// Replaces `http.listen`.
    pub http: Option<SocketAddr>,
    /// Replaces `resp.listen`, and brings the section about.
    pub resp: Option<SocketAddr>,
    /// Replaces `http.token_file`.
    pub token_file: Option<PathBuf>,
    /// Replaces `cluster.listen`; this or any other of the cluster's makes a cluster where the file has none.
    pub cluster_listen: Option<SocketAddr>,
    /// Replaces `cluster.advertise`.
    pub advertise: Option<SocketAddr>,
    /// Replaces `cluster.seeds`, unless empty.
    pub seeds: Vec<String>,
    /// Replaces `cluster.secret_file`, and `[cluster.tls]` too.
    pub secret_file: Option<PathBuf>,
    /// Added to the limits of the file; each replaces the one of its name there.
    pub limits: Vec<Limit>,
}

impl Overrides {
    /// Whether they ask for a cluster, and the first flag that does.
    pub(super) fn cluster_flag(&self) -> Option<&'static str> {
        let given = [
            (self.secret_file.is_some(), SECRET_FILE_FLAG),
            (self.cluster_listen.is_some(), CLUSTER_LISTEN_FLAG),
            (self.advertise.is_some(), ADVERTISE_FLAG),
            (!self.seeds.is_empty(), SEED_FLAG),
        ];
        given.into_iter().find(|(is_given, _)| *is_given).map(|(_, flag)| flag)
    }
}

/// Why the value of `--limit` was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LimitFlagError {
    /// Not of the form at all.
    #[error("{0:?} is not like \"api=100/s\" or \"api=100/s:200\"")]
    Form(String),
    /// The rate is none.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// The burst is no number.
    #[error("burst {0:?} must be a whole number")]
    Burst(String),
    /// The limit can't be.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

/// Reads `NAME=RATE[:BURST]`: a token bucket with every default.
///
/// # Errors
/// [`LimitFlagError`] with what is allowed.
pub fn parse_limit_flag(text: &str) -> Result<Limit, LimitFlagError> {
    let (name, rest) = text.split_once('=').ok_or_else(|| LimitFlagError::Form(super::wording::shorten(text)))?;
    let (rate, burst) = rest.split_once(':').map_or((rest, None), |(rate, burst)| (rate, Some(burst)));
    let mut spec = RuleSpec::new(Algorithm::TokenBucket, rate.parse::<Rate>()?);
    spec.burst = burst
        .map(|b| b.replace('_', "").parse().map_err(|_| LimitFlagError::Burst(super::wording::shorten(b))))
        .transpose()?;
    Ok(Limit::new(name, spec, &[])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_flag_is_a_token_bucket_with_every_default() {
        let limit = parse_limit_flag("api=100/s").unwrap();
        assert_eq!(*limit.rule().spec(), RuleSpec::new(Algorithm::TokenBucket, "100/s".parse().unwrap()));
        assert_eq!((limit.rule().limit(), limit.rule().capacity()), ("api", 100));
    }

    #[test]
    fn a_limit_flag_may_have_a_burst_and_colons_in_its_name() {
        let limit = parse_limit_flag("team:api=10/10s:1_000").unwrap();
        assert_eq!((limit.rule().limit(), limit.rule().capacity()), ("team:api", 1000));
    }

    #[test]
    fn a_wrong_limit_flag_says_what_is_allowed() {
        for (flag, part) in [
            ("api", "\"api\" is not like \"api=100/s\""),
            ("api=100/x", "rate \"100/x\" is not like"),
            ("api=100/s:many", "burst \"many\" must be a whole number"),
            ("api=100/s:0", "burst 0 must be from 1"),
            ("=100/s", "limit name \"\" must be 1 to 128"),
        ] {
            let error = parse_limit_flag(flag).unwrap_err().to_string();
            assert!(error.contains(part), "{flag}: {error}");
        }
    }
}
