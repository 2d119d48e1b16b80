//! A configuration in a few lines, for `spillgate config check`. It must not know how values are written in the file.

use std::fmt;

use spillgate_core::limit::{Accuracy, Limit};

use super::{ClusterSection, Config, CredentialFiles, HttpConfig, RedisSection};

impl fmt::Display for Config {
    /// A line each for the node, every way in, the cluster and every limit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "node     {}, at most {} keys", self.node.id, self.node.max_keys)?;
        if let Some(directory) = &self.node.data_dir {
            writeln!(f, "data     {}, written every {}", directory.display(), self.node.snapshot_interval)?;
        }
        writeln!(f, "http     {}", HttpLine(&self.http))?;
        if let Some(resp) = &self.resp {
            let token = if self.http.token_file.is_some() { "AUTH with the token" } else { "no token" };
            writeln!(f, "resp     {}, {token}", resp.listen)?;
        }
        match &self.cluster {
            None => writeln!(f, "cluster  none, a single node")?,
            Some(cluster) => writeln!(f, "cluster  {}", ClusterLine(cluster))?,
        }
        if let Some(redis) = &self.redis {
            writeln!(f, "redis    {}", RedisLine(redis))?;
        }
        if self.limits.is_empty() {
            writeln!(f, "limit    none")?;
        }
        for (name, limit) in self.limits.iter() {
            writeln!(f, "limit    {name}: {}", LimitLine(limit))?;
        }
        Ok(())
    }
}

struct HttpLine<'a>(&'a HttpConfig);

impl fmt::Display for HttpLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.listen, &self.0.unix) {
            (Some(listen), Some(unix)) => write!(f, "{listen} and {}", unix.display())?,
            (Some(listen), None) => write!(f, "{listen}")?,
            (None, Some(unix)) => write!(f, "{}", unix.display())?,
            (None, None) => f.write_str("none")?,
        }
        match &self.0.token_file {
            Some(token) => write!(f, ", token from {}", token.display()),
            None => f.write_str(", no token"),
        }
    }
}

struct ClusterLine<'a>(&'a ClusterSection);

impl fmt::Display for ClusterLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster = self.0;
        write!(f, "{} on {}", cluster.name, cluster.listen)?;
        if let Some(advertise) = cluster.advertise {
            write!(f, " as {advertise}")?;
        }
        match cluster.seeds.as_slice() {
            [] => f.write_str(", no seeds")?,
            seeds => write!(f, ", seeds {}", seeds.join(" "))?,
        }
        match &cluster.credentials {
            CredentialFiles::Secret(secret) => write!(f, ", secret {}", secret.display())?,
            CredentialFiles::Tls { cert, .. } => write!(f, ", certificate {}", cert.display())?,
        }
        write!(f, "; gossip every {}", cluster.gossip_interval)?;
        write!(f, ", stale after {}, forgotten after {}", cluster.stale_after, cluster.forget_after)
    }
}

struct RedisLine<'a>(&'a RedisSection);

impl fmt::Display for RedisLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RedisSection { url, mode, timeout, min_peers, .. } = self.0;
        write!(f, "{url}, {}, timeout {timeout}, at least {min_peers} peers", mode.as_str())
    }
}

struct LimitLine<'a>(&'a Limit);

impl fmt::Display for LimitLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0.rule();
        let spec = rule.spec();
        write!(f, "{} {}", spec.algorithm.as_str(), spec.rate)?;
        if !spec.algorithm.windowed() {
            write!(f, ", burst {}", rule.capacity())?;
        }
        write!(f, ", {}", spec.accuracy.as_str())?;
        if let Accuracy::Bounded { max_overshoot } = spec.accuracy {
            // a part that is no whole number of thousandths is shown to the nearest, not in all its binary digits
            write!(f, " {}%", (max_overshoot * 1e5).round() / 1e3)?;
        }
        write!(f, ", on partition {}", spec.on_partition.as_str())?;
        if !spec.enforce {
            f.write_str(", dry run")?;
        }
        match self.0.overrides().len() {
            0 => Ok(()),
            1 => f.write_str(", 1 override"),
            n => write!(f, ", {n} overrides"),
        }
    }
}
