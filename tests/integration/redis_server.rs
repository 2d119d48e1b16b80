//! Starts Redis servers and clusters of them, as processes; everything a test starts goes with it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, IntoConnectionInfo as _, TlsCertificates,
};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::daemon::until;

/// A running server; killed when dropped.
pub struct Redis {
    pub port: u16,
    arguments: Vec<String>,
    password: Option<String>,
    ca: Option<Vec<u8>>,
    directory: TempDir,
    child: Child,
}

/// A port that was free a moment ago: Redis can't be told to pick one itself.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Redis {
    /// One that keeps nothing and asks for nothing.
    pub async fn start() -> Self {
        Self::start_with(&[], None, None).await
    }

    /// One that is told more, and how to get into it.
    pub async fn start_with(arguments: &[&str], password: Option<&str>, ca: Option<Vec<u8>>) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
        // somebody else may take the port in between
        for _ in 0..10 {
            let port = free_port();
            let directory = TempDir::new().unwrap();
            let mut child = spawn(port, ca.is_some(), &arguments, directory.path());
            if listens(port, &mut child).await {
                let password = password.map(str::to_owned);
                let redis = Self { port, arguments, password, ca, directory, child };
                redis.answers().await;
                return redis;
            }
        }
        panic!("redis-server does not start; is it installed?");
    }

    async fn answers(&self) {
        until("Redis answers", async || self.try_ask::<String>(&redis::cmd("PING")).await.is_ok()).await;
    }

    /// kill -9.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again, empty, at the same port.
    pub async fn start_again(&mut self) {
        self.child = spawn(self.port, self.ca.is_some(), &self.arguments, self.directory.path());
        self.answers().await;
    }

    /// Sends a signal, by its name without SIG.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(std::process::Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// Where it is, with its password.
    pub fn url(&self) -> String {
        let scheme = if self.ca.is_some() { "rediss" } else { "redis" };
        let password = self.password.as_ref().map(|p| format!(":{p}@")).unwrap_or_default();
        format!("{scheme}://{password}127.0.0.1:{}", self.port)
    }

    /// `[redis]` for it.
    pub fn section(&self, more: &str) -> String {
        format!("[redis]\nurl = \"{}\"\n{more}\n", self.url())
    }

    async fn connection(&self) -> redis::RedisResult<MultiplexedConnection> {
        let info: ConnectionInfo = self.url().as_str().into_connection_info()?;
        let client = match &self.ca {
            Some(ca) => {
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(ca.clone()) })?
            }
            None => Client::open(info)?,
        };
        let patient = Duration::from_secs(10);
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(patient)).set_response_timeout(Some(patient));
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    pub async fn try_ask<T: FromRedisValue>(&self, command: &Cmd) -> redis::RedisResult<T> {
        command.query_async(&mut self.connection().await?).await
    }

    /// Asks it something by the words of the command.
    pub async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        self.try_ask(&command).await.unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    /// Tokens that it counts as used of a bucket, as of when it was asked last; 0 where it knows nothing.
    pub async fn used(&self, key: &str, limit: &str) -> f64 {
        let keys: Vec<String> = self.ask(&["KEYS", &format!("spillgate:*:{{{key}}}:{limit}")]).await;
        let Some(key) = keys.first() else { return 0.0 };
        let text: String = self.ask(&["GET", key]).await;
        text.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

fn spawn(port: u16, tls: bool, arguments: &[String], directory: &Path) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]).arg(directory);
    if tls {
        command.args(["--port", "0", "--tls-port", &port.to_string()]);
    } else {
        command.args(["--port", &port.to_string()]);
    }
    command.args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().expect("redis-server, of Debian's package redis-server")
}

/// Whether something listens there before the process ends.
async fn listens(port: u16, child: &mut Child) -> bool {
    let mut ended = false;
    until("redis-server listens, or ends", async || {
        ended = child.try_wait().unwrap().is_some();
        ended || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await;
    !ended
}

/// Three masters of one Redis Cluster, each with a third of the slots.
pub struct RedisCluster {
    pub masters: Vec<Redis>,
}

impl RedisCluster {
    pub async fn start() -> Self {
        let mut masters = Vec::new();
        for _ in 0..3 {
            let bus = free_port().to_string();
            let arguments = [
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "1000",
                "--cluster-require-full-coverage",
                "no",
                "--cluster-announce-ip",
                "127.0.0.1",
            ];
            masters.push((Redis::start_with(&arguments, None, None).await, bus));
        }
        let (first, _) = &masters[0];
        for (other, bus) in &masters[1..] {
            first.ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), bus]).await;
        }
        for ((master, _), [from, to]) in masters.iter().zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]]) {
            master.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", from, to]).await;
        }
        let cluster = Self { masters: masters.into_iter().map(|(master, _)| master).collect() };
        for master in &cluster.masters {
            until("the Redis Cluster is whole", async || {
                let info: String = master.ask(&["CLUSTER", "INFO"]).await;
                info.contains("cluster_state:ok")
                    && info.contains("cluster_known_nodes:3")
                    && info.contains("cluster_slots_ok:16384")
            })
            .await;
        }
        cluster
    }

    /// `[redis]` for it, by one of its nodes.
    pub fn section(&self, more: &str) -> String {
        let urls: Vec<String> = self.masters.iter().map(Redis::url).collect();
        format!("[redis]\nurl = \"{}\"\n{more}\n", urls.join(","))
    }

    /// Which master has the slot of `key`'s hash tag.
    pub async fn master_of(&self, key: &str) -> usize {
        let slot: u16 = self.masters[0].ask(&["CLUSTER", "KEYSLOT", key]).await;
        match slot {
            0..=5460 => 0,
            5461..=10922 => 1,
            _ => 2,
        }
    }
}

/// An authority, and a certificate of it for 127.0.0.1, as PEM files: (authority, certificate, key).
pub fn certificates(directory: &Path) -> (Vec<u8>, [String; 3]) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let files = [("ca", authority_pem.clone()), ("cert", certificate.pem()), ("key", key.serialize_pem())];
    let paths = files.map(|(name, text)| {
        let path = directory.join(format!("redis-{name}.pem"));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    });
    (authority_pem.into_bytes(), paths)
}
