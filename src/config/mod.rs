//! The configuration: from TOML, flags and defaults to values that can be relied on. The only place that knows keys
//! and defaults. It must not know what is done with them.

mod cluster;
mod error;
mod keys;
mod limits;
mod node;
mod overrides;
mod reader;
mod redis;
mod schema;
mod section;
mod summary;
mod values;
mod wording;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use spillgate_core::limit::Limits;
use spillgate_core::time::Nanos;
use toml::de::DeTable;

pub use self::redis::{MIN_PEERS_DEFAULT, REDIS_TIMEOUT_DEFAULT, RedisMode, RedisSection, RedisUrl, RedisUrlError};
pub use cluster::{
    CLUSTER_LISTEN_DEFAULT, CLUSTER_NAME_DEFAULT, ClusterSection, CredentialFiles, FORGET_AFTER_DEFAULT,
    GOSSIP_INTERVAL_DEFAULT, JOIN_TIMEOUT_DEFAULT, KEEP_ALIVE, STALE_AFTER_DEFAULT,
};
pub use error::{ConfigError, Problem, Problems};
pub use node::{HTTP_LISTEN_DEFAULT, MAX_KEYS_DEFAULT, RESP_LISTEN_DEFAULT, SNAPSHOT_INTERVAL_DEFAULT};
pub use overrides::{LimitFlagError, Overrides, parse_limit_flag};
pub use schema::json_schema;

use error::Place;
use reader::{Placed, Reader};
use section::Section;

/// The largest file that is taken for a secret, a token or a certificate, in bytes.
const NAMED_FILE_BYTES_MAX: u64 = 1 << 20;
/// The largest file that is taken for a configuration, in bytes: a hundred thousand overrides.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// All that a node is told, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This node.
    pub node: NodeConfig,
    /// Where applications ask.
    pub http: HttpConfig,
    /// Where Redis clients ask; `None`: nowhere.
    pub resp: Option<RespConfig>,
    /// The other nodes; `None`: a single node.
    pub cluster: Option<ClusterSection>,
    /// A central store; `None`: the nodes decide by themselves whatever happens.
    pub redis: Option<RedisSection>,
    /// Every named limit.
    pub limits: Limits,
}

/// This node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its name: 1 to 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends.
    pub id: String,
    /// How many keys are kept at once, at least 1000.
    pub max_keys: usize,
    /// Where snapshots are kept; `None`: nothing is kept over a restart.
    pub data_dir: Option<PathBuf>,
    /// How often a snapshot is written.
    pub snapshot_interval: Nanos,
}

/// Where applications ask; at least one of `listen` and `unix` is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// TCP address; port 0 picks a free one. Loopback, unless there is a `token_file`.
    pub listen: Option<SocketAddr>,
    /// Path of a Unix socket.
    pub unix: Option<PathBuf>,
    /// File with the bearer token that requests must carry.
    pub token_file: Option<PathBuf>,
}

/// Where Redis clients ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RespConfig {
    /// TCP address; port 0 picks a free one. Loopback, unless [`HttpConfig::token_file`] is there, whose token `AUTH`
    /// then takes.
    pub listen: SocketAddr,
}

impl Config {
    /// Reads the file at `path` (none: defaults alone), with `overrides` over it.
    ///
    /// Relative paths in the file start at its directory, those in `overrides` where the process stands. Files that
    /// the configuration names are not opened.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong, each with its line, its key, the value and what is allowed.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::read(path, overrides, |_| Ok(()))
    }

    /// Like [`Config::load`], and sees to it that every file the configuration names can be read and has content.
    ///
    /// # Errors
    /// [`ConfigError`], a file's at the line that names it.
    pub fn check(path: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::read(path, overrides, NamedFile::probe)
    }

    fn read(
        path: Option<&Path>,
        overrides: &Overrides,
        probe: impl Fn(&NamedFile) -> io::Result<()>,
    ) -> Result<Self, ConfigError> {
        let bytes = match path {
            None => Vec::new(),
            Some(path) => read_at_most(path, CONFIG_BYTES_MAX)
                .map_err(|error| ConfigError::Unreadable { path: path.to_path_buf(), error })?,
        };
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let good = &bytes[..error.valid_up_to()];
            let line = 1 + good.iter().filter(|b| **b == b'\n').count();
            let text = "not TOML: the text is not UTF-8".to_owned();
            Problems::new(path, vec![Problem::new(Place::Line(line), text)])
        })?;
        Self::parse(text, path, overrides, probe)
    }

    fn parse(
        text: &str,
        path: Option<&Path>,
        overrides: &Overrides,
        probe: impl Fn(&NamedFile) -> io::Result<()>,
    ) -> Result<Self, ConfigError> {
        let directory = path.and_then(Path::parent).unwrap_or(Path::new(""));
        let reader = Reader::new(text, directory);
        let table: DeTable<'_> = reader.parse().map_err(|problem| Problems::new(path, vec![problem]))?;
        let root = reader.root(keys::ROOT, &table);
        let mut files = Vec::new();
        let node = node::read_node(&root.table("node"), overrides);
        let http_section = root.table("http");
        let http = node::read_http(&http_section, overrides, &mut files);
        let resp = node::read_resp(&root.table("resp"), overrides, &http_section);
        let cluster = cluster::read_cluster(&root.table("cluster"), overrides, &mut files);
        let redis = redis::read_redis(&root.table("redis"), &mut files);
        let limits = limits::read_limits(&root, overrides);
        for file in &files {
            if let Err(error) = probe(file) {
                let hint = if file.key.ends_with("secret_file") { "; `spillgate secret` makes one" } else { "" };
                let text = format!("{} {}: {error}; it must be a file to read{hint}", file.key, file.path.display());
                reader.report(file.place, text);
            }
        }
        let problems = reader.into_problems();
        if problems.is_empty() {
            Ok(Self { node, http, resp, cluster, redis, limits })
        } else {
            Err(Problems::new(path, problems).into())
        }
    }
}

/// A file that the configuration names, and where it does.
struct NamedFile {
    /// Leads to the key in messages: `cluster.secret_file`.
    key: String,
    place: Place,
    path: PathBuf,
}

impl NamedFile {
    fn of(section: &Section<'_>, key: &str, path: &Placed<PathBuf>) -> Self {
        Self { key: section.path_of(key), place: path.place, path: path.value.clone() }
    }

    /// Whether it can be read and has content; what the content means is its reader's to judge.
    fn probe(&self) -> io::Result<()> {
        let bytes = read_at_most(&self.path, NAMED_FILE_BYTES_MAX)?;
        if bytes.trim_ascii().is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
        }
        Ok(())
    }
}

fn read_at_most(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let text = format!("the file has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}
