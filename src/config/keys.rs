//! Every key of the file: its name, what it takes, its default and its meaning. The reader knows a key from here, and
//! the JSON Schema is made of it. It must not know how a value is used.

use spillgate_core::limit::{Accuracy, Algorithm, CAPACITY_MAX, OnPartition};
use spillgate_core::time::Nanos;

/// One key of a table.
pub(super) struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The default as TOML; none where there is no default, or where it is no constant.
    pub default: Option<&'static str>,
    /// Whether its table makes no sense without it.
    pub required: bool,
    /// What it does, with its unit and the default that is no constant.
    pub about: &'static str,
}

/// What a key takes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Text that its reader checks further.
    Text,
    /// The name of a node or a cluster.
    Name,
    /// A path; a relative one starts at the file's directory.
    Path,
    /// An IP address and a port.
    Address,
    /// A list of hosts with ports.
    Seeds,
    /// A duration, both ends included.
    Duration { least: Nanos, most: Nanos },
    /// Tokens a period.
    Rate,
    /// A whole number, both ends included.
    Count { least: u64, most: u64 },
    /// A part of a whole, above 0 where `above_zero`, at most 1.
    Fraction { above_zero: bool },
    /// Yes or no.
    Flag,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A table from names of the user's own to fractions.
    Fractions,
    /// A table.
    Table(&'static [Key]),
    /// An array of tables.
    Tables(&'static [Key]),
}

impl Kind {
    /// What is allowed, to follow "must be".
    pub fn expected(self) -> String {
        match self {
            Self::Text => "text in quotes".to_owned(),
            Self::Name => format!(
                "1 to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.' in quotes, with a letter or digit at both ends"
            ),
            Self::Path => "a path in quotes, not empty".to_owned(),
            Self::Address => "an IP address and a port like \"127.0.0.1:8470\" or \"[::1]:8470\"".to_owned(),
            Self::Seeds => "a list of hosts with ports like [\"10.0.0.1:8471\", \"node-b.example:8471\"]".to_owned(),
            Self::Duration { least, most } => format!("a duration from {least} to {most} like \"{}\"", like(least)),
            Self::Rate => "a rate like \"100/s\", \"5000/m\", \"1M/d\" or \"10/10s\"".to_owned(),
            Self::Count { least, most } => format!("a whole number from {least} to {most}"),
            Self::Fraction { above_zero: true } => {
                "a part above 0% and at most 100% like \"5%\" or 0.05; for none use accuracy = \"strict\"".to_owned()
            }
            Self::Fraction { above_zero: false } => "a part from 0% to 100% like \"20%\" or 0.2".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Choice(words) => format!("one of \"{}\"", words.join("\", \"")),
            Self::Fractions => "a table of priorities and parts like { low = 0.2 }".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Tables(_) => "an array of tables, its header in double brackets".to_owned(),
        }
    }
}

/// An example that lies in a range of durations.
fn like(least: Nanos) -> Nanos {
    if least < Nanos::SECOND { Nanos::from_millis(500) } else { least.times(10) }
}

/// The longest name of a node or a cluster: what one label of a DNS name holds, since both stand in certificates.
pub(super) const NAME_BYTES_MAX: usize = 63;
/// The fewest keys that a node can be told to keep.
pub(super) const MAX_KEYS_LEAST: u64 = 1_000;
/// The most: beyond that no machine's memory reaches.
pub(super) const MAX_KEYS_MOST: u64 = 1_000_000_000;

const SECOND: u64 = 1;
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

const fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, default: None, required: false, about }
}

impl Key {
    const fn defaults_to(mut self, toml: &'static str) -> Self {
        self.default = Some(toml);
        self
    }

    const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

const fn duration(least: Nanos, most: Nanos) -> Kind {
    Kind::Duration { least, most }
}

/// The whole file.
pub(super) static ROOT: &[Key] = &[
    key("node", Kind::Table(NODE), "This node."),
    key("http", Kind::Table(HTTP), "Where applications ask."),
    key("resp", Kind::Table(RESP), "Where Redis clients ask. Absent: nowhere."),
    key("cluster", Kind::Table(CLUSTER), "The other nodes. Absent: a single node, which counts alone."),
    key("redis", Kind::Table(REDIS), "A central store, to decide when the cluster is gone, or always. Absent: none."),
    key("limit", Kind::Tables(LIMIT), "A named limit; one [[limit]] each."),
];

static REDIS: &[Key] = &[
    key(
        "url",
        Kind::Text,
        "Where Redis is: redis://host:port, rediss:// for TLS, redis+unix:///path. Whether it is a Redis Cluster is found \
         out; several of its nodes may stand here with commas between them.",
    )
    .required(),
    key(
        "mode",
        Kind::Choice(&["fallback", "always"]),
        "fallback: Redis decides while this node is cut off from the cluster. always: Redis decides every check.",
    )
    .defaults_to("\"fallback\""),
    key(
        "timeout",
        duration(Nanos::from_millis(1), Nanos::from_secs(10)),
        "How long an answer may wait for Redis; after that the node decides by itself, on its share.",
    )
    .defaults_to("\"20ms\""),
    key(
        "min_peers",
        Kind::Count { least: 1, most: 1023 },
        "fallback: with fewer live peers than this, where others are configured, the node is cut off.",
    )
    .defaults_to("1"),
    key(
        "password_file",
        Kind::Path,
        "File with the password, so that it need not stand in url. Default: what url says.",
    ),
    key(
        "ca_file",
        Kind::Path,
        "PEM file of the authorities that sign the certificate of a rediss:// server. Default: the system's.",
    ),
];

static NODE: &[Key] = &[
    key(
        "id",
        Kind::Name,
        "The node's name: unlike any other in the cluster, and the same after a restart. Default: the host name.",
    ),
    key(
        "max_keys",
        Kind::Count { least: MAX_KEYS_LEAST, most: MAX_KEYS_MOST },
        "How many keys are kept at once, which bounds the memory (some hundred bytes a key at most). When it is full \
         the least informative keys go first: a full bucket loses nothing by going.",
    )
    .defaults_to("1_000_000"),
    key(
        "data_dir",
        Kind::Path,
        "Directory for snapshots of the table, so that quotas outlive a restart of the whole cluster; made where it is \
         not there, for this node alone. Default: nothing is kept over a restart.",
    ),
    key(
        "snapshot_interval",
        duration(Nanos::from_millis(100), Nanos::from_secs(HOUR)),
        "How often a snapshot is written to data_dir, and so how much a crash of all nodes can forget. One is written at \
         shutdown too.",
    )
    .defaults_to("\"10s\""),
];

static HTTP: &[Key] = &[
    key(
        "listen",
        Kind::Address,
        "TCP address of the HTTP API. One that other machines can reach needs token_file. With unix and without listen \
         there is no TCP at all.",
    )
    .defaults_to("\"127.0.0.1:8470\""),
    key(
        "unix",
        Kind::Path,
        "Path of a Unix socket with the same API, beside or instead of listen; cheaper than TCP. \
         Default: none.",
    ),
    key("token_file", Kind::Path, "File with the bearer token that requests must carry. Default: none is asked for."),
];

static RESP: &[Key] = &[key(
    "listen",
    Kind::Address,
    "TCP address of the Redis protocol. Where [http] has a token_file, AUTH is asked for with that token; an address \
         that other machines can reach needs it.",
)
.defaults_to("\"127.0.0.1:8472\"")];

static CLUSTER: &[Key] = &[
    key("name", Kind::Name, "The cluster's name; nodes of another name are strangers.").defaults_to("\"spillgate\""),
    key(
        "listen",
        Kind::Address,
        "UDP address for everything between nodes: membership, news and state transfer, all inside QUIC.",
    )
    .defaults_to("\"0.0.0.0:8471\""),
    key(
        "advertise",
        Kind::Address,
        "Address at which the other nodes reach this one. Default: that of listen, or, where listen is any address, \
         the one from which the machine's packets go out.",
    ),
    key(
        "seeds",
        Kind::Seeds,
        "Nodes to ask for the others, as host:port; one that answers is enough. Names are resolved again and again. A \
         node may list itself, so that all can have the same list. Empty for the first node.",
    )
    .defaults_to("[]"),
    key(
        "secret_file",
        Kind::Path,
        "File with the cluster's secret, the same on every node; `spillgate secret` makes one. It, or [cluster.tls], \
         is required.",
    ),
    key(
        "tls",
        Kind::Table(TLS),
        "Certificates instead of a secret, one node each: strangers are kept out, and members to their own names.",
    ),
    key(
        "gossip_interval",
        duration(Nanos::from_millis(1), Nanos::from_secs(SECOND)),
        "How often news goes out while there is some. Shorter is more exact, longer is fewer packets.",
    )
    .defaults_to("\"10ms\""),
    key(
        "stale_after",
        duration(Nanos::from_millis(1), Nanos::from_secs(600)),
        "How long a peer may be silent before it is assumed busy. At least 200ms and 4 gossip intervals.",
    )
    .defaults_to("\"200ms\""),
    key(
        "forget_after",
        duration(Nanos::from_secs(SECOND), Nanos::from_secs(7 * DAY)),
        "How long a silent peer keeps its share of a limit. At least twice stale_after.",
    )
    .defaults_to("\"60s\""),
    key(
        "join_timeout",
        duration(Nanos::ZERO, Nanos::from_secs(600)),
        "How long a starting node waits to hear from the cluster before it says that it is ready all the same.",
    )
    .defaults_to("\"5s\""),
];

static TLS: &[Key] = &[
    key("ca", Kind::Path, "PEM file of the authorities that sign the nodes' certificates.").required(),
    key("cert", Kind::Path, "PEM file of this node's certificate, its node id among the names, and the chain.")
        .required(),
    key("key", Kind::Path, "PEM file of the certificate's private key.").required(),
];

static LIMIT: &[Key] = &[
    key("name", Kind::Text, "What requests call it: 1 to 128 letters, digits, '-', '_', '.' or ':'.").required(),
    key(
        "algorithm",
        Kind::Choice(&[
            Algorithm::TokenBucket.as_str(),
            Algorithm::LeakyBucket.as_str(),
            Algorithm::FixedWindow.as_str(),
            Algorithm::SlidingWindow.as_str(),
        ]),
        "How tokens are counted. token-bucket: bursts, then the rate. leaky-bucket: an even flow, requests may be told \
         to wait. fixed-window: so many a window by the clock. sliding-window: the same without its jump at the edge.",
    )
    .defaults_to("\"token-bucket\""),
    key(
        "rate",
        Kind::Rate,
        "Tokens a period. Units: ms, s, m, h, d; k, M and G multiply. The period is also the window's length.",
    )
    .required(),
    key(
        "burst",
        Kind::Count { least: 1, most: CAPACITY_MAX },
        "Tokens a full bucket holds; not for windows. Default: one second's worth of the rate, at least 1.",
    ),
    key(
        "accuracy",
        Kind::Choice(&[
            Accuracy::Strict.as_str(),
            Accuracy::Bounded { max_overshoot: 1.0 }.as_str(),
            Accuracy::Gossip.as_str(),
        ]),
        "strict: never more than the limit, cluster-wide, at the price of some refusals. bounded: at most \
         max_overshoot more. gossip: whatever the local count allows.",
    )
    .defaults_to("\"bounded\""),
    key(
        "max_overshoot",
        Kind::Fraction { above_zero: true },
        "What bounded may admit beyond the limit, as a part of its capacity.",
    )
    .defaults_to("\"5%\""),
    key(
        "confirm_wait",
        duration(Nanos::ZERO, Nanos::from_secs(10)),
        "How long an answer may wait for peers to confirm, when only that is missing. \"0s\": never.",
    )
    .defaults_to("\"5ms\""),
    key(
        "on_partition",
        Kind::Choice(&[OnPartition::Share.as_str(), OnPartition::Continue.as_str(), OnPartition::Deny.as_str()]),
        "While peers are silent: share goes on with this node's share, continue takes the whole limit once they count \
         as dead, deny refuses.",
    )
    .defaults_to("\"share\""),
    key(
        "enforce",
        Kind::Flag,
        "false is a dry run: everything is allowed, and what would have been refused is counted.",
    )
    .defaults_to("true"),
    key(
        "max_delay",
        duration(Nanos::from_millis(1), Nanos::from_secs(HOUR)),
        "leaky-bucket only: how long a request may be asked to wait. Default: as long as the bucket is deep.",
    ),
    key(
        "reserve",
        Kind::Fractions,
        "Priorities that may not take the last part of the capacity: { low = 0.2 } leaves 20 % to the others. \
         Requests of priority normal are never held back.",
    ),
    key(
        "override",
        Kind::Tables(OVERRIDE),
        "Another rate or burst for some keys; one [[limit.override]] each. An exact key wins over a prefix, a longer \
         prefix over a shorter.",
    ),
];

static OVERRIDE: &[Key] = &[
    key("key", Kind::Text, "The key, 1 to 1024 bytes; `*` at its end matches every key that starts so.").required(),
    key("rate", Kind::Rate, "Instead of the limit's rate. One of rate and burst is required."),
    key(
        "burst",
        Kind::Count { least: 1, most: CAPACITY_MAX },
        "Instead of the limit's burst. Default: one second's worth where rate is given here, else the limit's.",
    ),
];
