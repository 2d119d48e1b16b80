//! What keeps a daemon from starting: code 3 where something is taken, 2 where the configuration is at fault; the
//! message names what is wrong and the remedy, and nothing is left behind.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use crate::command::{run, run_in};
use crate::daemon::write_secret;

/// Writes `a.toml`, and has a daemon start from it that must not.
async fn refused(directory: &Path, config: &str, code: i32, parts: &[&str]) {
    std::fs::write(directory.join("a.toml"), config).unwrap();
    run_in(directory, &["serve", "--config", "a.toml"]).await.assert_fails(code, parts);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let directory = TempDir::new().unwrap();
    let secret = write_secret(directory.path(), "secret");
    let secret = secret.to_str().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (http, cluster) = (tcp.local_addr().unwrap().to_string(), udp.local_addr().unwrap().to_string());
    let taken = run(&["serve", "--limit", "api=1/s", "--http", &http]).await;
    taken.assert_fails(3, &["could not start", &http, "in use", "--http"]);
    let args =
        ["serve", "--node-id", "a", "--http", "127.0.0.1:0", "--secret-file", secret, "--cluster-listen", &cluster];
    run(&args).await.assert_fails(3, &["could not start", &format!("UDP {cluster}"), "in use"]);
    // an address that this machine does not have
    run(&["serve", "--http", "127.0.0.1:0", "--secret-file", secret, "--cluster-listen", "192.0.2.1:8471"])
        .await
        .assert_fails(3, &["192.0.2.1:8471"]);
    let config = "[http]\nunix = \"nowhere/api.sock\"\n";
    refused(directory.path(), config, 3, &["could not start", "nowhere/api.sock"]).await;
    // a file that is no socket is not taken away
    std::fs::write(directory.path().join("file"), "precious").unwrap();
    refused(directory.path(), "[http]\nunix = \"file\"\n", 3, &["file", "in use"]).await;
    assert_eq!(std::fs::read(directory.path().join("file")).unwrap(), b"precious");
}

#[tokio::test]
async fn a_secret_that_proves_nothing_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let config = "node.id = \"a\"\nhttp.listen = \"127.0.0.1:0\"\n[cluster]\nlisten = \"127.0.0.1:0\"\n\
                  secret_file = \"secret\"\n";
    refused(path, config, 2, &["a.toml:5: cluster.secret_file", "secret", "`spillgate secret` makes one"]).await;
    std::fs::create_dir(path.join("secret")).unwrap();
    refused(path, config, 2, &["a.toml:5: cluster.secret_file", "must be a file to read"]).await;
    std::fs::remove_dir(path.join("secret")).unwrap();
    for (text, part) in [
        (&b""[..], "the file is empty"),
        (b"  \n\n", "the file is empty"),
        (b"short-secret", "has a line of 12 bytes, 16 are the least"),
        (b"0123456789abcdef\n0123456789abcdef\n0123456789abcdef\n", "has 3 lines"),
        (&[0xff; 64], "is not text"),
    ] {
        std::fs::write(path.join("secret"), text).unwrap();
        refused(path, config, 2, &["secret", part]).await;
    }
    // root may read anything; whoever runs this as somebody else sees that it is said
    std::fs::write(path.join("secret"), "0123456789abcdef").unwrap();
    std::fs::set_permissions(path.join("secret"), std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(path.join("secret")).is_err() {
        refused(path, config, 2, &["a.toml:5: cluster.secret_file", "denied"]).await;
    }
    let none = "[cluster]\nlisten = \"127.0.0.1:0\"\n";
    refused(path, none, 2, &["a.toml:1: ", "secret_file", "is missing", "`spillgate secret > cluster.secret`"]).await;
    run(&["serve", "--seed", "127.0.0.1:1"]).await.assert_fails(2, &["--seed", "--secret-file", "is missing"]);
}

#[tokio::test]
async fn a_bad_configuration_is_explained_with_line_key_value_and_remedy() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let limit = |lines: &str| format!("[[limit]]\nname = \"api\"\n{lines}\n");
    for (config, parts) in [
        (limit("rate = \"100/x\""), &["a.toml:3: limit \"api\": rate \"100/x\" is not like"][..]),
        (limit("rate = \"0/s\""), &["a.toml:3: ", "\"0/s\""]),
        (limit("rate = \"1/s\"\nburst = 0"), &["a.toml:4: ", "burst 0 must be"]),
        (limit("rate = \"1/s\"\naccuracy = \"strikt\""), &["a.toml:4: ", "\"strikt\"", "did you mean \"strict\"?"]),
        (limit("rate = \"1/s\"\nenforce = \"no\""), &["a.toml:4: ", "enforce \"no\" must be"]),
        (limit("rate = \"1/s\"\nburts = 5"), &["a.toml:4: ", "burts is not a known key; did you mean \"burst\"?"]),
        ("[nod]\nid = \"a\"\n".to_owned(), &["a.toml:1: nod is not a known key; did you mean \"node\"?"]),
        ("[node]\nid = \"a b\"\n".to_owned(), &["a.toml:2: ", "\"a b\" must be"]),
        ("[node]\nmax_keys = 5\n".to_owned(), &["a.toml:2: ", "max_keys 5 must be", "1000"]),
        ("[http]\nlisten = \"8470\"\n".to_owned(), &["a.toml:2: ", "listen \"8470\" must be"]),
        ("[http\n".to_owned(), &["a.toml:1: "]),
        (format!("{}{}", limit("rate = \"1/s\""), limit("rate = \"1/s\"")), &["a.toml:5: ", "\"api\""]),
    ] {
        refused(path, &config, 2, parts).await;
    }
    std::fs::write(path.join("a.toml"), b"[node]\nid = \"\xff\"\n").unwrap();
    run_in(path, &["serve", "--config", "a.toml"])
        .await
        .assert_fails(2, &["a.toml:2: not TOML: the text is not UTF-8"]);
    run_in(path, &["serve", "--config", "b.toml"])
        .await
        .assert_fails(2, &["b.toml: cannot read", "name one that exists"]);
    run_in(path, &["serve", "--config", "."]).await.assert_fails(2, &["cannot read the configuration file"]);
    run(&["serve", "--limit", "api"]).await.assert_fails(2, &["--limit", "api"]);
    run(&["serve", "--limit", "api=1/s:0"]).await.assert_fails(2, &["--limit", "0"]);
    run(&["serve", "--lmit", "api=1/s"]).await.assert_fails(2, &["--lmit", "--limit"]);
}

#[tokio::test]
async fn an_open_door_needs_a_token_that_can_be_read() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8470"] {
        let config = format!("[http]\nlisten = \"{open}\"\n");
        refused(path, &config, 2, &["a.toml:2: ", open, "token_file"]).await;
        run(&["serve", "--http", open]).await.assert_fails(2, &["--http", open, "token"]);
    }
    let config = "[http]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n";
    refused(path, config, 2, &["a.toml:3: http.token_file", "token", "must be a file to read"]).await;
    std::fs::write(path.join("token"), "\n").unwrap();
    refused(path, config, 2, &["a.toml:3: http.token_file", "the file is empty"]).await;
    for bad in ["two words", "zwei\nzeilen", "tök"] {
        std::fs::write(path.join("token"), bad).unwrap();
        refused(path, config, 2, &["token\"", "visible ASCII", "openssl rand -hex 32"]).await;
    }
}
