//! Secrets: in no log, no answer and no file that others may read, whatever is asked and however much is logged.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use crate::daemon::{Daemon, Setup, until};
use crate::nodes::member;

const LIMIT: &str = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 100\n";
const TOKEN: &str = "token-0f8a6c1e2b7d4953";

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn secrets_stand_in_no_log_no_answer_and_no_file_though_everything_is_logged() {
    let directory = Arc::new(TempDir::new().unwrap());
    let token = directory.path().join("token");
    write(&token, TOKEN, 0o600);
    let setup = |name: &str, seeds| Setup {
        seeds,
        node: format!("data_dir = \"data-{name}\"\nsnapshot_interval = \"100ms\""),
        http: "token_file = \"token\"".to_owned(),
        variables: vec![("SPILLGATE_LOG".to_owned(), "trace".to_owned())],
        ..member(&directory, name, LIMIT)
    };
    let a = Daemon::start(&directory, setup("a", vec![])).await;
    let mut b = Daemon::start(&directory, setup("b", vec![a.cluster.unwrap().to_string()])).await;
    let right = format!("Bearer {TOKEN}");
    let headers = [("content-type", "application/json"), ("authorization", right.as_str())];
    let mut connection = b.connect().await;
    until("both have met", async || connection.ask("GET", "/v1/cluster", &headers, b"").await.text().contains("alive"))
        .await;
    let body = json!({"limit": "api", "key": "k"}).to_string();
    let mut said = String::new();
    for path in ["/v1/check", "/v1/refund", "/v1/reset", "/v1/reload", "/nowhere"] {
        said += connection.ask("POST", path, &headers, body.as_bytes()).await.text();
    }
    for path in ["/v1/limits", "/v1/keys/api/k", "/v1/top", "/v1/cluster", "/metrics", "/readyz"] {
        said += connection.ask("GET", path, &headers, b"").await.text();
    }
    // nearly the right one: what was sent is not told either
    let wrong = format!("Bearer {TOKEN}x");
    said += connection.ask("GET", "/v1/cluster", &[("authorization", wrong.as_str())], b"").await.text();
    b.stop().await;
    assert!(a.log().len() > 10_000, "everything was to be logged");
    said += &a.log();
    said += &b.log();
    let secret = fs::read_to_string(directory.path().join("secret")).unwrap();
    let (secret, bare) = (secret.trim(), secret.trim().trim_start_matches("spillgate-"));
    for hidden in [secret, bare, TOKEN] {
        assert!(!said.contains(hidden), "a secret was told: {:?}", said.lines().find(|line| line.contains(hidden)));
    }
    let mut snapshots = 0;
    for path in files(directory.path()).into_iter().filter(|path| path.to_string_lossy().contains("data-")) {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!([secret, bare, TOKEN].iter().all(|hidden| !text.contains(hidden)), "{}", path.display());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        snapshots += 1;
    }
    assert!(snapshots >= 1);
}

#[tokio::test]
async fn a_file_with_a_secret_that_everybody_may_read_is_complained_of() {
    for (mode, complaints) in [(0o644, 2), (0o640, 0), (0o600, 0)] {
        let directory = Arc::new(TempDir::new().unwrap());
        let token = directory.path().join("token");
        write(&token, TOKEN, mode);
        let setup = Setup { http: "token_file = \"token\"".to_owned(), ..member(&directory, "a", LIMIT) };
        fs::set_permissions(directory.path().join("secret"), Permissions::from_mode(mode)).unwrap();
        let daemon = Daemon::start(&directory, setup).await;
        assert_eq!(daemon.logged("every user of this machine may open"), complaints, "{mode:o}: {}", daemon.log());
    }
}
