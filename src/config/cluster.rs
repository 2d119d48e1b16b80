//! `[cluster]`: the section and the sense its values make together. It must not know how nodes talk.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use spillgate_core::time::Nanos;

use super::NamedFile;
use super::error::Place;
use super::overrides::{ADVERTISE_FLAG, CLUSTER_LISTEN_FLAG, Overrides, SECRET_FILE_FLAG, SEED_FLAG};
use super::reader::Placed;
use super::section::Section;

/// The name of a cluster unless told otherwise.
pub const CLUSTER_NAME_DEFAULT: &str = "spillgate";
/// Where nodes listen for one another unless told otherwise.
pub const CLUSTER_LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8471);
/// How often news goes out unless told otherwise.
pub const GOSSIP_INTERVAL_DEFAULT: Nanos = Nanos::from_millis(10);
/// How long a peer may be silent unless told otherwise.
pub const STALE_AFTER_DEFAULT: Nanos = Nanos::from_millis(200);
/// How long a silent peer keeps its share unless told otherwise.
pub const FORGET_AFTER_DEFAULT: Nanos = Nanos::from_secs(60);
/// How long a starting node waits for the cluster unless told otherwise.
pub const JOIN_TIMEOUT_DEFAULT: Nanos = Nanos::from_secs(5);
/// How often a node with nothing to tell speaks all the same.
pub const KEEP_ALIVE: Nanos = spillgate_core::gossip::KEEP_ALIVE;
/// So many frames in a row may be lost before a peer counts as silent.
const STALE_FRAMES: u64 = 4;

/// The nodes that count together with this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSection {
    /// Nodes of another name are strangers.
    pub name: String,
    /// UDP address of everything between nodes; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where others reach this node; `None`: worked out from `listen`. Never an unspecified address, never port 0.
    pub advertise: Option<SocketAddr>,
    /// `host:port` of nodes to ask for the others; names are to be resolved again and again.
    pub seeds: Vec<String>,
    /// What proves that a node belongs.
    pub credentials: CredentialFiles,
    /// How often news goes out, 1 ms to 1 s.
    pub gossip_interval: Nanos,
    /// How long a peer may be silent: at least 4 gossip intervals and 4 times [`KEEP_ALIVE`].
    pub stale_after: Nanos,
    /// How long a silent peer keeps its share: at least twice `stale_after`.
    pub forget_after: Nanos,
    /// How long to wait for the cluster before being ready all the same; may be zero.
    pub join_timeout: Nanos,
}

/// Files that prove that a node belongs; not opened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialFiles {
    /// The cluster's secret.
    Secret(PathBuf),
    /// This node's own certificate.
    Tls {
        /// PEM of the authorities.
        ca: PathBuf,
        /// PEM of the certificate and its chain.
        cert: PathBuf,
        /// PEM of its key.
        key: PathBuf,
    },
}

/// Reads `[cluster]`: `None` for a single node, and where the credentials are at fault, which is reported then.
pub(super) fn read_cluster(
    section: &Section<'_>,
    overrides: &Overrides,
    files: &mut Vec<NamedFile>,
) -> Option<ClusterSection> {
    if !section.is_present() && overrides.cluster_flag().is_none() {
        return None;
    }
    let credentials = read_credentials(section, overrides, files);
    let name = section.name("name").map_or_else(|| CLUSTER_NAME_DEFAULT.to_owned(), |n| n.value);
    let listen = or_file(overrides.cluster_listen, CLUSTER_LISTEN_FLAG, section.address("listen"));
    let advertise = or_file(overrides.advertise, ADVERTISE_FLAG, section.address("advertise"));
    if let Some(Placed { value, place }) = &advertise
        && (value.port() == 0 || value.ip().is_unspecified() || value.ip().is_multicast())
    {
        section.report(*place, &format!("advertise {value} must be one address and port that other nodes can dial"));
    }
    let given = section.seeds("seeds").map(|s| s.value);
    let seeds = if overrides.seeds.is_empty() { given.unwrap_or_default() } else { overrides.seeds.clone() };
    for error in overrides.seeds.iter().filter_map(|s| super::values::checked_seed(s).err()) {
        section.report(Place::Flag(SEED_FLAG), &error.to_string());
    }
    let times = read_times(section);
    let join_timeout = section.duration("join_timeout").map_or(JOIN_TIMEOUT_DEFAULT, |t| t.value);
    Some(ClusterSection {
        name,
        listen: listen.map_or(CLUSTER_LISTEN_DEFAULT, |l| l.value),
        advertise: advertise.map(|a| a.value),
        seeds,
        credentials: credentials?,
        gossip_interval: times.gossip_interval,
        stale_after: times.stale_after,
        forget_after: times.forget_after,
        join_timeout,
    })
}

fn or_file<T>(flag_value: Option<T>, flag: &'static str, given: Option<Placed<T>>) -> Option<Placed<T>> {
    flag_value.map(|value| Placed::by_flag(value, flag)).or(given)
}

struct Times {
    gossip_interval: Nanos,
    stale_after: Nanos,
    forget_after: Nanos,
}

/// The three times that only make sense together. One that is wrong by itself is not held against the others.
fn read_times(section: &Section<'_>) -> Times {
    let read = |name: &str, default: Nanos| match section.duration(name) {
        None if section.has(name) => None,
        given => Some(given.map_or(default, |t| t.value)),
    };
    let gossip = read("gossip_interval", GOSSIP_INTERVAL_DEFAULT);
    let stale = read("stale_after", STALE_AFTER_DEFAULT);
    let forget = read("forget_after", FORGET_AFTER_DEFAULT);
    // the key to blame is the one that was given; both given, the one that depends on the other
    let blamed = |dependent: &'static str, other: &'static str| {
        section.place(if section.has(dependent) || !section.has(other) { dependent } else { other })
    };
    if let (Some(gossip), Some(stale)) = (gossip, stale) {
        let least = gossip.max(KEEP_ALIVE).times(STALE_FRAMES);
        if stale < least {
            let text = format!(
                "stale_after {stale} must be at least {least}: {STALE_FRAMES} times the longer of gossip_interval \
                 ({gossip}) and the keep-alive of a quiet node ({KEEP_ALIVE}), or one that only has no news counts as \
                 silent"
            );
            section.report(blamed("stale_after", "gossip_interval"), &text);
        }
    }
    if let (Some(stale), Some(forget)) = (stale, forget)
        && forget < stale.times(2)
    {
        let least = stale.times(2);
        let text = format!(
            "forget_after {forget} must be at least {least}, twice stale_after ({stale}): a peer is silent \
             before it is forgotten"
        );
        section.report(blamed("forget_after", "stale_after"), &text);
    }
    Times {
        gossip_interval: gossip.unwrap_or(GOSSIP_INTERVAL_DEFAULT),
        stale_after: stale.unwrap_or(STALE_AFTER_DEFAULT),
        forget_after: forget.unwrap_or(FORGET_AFTER_DEFAULT),
    }
}

fn read_credentials(
    section: &Section<'_>,
    overrides: &Overrides,
    files: &mut Vec<NamedFile>,
) -> Option<CredentialFiles> {
    let secret = section.path("secret_file");
    let tls = section.table("tls");
    let tls_paths = tls.is_present().then(|| (tls.path("ca"), tls.path("cert"), tls.path("key")));
    if let Some(secret) = &overrides.secret_file {
        files.push(NamedFile::of(section, "secret_file", &Placed::by_flag(secret.clone(), SECRET_FILE_FLAG)));
        return Some(CredentialFiles::Secret(secret.clone()));
    }
    if section.has("secret_file") && section.has("tls") {
        let text = "tls and secret_file exclude each other: keep one of them";
        section.report(section.place("tls"), text);
        return None;
    }
    if let Some(secret) = secret {
        files.push(NamedFile::of(section, "secret_file", &secret));
        return Some(CredentialFiles::Secret(secret.value));
    }
    if let Some((ca, cert, key)) = tls_paths {
        let (ca, cert, key) = (ca?, cert?, key?);
        for (name, file) in [("ca", &ca), ("cert", &cert), ("key", &key)] {
            files.push(NamedFile::of(&tls, name, file));
        }
        return Some(CredentialFiles::Tls { ca: ca.value, cert: cert.value, key: key.value });
    }
    if !section.has("secret_file") && !section.has("tls") {
        let place = match overrides.cluster_flag() {
            Some(flag) if !section.is_present() => Place::Flag(flag),
            _ => section.place("secret_file"),
        };
        let text = format!(
            "secret_file ({SECRET_FILE_FLAG}) or [cluster.tls] is missing: nodes must prove that they belong; \
             `spillgate secret > cluster.secret` makes one, the same file for every node"
        );
        section.report(place, &text);
    }
    None
}
