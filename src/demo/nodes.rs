//! The daemons as child processes: configuration, start, what they log, stop. It must not know the load.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::Plan;
use crate::client::{Address, Client};
use crate::cluster::ClusterSecret;
use crate::logs::{FILTER_VARIABLE, FORMAT_VARIABLE};

/// How long the daemons may take to listen, and to find one another.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a daemon may take to leave.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether all have met.
const LOOK_EVERY: Duration = Duration::from_millis(20);

struct Node {
    name: String,
    child: Child,
    http: SocketAddr,
}

/// Daemons that run.
pub(super) struct Nodes {
    nodes: Vec<Node>,
    addresses: Vec<SocketAddr>,
    _directory: TempDir,
}

impl Nodes {
    /// Starts all of them and returns when each counts every other in; what comes with them tells when one has ended.
    pub(super) async fn start(plan: &Plan) -> anyhow::Result<(Self, Ended)> {
        let directory = TempDir::with_prefix("spillgate-demo-").context("cannot make a directory for the demo")?;
        let secret = directory.path().join("secret");
        std::fs::write(&secret, ClusterSecret::generate()?).context("cannot write the demo's secret")?;
        restrict(&secret)?;
        let (report, ended) = mpsc::unbounded_channel();
        let mut nodes: Vec<Node> = Vec::new();
        let mut seed = None;
        for i in 0..plan.nodes {
            let name = node_name(i);
            let file = directory.path().join(format!("{name}.toml"));
            std::fs::write(&file, config(plan, &name, seed)).context("cannot write the demo's configuration")?;
            let (node, cluster) = spawn(name, &file, report.clone()).await?;
            seed = seed.or(cluster);
            nodes.push(node);
        }
        let addresses = nodes.iter().map(|n| n.http).collect();
        let nodes = Self { nodes, addresses, _directory: directory };
        nodes.meet().await?;
        Ok((nodes, Ended(ended)))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|n| n.name.as_str())
    }

    /// Where their HTTP APIs listen.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until every node is ready and hears of all others.
    async fn meet(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        for node in &self.nodes {
            while self.heard(node).await.len() + 1 < self.nodes.len() || !ready(node).await {
                if Instant::now() > deadline {
                    bail!("the daemons did not find one another within {} s", START_TIMEOUT.as_secs());
                }
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// Ages in milliseconds of the last news of each peer that counts as alive.
    async fn heard(&self, node: &Node) -> Vec<f64> {
        let Ok(cluster) = client(node.http).get("/v1/cluster").await else { return Vec::new() };
        let members = cluster["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        let alive = members.iter().filter(|m| m["self"] != true && m["state"] == "alive");
        alive.filter_map(|m| m["news_age_ms"].as_f64()).collect()
    }

    /// The age of the oldest news that any node has of any other; none for a single node.
    pub(super) async fn slowest_news(&self) -> anyhow::Result<Option<Duration>> {
        let mut slowest: Option<f64> = None;
        for node in &self.nodes {
            slowest = self.heard(node).await.into_iter().chain(slowest).reduce(f64::max);
        }
        Ok(slowest.map(|ms| Duration::from_secs_f64(ms / 1e3)))
    }

    /// Has all of them leave, and waits for it.
    pub(super) async fn stop(mut self) {
        for node in &self.nodes {
            if let Some(pid) = node.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
                // it may have ended already
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        for node in &mut self.nodes {
            // what is still there is killed when dropped
            let _ = timeout(STOP_TIMEOUT, node.child.wait()).await;
        }
    }
}

/// Tells when a daemon has ended by itself.
pub(super) struct Ended(mpsc::UnboundedReceiver<String>);

impl Ended {
    /// Returns when one has: why.
    pub(super) async fn wait(&mut self) -> anyhow::Error {
        let why = self.0.recv().await;
        anyhow!("a daemon ended by itself: {}", why.as_deref().unwrap_or("no reason is known"))
    }
}

fn client(http: SocketAddr) -> Client {
    let address = Address::Tcp { host: http.ip().to_string(), port: http.port() };
    Client::new(address, None).expect("only a token file could be at fault, and there is none")
}

async fn ready(node: &Node) -> bool {
    client(node.http).get("/readyz").await.is_ok()
}

/// a, b, ... z, then n27 and so on.
fn node_name(i: usize) -> String {
    u8::try_from(i).ok().filter(|i| *i < 26).map_or_else(|| format!("n{}", i + 1), |i| char::from(b'a' + i).to_string())
}

fn restrict(file: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).context("cannot restrict the demo's secret")
}

fn config(plan: &Plan, name: &str, seed: Option<SocketAddr>) -> String {
    let seeds = seed.map(|s| format!("{:?}", s.to_string())).unwrap_or_default();
    let cluster = format!(
        "[cluster]\nname = \"demo\"\nlisten = \"127.0.0.1:0\"\nseeds = [{seeds}]\nsecret_file = \"secret\"\n\n"
    );
    format!(
        "[node]\nid = {name:?}\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n{}[[limit]]\nname = \"demo\"\nrate = \"{}\"\n\
         burst = {}\naccuracy = {:?}\n",
        if plan.nodes > 1 { cluster.as_str() } else { "" },
        plan.rate,
        plan.burst,
        plan.accuracy,
    )
}

/// Starts one daemon and waits until it says where it listens: for HTTP, and for other nodes.
async fn spawn(
    name: String,
    file: &Path,
    ended: mpsc::UnboundedSender<String>,
) -> anyhow::Result<(Node, Option<SocketAddr>)> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    // the user's own variables are for the user's own daemon
    for (variable, _) in std::env::vars_os().filter(|(v, _)| v.to_string_lossy().starts_with("SPILLGATE_")) {
        command.env_remove(variable);
    }
    let mut child = command
        .args(["serve", "--config"])
        .arg(file)
        .env(FORMAT_VARIABLE, "json")
        .env(FILTER_VARIABLE, "info")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start a daemon")?;
    let stderr = child.stderr.take().context("a daemon has no standard error")?;
    let (listening, mut addresses) = mpsc::channel(1);
    tokio::spawn(read_log(name.clone(), BufReader::new(stderr), listening, ended));
    let start = timeout(START_TIMEOUT, addresses.recv()).await;
    let fields = start.with_context(|| format!("daemon {name} did not start in time"))?;
    let Some(fields) = fields else { bail!("daemon {name} could not start: see what it says above") };
    let address = |field: &str| fields[field].as_str().and_then(|a| a.parse().ok());
    let http = address("http").with_context(|| format!("daemon {name} does not say where it listens"))?;
    Ok((Node { name, child, http }, address("cluster")))
}

/// Reads a daemon's log: hands on where it listens, and what it said last when it ends.
async fn read_log(
    name: String,
    log: BufReader<tokio::process::ChildStderr>,
    listening: mpsc::Sender<Value>,
    ended: mpsc::UnboundedSender<String>,
) {
    let mut lines = log.lines();
    let mut last = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str::<Value>(&line) {
            Ok(value) => {
                let fields = &value["fields"];
                if fields["message"] == "listening" {
                    // full: it has said so before
                    let _ = listening.try_send(fields.clone());
                }
                last = fields["message"].as_str().unwrap_or_default().to_owned();
            }
            // not a log line: an error that ended it
            Err(_) => {
                eprintln!("{line}");
                last = line;
            }
        }
    }
    // nobody listens any more when the demonstration is over
    let _ = ended.send(format!("{name}: {last}"));
}
