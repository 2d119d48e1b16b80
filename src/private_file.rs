//! Files with secrets: a complaint about those that everybody may read. It must not know what is in them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Whom of this machine's users the file lets in beside its owner, of those it should not: everybody. A group is let in
/// on purpose, as Kubernetes does with the secrets that it mounts.
const EVERYBODY: u32 = 0o007;

/// Warns when every user of the machine may open the file at `path`, which holds `what`. It is used all the same: a node
/// that does not start protects nothing.
pub fn complain_if_public(path: &Path, what: &str) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode();
    if mode & EVERYBODY != 0 {
        tracing::warn!(
            path = %path.display(), mode = format_args!("{:03o}", mode & 0o777),
            "every user of this machine may open the file with {what}; `chmod 600` it"
        );
    }
}
