//! Starts daemons as processes, and ends them: everything a test starts goes with it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use spillgate::client::{Address, Client, ClientError};
use spillgate::cluster::ClusterSecret;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Far longer than anything takes on a machine that is not stuck.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The program under test.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_spillgate")
}

/// Waits until `condition` holds, or fails with `what`.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited {} s in vain until {what}", DEADLINE.as_secs());
        sleep(LOOK_EVERY).await;
    }
}

/// What a daemon is to be started with.
#[derive(Clone, Debug)]
pub struct Setup {
    pub name: String,
    /// The limits, as TOML.
    pub limits: String,
    /// More lines of `[node]`, `[http]` and `[cluster]`.
    pub node: String,
    pub http: String,
    pub cluster: String,
    /// `None`: a single node.
    pub secret: Option<PathBuf>,
    pub cluster_name: String,
    pub seeds: Vec<String>,
    /// UDP port; 0 picks a free one.
    pub cluster_port: u16,
    pub advertise: Option<SocketAddr>,
    /// Variables of its environment.
    pub variables: Vec<(String, String)>,
}

impl Setup {
    /// A node with these limits and no peers.
    pub fn single(limits: &str) -> Self {
        Self {
            name: "a".to_owned(),
            limits: limits.to_owned(),
            node: String::new(),
            http: String::new(),
            cluster: String::new(),
            secret: None,
            cluster_name: "test".to_owned(),
            seeds: Vec::new(),
            cluster_port: 0,
            advertise: None,
            variables: Vec::new(),
        }
    }

    /// The TOML.
    pub fn config(&self) -> String {
        let mut text = format!("[node]\nid = {:?}\n{}\n", self.name, self.node);
        write!(text, "[http]\nlisten = \"127.0.0.1:0\"\n{}\n", self.http).unwrap();
        if let Some(secret) = &self.secret {
            let Self { cluster_name, seeds, cluster_port, cluster, .. } = self;
            write!(
                text,
                "[cluster]\nname = {cluster_name:?}\nlisten = \"127.0.0.1:{cluster_port}\"\nseeds = {seeds:?}\n\
                 secret_file = {secret:?}\n{cluster}\n",
            )
            .unwrap();
            if let Some(advertise) = self.advertise {
                writeln!(text, "advertise = \"{advertise}\"").unwrap();
            }
        }
        text + &self.limits
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    pub name: String,
    pub http: SocketAddr,
    pub resp: Option<SocketAddr>,
    pub cluster: Option<SocketAddr>,
    pub setup: Setup,
    pub directory: Arc<TempDir>,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// Starts one and returns when it says where it listens.
    pub async fn start(directory: &Arc<TempDir>, setup: Setup) -> Self {
        match Self::try_start(directory, setup).await {
            Ok(daemon) => daemon,
            Err(log) => panic!("the daemon did not start:\n{log}"),
        }
    }

    /// The same; where it ends before it listens, what it said.
    pub async fn try_start(directory: &Arc<TempDir>, setup: Setup) -> Result<Self, String> {
        let file = directory.path().join(format!("{}.toml", setup.name));
        std::fs::write(&file, setup.config()).unwrap();
        let mut command = Command::new(program());
        for (variable, _) in std::env::vars_os().filter(|(v, _)| v.to_string_lossy().starts_with("SPILLGATE_")) {
            command.env_remove(variable);
        }
        command.args(["serve", "--config"]).arg(&file).env("SPILLGATE_LOG_FORMAT", "json");
        command.envs(setup.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = log.clone();
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().unwrap().push(line);
            }
        });
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(fields) = find(&log, "listening") {
                let address = |field: &str| fields[field].as_str().and_then(|a| a.parse().ok());
                let name = setup.name.clone();
                let (http, resp, cluster) = (address("http").unwrap(), address("resp"), address("cluster"));
                let directory = directory.clone();
                return Ok(Self { name, http, resp, cluster, setup, directory, child, log });
            }
            if child.try_wait().unwrap().is_some() {
                timeout(DEADLINE, reading).await.unwrap().unwrap();
                return Err(log.lock().unwrap().join("\n"));
            }
            assert!(Instant::now() < deadline, "no sign of life:\n{}", log.lock().unwrap().join("\n"));
            sleep(LOOK_EVERY).await;
        }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id().expect("it runs")).unwrap()
    }

    /// Sends a signal, by its name without SIG.
    pub fn signal(&self, signal: &str) {
        let status = std::process::Command::new("kill").args(["-s", signal, &self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "kill -s {signal}");
    }

    /// kill -9.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM, and waits for the end; panics unless it ended well.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        let status = timeout(DEADLINE, self.child.wait()).await.expect("it stops in time").unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Starts it again, as it was and at the same UDP port, after kill -9 if it still runs.
    pub async fn restart(mut self) -> Self {
        if self.runs() {
            self.kill().await;
        }
        let mut setup = self.setup.clone();
        setup.cluster_port = self.cluster.map_or(0, |c| c.port());
        Self::start(&self.directory, setup).await
    }

    /// Waits until it ends by itself: its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        timeout(DEADLINE, self.child.wait()).await.expect("it ends").unwrap().code()
    }

    /// Whether the process still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// How many log lines have `text` in them.
    pub fn logged(&self, text: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|l| l.contains(text)).count()
    }

    pub fn client(&self) -> Client {
        let address = Address::Tcp { host: self.http.ip().to_string(), port: self.http.port() };
        Client::new(address, None).unwrap()
    }

    pub async fn get(&self, path: &str) -> Value {
        self.client().get(path).await.unwrap_or_else(|e| panic!("GET {path} of {}: {e}", self.name))
    }

    /// The whole answer to `GET path`, head and all.
    pub async fn text(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.http);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub async fn post(&self, path: &str, body: Value) -> Result<Value, ClientError> {
        self.client().post(path, &body, Duration::from_secs(60)).await
    }

    /// One check under the limit `api`.
    pub async fn check(&self, key: &str, cost: u64) -> Value {
        let body = json!({"limit": "api", "key": key, "cost": cost});
        self.post("/v1/check", body).await.unwrap_or_else(|e| panic!("check at {}: {e}", self.name))
    }

    /// Tokens left of `key` under the limit `api`, as this node sees it.
    pub async fn level(&self, key: &str) -> f64 {
        self.get(&format!("/v1/keys/api/{key}")).await["level"].as_f64().unwrap()
    }

    pub async fn ready(&self) -> bool {
        self.client().get("/readyz").await.is_ok()
    }

    /// Names of the peers that are in this state.
    pub async fn peers(&self, state: &str) -> Vec<String> {
        let cluster = self.get("/v1/cluster").await;
        let members = cluster["members"].as_array().unwrap();
        let picked = members.iter().filter(|m| m["self"] != true && m["state"] == state);
        picked.map(|m| m["node"].as_str().unwrap().to_owned()).collect()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }
}

fn find(log: &Mutex<Vec<String>>, message: &str) -> Option<Value> {
    let log = log.lock().unwrap();
    let values = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    values.map(|v| v["fields"].clone()).find(|f| f["message"] == message)
}

/// Writes a cluster secret into a file of `directory`.
pub fn write_secret(directory: &Path, name: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let file = directory.join(name);
    std::fs::write(&file, ClusterSecret::generate().unwrap()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file
}

/// Starts `n` daemons, a, b, c, ..., that know one secret and these limits, and waits until all have met.
pub async fn start_cluster(n: usize, limits: &str) -> Vec<Daemon> {
    let directory = Arc::new(TempDir::new().unwrap());
    let secret = write_secret(directory.path(), "secret");
    let mut daemons: Vec<Daemon> = Vec::new();
    for i in 0..n {
        let setup = Setup {
            name: char::from(b'a' + u8::try_from(i).unwrap()).to_string(),
            secret: Some(secret.clone()),
            seeds: daemons.iter().filter_map(|d| d.cluster).map(|c| c.to_string()).collect(),
            ..Setup::single(limits)
        };
        daemons.push(Daemon::start(&directory, setup).await);
    }
    meet(&daemons).await;
    daemons
}

/// Waits until each of them is ready and hears of all others.
pub async fn meet(daemons: &[Daemon]) {
    for daemon in daemons {
        let all = async || daemon.peers("alive").await.len() + 1 == daemons.len() && daemon.ready().await;
        until("all have met", all).await;
    }
}
