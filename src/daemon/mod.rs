//! The daemon: binds its sockets, starts its tasks, and takes everything down in order. The only room that knows all
//! others.

mod control;
mod gossip;
mod join;
mod keep;
mod reload;

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use spillgate_core::gossip::Pace;
use spillgate_core::node::NodeConfig;
use spillgate_core::time::Nanos;
use spillgate_core::view::ReplicaId;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::api::{self, Api, Http, Resp, Token};
use crate::cli::CouldNotStart;
use crate::cluster::{Cluster, ClusterConfig, ClusterSecret, Credentials};
use crate::config::{
    CLUSTER_NAME_DEFAULT, ClusterSection, Config, ConfigError, CredentialFiles, FORGET_AFTER_DEFAULT,
    GOSSIP_INTERVAL_DEFAULT, RedisMode, RedisSection, STALE_AFTER_DEFAULT,
};
use crate::driver::Driver;
use crate::metrics::Metrics;
use crate::redis::{self, Central, When};
use crate::snapshot::{self, Identity, Store};

use control::{Parts, Steward};
use gossip::Post;
use keep::Keeper;

/// Shards of the table: enough that two threads seldom meet in one.
const SHARDS: usize = 256;
/// How long a leaving node waits for its last charges to become common knowledge.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Reads the configuration anew.
pub type LoadConfig = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// A daemon whose sockets are bound; [`Daemon::run`] sets it going.
pub struct Daemon {
    config: Config,
    driver: Driver,
    metrics: Arc<Metrics>,
    steward: Arc<Steward>,
    cluster: Option<Cluster>,
    central: Option<Central>,
    tcp: Option<TcpListener>,
    unix: Option<UnixListener>,
    resp: Option<TcpListener>,
    token: Option<Arc<Token>>,
    keeper: Option<Arc<Keeper>>,
}

impl Daemon {
    /// Binds every socket of `config`. `file` is the configuration file, to be watched, and `load` reads it anew.
    ///
    /// # Errors
    /// A port is taken or a file can't be used; the text names it, and [`CouldNotStart`] is among the contexts where
    /// the configuration is not to blame.
    pub async fn bind(config: Config, file: Option<std::path::PathBuf>, load: LoadConfig) -> anyhow::Result<Self> {
        let token = config.http.token_file.as_deref().map(Token::read).transpose()?.map(Arc::new);
        let tcp = match config.http.listen {
            Some(address) => Some(bind_tcp(address, "HTTP", "--http or [http] listen").await?),
            None => None,
        };
        let resp = match &config.resp {
            Some(section) => Some(bind_tcp(section.listen, "Redis clients", "--resp or [resp] listen").await?),
            None => None,
        };
        let unix = match &config.http.unix {
            Some(path) => {
                let taken = || format!("cannot listen on the Unix socket {}", path.display());
                Some(api::bind_unix(path).await.with_context(taken).context(CouldNotStart)?)
            }
            None => None,
        };
        let claim = match &config.node.data_dir {
            Some(directory) => Some(snapshot::claim(directory).await.context(CouldNotStart)?),
            None => None,
        };
        let (last_incarnation, last_key) = last_run(&config).unwrap_or_default();
        // a clock that was put back must not make this run look older than the last
        let incarnation = incarnation().max(last_incarnation.saturating_add(1));
        let (credentials, hash_key) = match &config.cluster {
            Some(section) => {
                let (credentials, hash_key) = credentials(&section.credentials)?;
                (Some(credentials), hash_key)
            }
            None => (None, last_key.map_or_else(random_key, Ok)?),
        };
        let cluster = match (&config.cluster, credentials) {
            (Some(section), Some(credentials)) => {
                let parts = cluster_config(&config.node.id, incarnation, section, credentials);
                Some(Cluster::bind(parts).await.context(CouldNotStart)?)
            }
            _ => None,
        };
        let metrics = Arc::new(Metrics::default());
        let node = node_config(&config, incarnation, hash_key);
        let driver = Driver::new(node, config.limits.clone(), metrics.check_duration());
        let advertised = cluster.as_ref().map(Cluster::advertised_addr);
        let central = match &config.redis {
            Some(section) => Some(central(&config, section, advertised, &driver)?),
            None => None,
        };
        let keeper = claim.map(|claim| Arc::new(keeper(&config, incarnation, &hash_key, &driver, claim)));
        if let Some(keeper) = &keeper {
            keeper.restore();
        }
        let parts = Parts {
            driver: driver.clone(),
            metrics: metrics.clone(),
            cluster: cluster.clone(),
            central: central.clone(),
            store: keeper.as_ref().map(|k| k.store.clone()),
        };
        let steward = Arc::new(Steward::new(parts, &config, file, load));
        Ok(Self { config, driver, metrics, steward, cluster, central, tcp, unix, resp, token, keeper })
    }

    /// Where the HTTP API listens, with the real port.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|l| l.local_addr().ok())
    }

    /// Runs until told to stop, then leaves the cluster and finishes what is under way.
    ///
    /// # Errors
    /// Membership broke down: a node that no longer notices who comes and goes must not go on.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        // before the first socket is served
        if let Err(error) = api::raise_file_limit() {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
        let http = self.http_addr().map(|a| a.to_string());
        let unix = self.config.http.unix.as_ref().map(|p| p.display().to_string());
        let cluster = self.cluster.as_ref().map(|c| c.local_addr().to_string());
        let resp = self.resp.as_ref().and_then(|l| l.local_addr().ok()).map(|a| a.to_string());
        tracing::info!(node = %self.config.node.id, http, unix, resp, cluster, limits = self.config.limits.len(), "listening");
        self.start_listeners(&mut tasks, &stopped);
        tasks.spawn(upkeep(self.metrics.clone(), self.driver.clone(), stopped.clone()));
        tasks.spawn(reload::watch(self.steward.clone(), stopped.clone()));
        if let Some(keeper) = &self.keeper {
            tasks.spawn(keeper.clone().run(stopped.clone()));
        }
        self.start_gossip(&mut tasks, &stopped);
        if let Some(central) = self.central.take() {
            self.driver.set_referee(Arc::new(central.clone()));
            tasks.spawn(central.run(stopped.clone()));
        }
        let ended = self.wait().await;
        self.steward.begin_draining();
        if let Some(cluster) = &self.cluster {
            // what is still held would be charged after the last word
            self.driver.hold();
            gossip::settle(&self.driver, LAST_WORD).await;
            cluster.leave().await;
        }
        stop.send_replace(true);
        while tasks.join_next().await.is_some() {}
        // when nothing is charged any more
        if let Some(keeper) = &self.keeper {
            keeper.write().await;
        }
        tracing::info!("stopped");
        ended
    }

    fn start_listeners(&mut self, tasks: &mut JoinSet<()>, stopped: &watch::Receiver<bool>) {
        let control = self.steward.clone();
        let checks = Arc::new(Semaphore::new(api::CHECKS_MAX));
        let api = Arc::new(Api { driver: self.driver.clone(), control, token: self.token.take(), checks });
        let http = Http::new(api.clone());
        if let Some(listener) = self.tcp.take() {
            tasks.spawn(api::serve_tcp(listener, http.clone(), stopped.clone()));
        }
        if let Some(listener) = self.unix.take() {
            tasks.spawn(api::serve_unix(listener, http, stopped.clone()));
        }
        if let Some(listener) = self.resp.take() {
            let resp = Resp::new(api, self.steward.resp.clone());
            tasks.spawn(api::serve_tcp(listener, resp, stopped.clone()));
        }
    }

    fn start_gossip(&self, tasks: &mut JoinSet<()>, stopped: &watch::Receiver<bool>) {
        let pace = pace(self.config.cluster.as_ref());
        let post = Post::new(self.cluster.clone(), self.steward.traffic.clone());
        let (Some(cluster), Some(section)) = (&self.cluster, &self.config.cluster) else {
            tasks.spawn(gossip::run(self.driver.clone(), post, pace, None, stopped.clone()));
            self.steward.become_ready();
            return;
        };
        // before the first peer can count this node in
        self.driver.hold();
        let (inbox, arrivals) = gossip::Inbound::new(self.driver.clone(), post.clone());
        tasks.spawn(gossip::run(self.driver.clone(), post, pace, Some(inbox.sender()), stopped.clone()));
        cluster.start(Arc::new(inbox));
        let join = join::Join {
            driver: self.driver.clone(),
            cluster: cluster.clone(),
            steward: self.steward.clone(),
            timeout: section.join_timeout.into(),
            alone: section.seeds.is_empty(),
        };
        let mut stopped = stopped.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = join.run(arrivals) => {}
                () = told_to_stop(&mut stopped) => {}
            }
        });
    }

    /// Returns when it is time to stop.
    async fn wait(&self) -> anyhow::Result<()> {
        let broken = async {
            match &self.cluster {
                Some(cluster) => cluster.stopped().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            signal = stop_signal() => {
                tracing::info!(signal = signal?, "stopping");
                Ok(())
            }
            error = broken => Err(error.into()),
        }
    }
}

/// The central store; nothing is connected yet.
fn central(
    config: &Config,
    section: &RedisSection,
    advertised: Option<SocketAddr>,
    driver: &Driver,
) -> anyhow::Result<Central> {
    let (password, ca) = (section.password_file.as_deref(), section.ca_file.as_deref());
    let target = redis::target(section.url.nodes(), password, ca, section.timeout.into())?;
    let cluster = config.cluster.as_ref();
    let name = cluster.map_or(CLUSTER_NAME_DEFAULT, |c| c.name.as_str()).to_owned();
    let own = advertised.map(|a| a.to_string());
    let others = cluster.is_some_and(|c| c.seeds.iter().any(|seed| Some(seed) != own.as_ref()));
    let when = match section.mode {
        RedisMode::Always => When::Always,
        RedisMode::Fallback => When::CutOff { min_peers: section.min_peers, expected: others },
    };
    Ok(Central::new(driver.clone(), name, section.url.to_string(), target, when))
}

async fn bind_tcp(address: SocketAddr, whom: &str, setting: &str) -> anyhow::Result<TcpListener> {
    let taken = || format!("cannot listen on {address} for {whom}; choose another address with {setting}");
    TcpListener::bind(address).await.with_context(taken).context(CouldNotStart)
}

/// Larger in each run, as long as the clock is not put back by more than the time between two runs.
fn incarnation() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// What the last snapshot says of the run that wrote it, see [`snapshot::peek`].
fn last_run(config: &Config) -> Option<(u64, Option<[u8; 16]>)> {
    let directory = config.node.data_dir.as_deref()?;
    snapshot::peek(directory, &config.node.id, config.cluster.as_ref().map(|c| c.name.as_str()))
}

fn keeper(config: &Config, incarnation: u64, hash_key: &[u8; 16], driver: &Driver, claim: File) -> Keeper {
    let cluster = config.cluster.as_ref().map(|c| c.name.as_str());
    let identity = Identity::new(&config.node.id, cluster, incarnation, hash_key);
    let directory = config.node.data_dir.as_deref().unwrap_or(Path::new("."));
    Keeper {
        store: Arc::new(Store::new(directory, identity, config.node.max_keys)),
        driver: driver.clone(),
        every: config.node.snapshot_interval.into(),
        _claim: claim,
    }
}

/// What proves that this node belongs, and the key of the hash of keys: the same on all nodes of the cluster.
fn credentials(files: &CredentialFiles) -> anyhow::Result<(Credentials, [u8; 16])> {
    let (credentials, seed) = match files {
        CredentialFiles::Secret(path) => {
            let secret = ClusterSecret::from_file(path)?;
            let seed = secret.derive("key-hash");
            (Credentials::Secret(secret), seed.to_vec())
        }
        CredentialFiles::Tls { ca, cert, key } => {
            let authority = std::fs::read(ca).with_context(|| format!("cannot read {}", ca.display()))?;
            let seed = digest::digest(&digest::SHA256, &authority).as_ref().to_vec();
            (Credentials::Files { ca: ca.clone(), cert: cert.clone(), key: key.clone() }, seed)
        }
    };
    let key = seed[..16].try_into().expect("both seeds are 32 bytes long");
    Ok((credentials, key))
}

fn random_key() -> anyhow::Result<[u8; 16]> {
    let mut key = [0; 16];
    let random = SystemRandom::new().fill(&mut key);
    random.map_err(|_| anyhow::anyhow!("the system gives no random numbers")).context(CouldNotStart)?;
    Ok(key)
}

fn pace(section: Option<&ClusterSection>) -> Pace {
    section.map_or(
        Pace {
            interval: GOSSIP_INTERVAL_DEFAULT,
            stale_after: STALE_AFTER_DEFAULT,
            forget_after: FORGET_AFTER_DEFAULT,
        },
        |s| Pace { interval: s.gossip_interval, stale_after: s.stale_after, forget_after: s.forget_after },
    )
}

fn node_config(config: &Config, incarnation: u64, hash_key: [u8; 16]) -> NodeConfig {
    NodeConfig {
        replica: ReplicaId { node: config.node.id.as_str().into(), incarnation },
        hash_key,
        max_keys: config.node.max_keys,
        shards_max: SHARDS,
        clustered: config.cluster.is_some(),
        pace: pace(config.cluster.as_ref()),
    }
}

fn cluster_config(node: &str, incarnation: u64, section: &ClusterSection, credentials: Credentials) -> ClusterConfig {
    ClusterConfig {
        name: section.name.clone(),
        node: node.to_owned(),
        incarnation,
        listen: section.listen,
        advertise: section.advertise,
        seeds: section.seeds.clone(),
        credentials,
        gossip_interval: section.gossip_interval.into(),
        message_bytes_max: spillgate_core::wire::MESSAGE_BYTES_MAX,
    }
}

async fn stop_signal() -> anyhow::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// Returns when the daemon is to stop.
async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // an error means that nobody can tell any more: time to stop as well
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Folds histograms, and takes over the convergence times, every second.
async fn upkeep(metrics: Arc<Metrics>, driver: Driver, mut stopped: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(Nanos::SECOND.into());
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = told_to_stop(&mut stopped) => return,
        }
        for time in driver.node().take_converged() {
            metrics.convergence().record(time.as_secs_f64());
        }
        metrics.upkeep();
    }
}
