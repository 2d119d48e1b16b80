//! `spillgate serve`: the daemon's flags, each with its environment variable, and starting it. It must not know defaults: flags that are
//! not given say nothing, and the configuration knows the rest.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use spillgate_core::limit::Limit;

use super::{CouldNotStart, Exit};
use crate::config::{Config, ConfigError, Overrides, parse_limit_flag};
use crate::daemon::Daemon;
use crate::logs;

const EXAMPLES: &str = "\
Examples:
  A single node, no file:
    spillgate serve --limit api=100/s --limit login=5/m:5

  The second node of a cluster, no file:
    spillgate secret > cluster.secret           once, then copied to every node
    spillgate serve --node-id b --seed 10.0.0.1:8471 --secret-file cluster.secret --limit api=100/s

  With a file, its limits reloaded on SIGHUP and whenever it changes:
    spillgate serve --config /etc/spillgate/spillgate.toml

Flags win over environment variables, and those over the file. In a variable, commas separate several seeds or limits.";

/// Arguments of `spillgate serve`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// The configuration file (TOML); without one, defaults and flags are all there is.
    #[arg(long, value_name = "FILE", env = "SPILLGATE_CONFIG")]
    pub config: Option<PathBuf>,
    /// This node's name, unlike any other in the cluster [default: the host name].
    #[arg(long, value_name = "ID", env = "SPILLGATE_NODE_ID")]
    pub node_id: Option<String>,
    /// Directory for snapshots, which keep quotas over a restart [default: none are written].
    #[arg(long, value_name = "DIR", env = "SPILLGATE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// TCP address of the HTTP API; one that is not loopback needs a token file [default: 127.0.0.1:8470].
    #[arg(long, value_name = "IP:PORT", env = "SPILLGATE_HTTP")]
    pub http: Option<SocketAddr>,
    /// TCP address for Redis clients; one that is not loopback needs a token file [default: none].
    #[arg(long, value_name = "IP:PORT", env = "SPILLGATE_RESP")]
    pub resp: Option<SocketAddr>,
    /// File with the bearer token that requests must carry.
    #[arg(long, value_name = "FILE", env = "SPILLGATE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// UDP address for the other nodes [default: 0.0.0.0:8471].
    #[arg(long, value_name = "IP:PORT", env = "SPILLGATE_CLUSTER_LISTEN")]
    pub cluster_listen: Option<SocketAddr>,
    /// Address at which the other nodes reach this one [default: worked out from the listening address].
    #[arg(long, value_name = "IP:PORT", env = "SPILLGATE_ADVERTISE")]
    pub advertise: Option<SocketAddr>,
    /// A node to ask for the others; repeatable, one that answers is enough.
    #[arg(long, value_name = "HOST:PORT", env = "SPILLGATE_SEED", value_delimiter = ',')]
    pub seed: Vec<String>,
    /// File with the cluster's secret; needed in a cluster, unless the file has [cluster.tls].
    #[arg(long, value_name = "FILE", env = "SPILLGATE_SECRET_FILE")]
    pub secret_file: Option<PathBuf>,
    /// A limit: a token bucket with that rate and burst; repeatable. It replaces the file's limit of that name.
    #[arg(
        long,
        value_name = "NAME=RATE[:BURST]",
        env = "SPILLGATE_LIMIT",
        value_delimiter = ',',
        value_parser = parse_limit_flag
    )]
    pub limit: Vec<Limit>,
}

impl ServeArgs {
    /// What the flags say over the file.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides {
            node_id: self.node_id.clone(),
            data_dir: self.data_dir.clone(),
            http: self.http,
            resp: self.resp,
            token_file: self.token_file.clone(),
            cluster_listen: self.cluster_listen,
            advertise: self.advertise,
            seeds: self.seed.clone(),
            secret_file: self.secret_file.clone(),
            limits: self.limit.clone(),
        }
    }

    /// The file, with the flags over it; every file it names has been seen to be readable.
    ///
    /// # Errors
    /// [`ConfigError`], all that is wrong.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::check(self.config.as_deref(), &self.overrides())
    }
}

/// Runs the daemon until it is told to stop.
pub(super) fn run(args: ServeArgs) -> anyhow::Result<Exit> {
    logs::start();
    let config = args.load()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context(CouldNotStart)?;
    runtime.block_on(async {
        let file = args.config.clone();
        let daemon = Daemon::bind(config, file, Arc::new(move || args.load())).await?;
        daemon.run().await
    })?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::cli::{Cli, Command as Asked};

    fn parsed(flags: &[&str]) -> ServeArgs {
        match Cli::try_parse_from(["spillgate", "serve"].iter().chain(flags)).unwrap().command {
            Asked::Serve(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_flag_has_its_variable() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        let mut seen = 0;
        for arg in serve.get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str())) {
            let long = arg.get_long().unwrap();
            let variable = format!("SPILLGATE_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().unwrap().to_str(), Some(variable.as_str()));
            seen += 1;
        }
        assert_eq!(seen, 11);
    }

    #[test]
    fn the_help_tells_the_defaults_of_the_configuration() {
        use crate::config::{CLUSTER_LISTEN_DEFAULT, HTTP_LISTEN_DEFAULT};
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for (id, default) in [("http", HTTP_LISTEN_DEFAULT), ("cluster_listen", CLUSTER_LISTEN_DEFAULT)] {
            let arg = serve.get_arguments().find(|a| a.get_id() == id).unwrap();
            assert!(arg.get_help().unwrap().to_string().contains(&format!("[default: {default}]")), "{id}");
        }
    }

    #[test]
    fn flags_alone_make_a_node_of_a_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        std::fs::write(&secret, "a secret").unwrap();
        let secret = secret.to_str().unwrap();
        let flags = ["--node-id", "b", "--http", "127.0.0.1:0", "--cluster-listen", "127.0.0.1:0"];
        let more = ["--seed", "h:1,h:2", "--seed=[::1]:3", "--secret-file", secret, "--limit", "api=100/s:200"];
        let config = parsed(&[&flags[..], &more[..]].concat()).load().unwrap();
        let cluster = config.cluster.unwrap();
        assert_eq!(config.node.id, "b");
        assert_eq!(cluster.seeds, ["h:1", "h:2", "[::1]:3"]);
        assert_eq!(config.limits.find("api").unwrap().rule().capacity(), 200);
    }

    #[test]
    fn a_wrong_limit_is_explained_with_its_flag() {
        let error = Cli::try_parse_from(["spillgate", "serve", "--limit", "api=100/x"]).unwrap_err().to_string();
        assert!(error.contains("--limit") && error.contains("is not like \"100/s\""), "{error}");
    }

    /// The environment belongs to the whole process, so this runs in one of its own.
    #[test]
    fn flags_win_over_variables_and_variables_over_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("spillgate.toml");
        std::fs::write(&file, "node.id = 'file'\nnode.max_keys = 5000\nhttp.listen = '127.0.0.1:1'\n").unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "cli::serve::tests::in_a_process_with_variables"])
            .env("SPILLGATE_CONFIG", &file)
            .env("SPILLGATE_NODE_ID", "variable")
            .env("SPILLGATE_HTTP", "127.0.0.1:2")
            .env("SPILLGATE_LIMIT", "api=100/s,web=5/m")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    #[test]
    #[ignore = "started by flags_win_over_variables_and_variables_over_the_file"]
    fn in_a_process_with_variables() {
        let config = parsed(&["--http", "127.0.0.1:3"]).load().unwrap();
        assert_eq!(config.http.listen.unwrap().port(), 3, "the flag wins over the variable");
        assert_eq!(config.node.id, "variable", "the variable wins over the file");
        assert_eq!(config.node.max_keys, 5000, "the file wins over the default");
        assert_eq!(config.limits.len(), 2);
    }
}
