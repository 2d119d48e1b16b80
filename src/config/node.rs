//! `[node]`, `[http]` and `[resp]`: what concerns this node alone. It must not know peers or limits.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use spillgate_core::time::Nanos;

use super::error::Place;
use super::overrides::{HTTP_FLAG, NODE_ID_FLAG, Overrides, RESP_FLAG, TOKEN_FILE_FLAG};
use super::reader::Placed;
use super::section::Section;
use super::values::is_name;
use super::{HttpConfig, NamedFile, NodeConfig, RespConfig};

/// Where the HTTP API listens unless told otherwise.
pub const HTTP_LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8470);
/// Where the Redis protocol is spoken, where it is and nothing else is said.
pub const RESP_LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8472);
/// How many keys a node keeps unless told otherwise.
pub const MAX_KEYS_DEFAULT: usize = 1_000_000;
/// How often a snapshot is written unless told otherwise.
pub const SNAPSHOT_INTERVAL_DEFAULT: Nanos = Nanos::from_secs(10);
/// The longest path of a Unix socket, in bytes: `sun_path` less its end, on the systems that have the shortest.
const UNIX_PATH_BYTES_MAX: usize = 103;

/// Reads `[node]`.
pub(super) fn read_node(section: &Section<'_>, overrides: &Overrides) -> NodeConfig {
    let given = section.name("id");
    let id = match &overrides.node_id {
        Some(id) => Placed::by_flag(id.clone(), NODE_ID_FLAG),
        None => given.unwrap_or_else(|| Placed::by_default(host_name())),
    };
    // a bad id of the file has been reported, and need not be again for the host's name
    let unreported = id.place != Place::Unset || !section.has("id");
    if unreported && !is_name(&id.value) {
        let origin = if id.place == Place::Unset { "the host name, " } else { "" };
        let allowed = super::keys::Kind::Name.expected();
        let text = format!("id {:?} ({origin}set by {NODE_ID_FLAG} or [node] id) must be {allowed}", id.value);
        section.report(id.place, &text);
    }
    let max_keys = section.count("max_keys").and_then(|n| usize::try_from(n.value).ok());
    let data_dir = section.path("data_dir").map(|p| p.value);
    let every = section.duration("snapshot_interval").map(|d| d.value);
    NodeConfig {
        id: id.value,
        max_keys: max_keys.unwrap_or(MAX_KEYS_DEFAULT),
        data_dir: overrides.data_dir.clone().or(data_dir),
        snapshot_interval: every.unwrap_or(SNAPSHOT_INTERVAL_DEFAULT),
    }
}

fn host_name() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// Reads `[http]`; the files it names are added to `files`.
pub(super) fn read_http(section: &Section<'_>, overrides: &Overrides, files: &mut Vec<NamedFile>) -> HttpConfig {
    let unix = section.path("unix");
    if let Some(unix) = &unix {
        check_unix_path(section, unix);
    }
    let given = section.address("listen");
    let listen = match overrides.http {
        Some(listen) => Some(Placed::by_flag(listen, HTTP_FLAG)),
        None if section.has("listen") || section.has("unix") => given,
        None => Some(Placed::by_default(HTTP_LISTEN_DEFAULT)),
    };
    let given = section.path("token_file");
    let token_file = match &overrides.token_file {
        Some(path) => Some(Placed::by_flag(path.clone(), TOKEN_FILE_FLAG)),
        None => given,
    };
    if let Some(listen) = &listen
        && token_file.is_none()
        && !section.has("token_file")
    {
        check_loopback(section, listen, "token_file");
    }
    if let Some(file) = &token_file {
        files.push(NamedFile::of(section, "token_file", file));
    }
    HttpConfig { listen: listen.map(|l| l.value), unix: unix.map(|u| u.value), token_file: token_file.map(|t| t.value) }
}

/// Reads `[resp]`; `http` says whether there is a token. The flag alone brings the section about.
pub(super) fn read_resp(section: &Section<'_>, overrides: &Overrides, http: &Section<'_>) -> Option<RespConfig> {
    let given = section.address("listen");
    let listen = match overrides.resp {
        Some(listen) => Placed::by_flag(listen, RESP_FLAG),
        None if !section.is_present() => return None,
        None => given.unwrap_or_else(|| Placed::by_default(RESP_LISTEN_DEFAULT)),
    };
    if overrides.token_file.is_none() && !http.has("token_file") {
        check_loopback(section, &listen, "[http] token_file");
    }
    Some(RespConfig { listen: listen.value })
}

/// Reports an address that other machines can reach, where there is no token to keep them out.
fn check_loopback(section: &Section<'_>, listen: &Placed<SocketAddr>, token_file: &str) {
    if listen.value.ip().to_canonical().is_loopback() {
        return;
    }
    let (address, port) = (listen.value, listen.value.port());
    let text = format!(
        "listen {address} can be reached from other machines and needs {token_file} ({TOKEN_FILE_FLAG}); \
         or listen on 127.0.0.1:{port}"
    );
    section.report(listen.place, &text);
}

fn check_unix_path(section: &Section<'_>, unix: &Placed<PathBuf>) {
    let path: &Path = &unix.value;
    let bytes = path.as_os_str().len();
    if bytes > UNIX_PATH_BYTES_MAX {
        let text = format!("unix has {bytes} bytes, the path of a socket must have at most {UNIX_PATH_BYTES_MAX}");
        section.report(unix.place, &text);
    }
}
