//! The connection to Redis, a single server or a cluster, and how long anything about it may take. It must not know
//! scripts or limits.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, RedisResult, ServerErrorKind, TlsCertificates, Value,
};

use super::RedisError;
use super::script::{Call, Script};

/// How long connecting may take, with all its handshakes: nobody waits for it.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A reply is waited for at least so long, though the caller has been answered: it says what was counted.
const RESPONSE_LEAST: Duration = Duration::from_secs(1);
/// And this many times as long as callers wait.
const RESPONSE_TIMEOUTS: u32 = 4;
/// Requests that may be under way at once.
const UNDER_WAY_MAX: usize = 4096;
/// Redirections followed: a slot may move, and move again.
const REDIRECTIONS_MAX: u32 = 3;

/// Where Redis is and how to get in.
#[derive(Clone)]
pub struct Target {
    pub(super) nodes: Vec<ConnectionInfo>,
    pub(super) tls: Option<TlsCertificates>,
    /// How long a caller waits.
    pub(super) timeout: Duration,
}

/// A connection; clones share it.
#[derive(Clone)]
pub(super) enum Link {
    Single(ConnectionManager),
    Cluster(ClusterConnection),
}

impl Link {
    /// Connects, and finds out whether it is a cluster.
    ///
    /// # Errors
    /// [`RedisError`] of the last node tried.
    pub(super) async fn open(target: &Target) -> Result<Self, RedisError> {
        let mut failed = None;
        for node in &target.nodes {
            match within(CONNECT_MAX, Self::open_at(target, node)).await {
                Ok(link) => return Ok(link),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(RedisError::Timeout(CONNECT_MAX)))
    }

    async fn open_at(target: &Target, node: &ConnectionInfo) -> RedisResult<Self> {
        let client = target.client(node)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_MAX))
            .set_response_timeout(Some(target.response_timeout()));
        let mut plain = client.get_multiplexed_async_connection_with_config(&config).await?;
        if is_cluster(redis::cmd("INFO").arg("cluster").query_async(&mut plain).await)? {
            return Ok(Self::Cluster(target.cluster_client()?.get_async_connection().await?));
        }
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_MAX))
            .set_response_timeout(Some(target.response_timeout()))
            .set_number_of_retries(1)
            .set_concurrency_limit(UNDER_WAY_MAX)
            .set_pipeline_buffer_size(UNDER_WAY_MAX);
        Ok(Self::Single(ConnectionManager::new_with_config(client, config).await?))
    }

    pub(super) const fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Runs a script by its hash, and with its text where Redis has lost it.
    ///
    /// # Errors
    /// [`RedisError`]; whether Redis ran the script is not known then, unless it said so.
    pub(super) async fn run(&self, script: &Script, call: &Call) -> Result<Value, RedisError> {
        let reply = match self.send(&script.by_hash(call)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.send(&script.in_full(call)).await
            }
            other => other,
        };
        reply.map_err(RedisError::from)
    }

    async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Single(connection) => command.query_async(&mut connection.clone()).await,
            Self::Cluster(connection) => command.query_async(&mut connection.clone()).await,
        }
    }
}

impl Target {
    fn client(&self, node: &ConnectionInfo) -> RedisResult<Client> {
        match &self.tls {
            Some(tls) => Client::build_with_tls(node.clone(), tls.clone()),
            None => Client::open(node.clone()),
        }
    }

    fn cluster_client(&self) -> RedisResult<ClusterClient> {
        let builder = ClusterClient::builder(self.nodes.clone())
            .connection_timeout(CONNECT_MAX)
            .response_timeout(self.response_timeout())
            .overall_response_timeout(Some(self.response_timeout()))
            .retries(REDIRECTIONS_MAX)
            .min_retry_wait(1)
            .max_retry_wait(50);
        match &self.tls {
            Some(tls) => builder.certs(tls.clone()).build(),
            None => builder.build(),
        }
    }

    fn response_timeout(&self) -> Duration {
        (self.timeout * RESPONSE_TIMEOUTS).max(RESPONSE_LEAST)
    }
}

async fn within<T>(most: Duration, work: impl Future<Output = RedisResult<T>>) -> Result<T, RedisError> {
    match tokio::time::timeout(most, work).await {
        Ok(done) => done.map_err(RedisError::from),
        Err(_) => Err(RedisError::Timeout(most)),
    }
}

/// What `INFO cluster` says; who may not ask is told of no cluster.
fn is_cluster(info: RedisResult<Value>) -> RedisResult<bool> {
    match info {
        Ok(value) => Ok(redis::from_redis_value::<String>(value)?.contains("cluster_enabled:1")),
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(false),
        Err(error) => Err(error),
    }
}
