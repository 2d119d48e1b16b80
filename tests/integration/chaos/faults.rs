//! What breaks in a round: drawn by the seed, done, and mended. It must not know what is promised.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

use super::limits::{ROOMY, configured};
use super::load::Load;
use crate::daemon::{Daemon, Setup, until};
use crate::redis_server::Redis;
use crate::relay::{Path, Relay};

/// What the network is like when nothing is wrong with it.
pub const WELL: Path = Path {
    delay: Duration::from_millis(1),
    jitter: Duration::from_millis(2),
    loss: 0.01,
    duplication: 0.01,
    cut: false,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Well,
    /// Two on one side, three on the other.
    Split,
    Isolated,
    OneWay,
    /// One peer late by more than the time after which it counts as silent, and lossy.
    SlowPeer,
    /// Everybody loses a third of what is sent, late.
    Lossy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    Runs,
    Killed,
    StandsStill,
    Restarted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    Nothing,
    DiskFull,
    Reloaded,
    Garbage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Well,
    Killed,
    StandsStill,
    Paused,
    Flushed,
}

/// Each kind comes once before any comes twice.
struct Deck<T> {
    all: Vec<T>,
    left: Vec<T>,
}

impl<T: Clone> Deck<T> {
    fn of(all: &[T]) -> Self {
        Self { all: all.to_vec(), left: Vec::new() }
    }

    fn draw(&mut self, chance: &mut StdRng) -> T {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            self.left.shuffle(chance);
        }
        self.left.pop().expect("it was filled")
    }
}

/// Draws rounds.
pub struct Faults {
    chance: StdRng,
    networks: Deck<Network>,
    processes: Deck<Process>,
    besides: Deck<Beside>,
    stores: Deck<Store>,
}

/// All that breaks in one round. Nodes are numbers.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whether the limits are asked for more than they hold when it begins; else nothing is asked for yet.
    pub warm: bool,
    pub network: Network,
    /// Whom the network's fault befalls: the first one or two of them.
    pub who: Vec<usize>,
    pub lasts: Duration,
    pub process: Process,
    pub victim: usize,
    begins: Duration,
    stands: Duration,
    beside: Beside,
    other: usize,
    store: Store,
    seed: u64,
}

impl Faults {
    pub fn new(seed: u64) -> Self {
        use {Beside as B, Network as N, Process as P, Store as S};
        Self {
            chance: StdRng::seed_from_u64(seed),
            networks: Deck::of(&[N::Well, N::Split, N::Isolated, N::OneWay, N::SlowPeer, N::Lossy]),
            processes: Deck::of(&[P::Runs, P::Killed, P::StandsStill, P::Restarted]),
            besides: Deck::of(&[B::Nothing, B::DiskFull, B::Reloaded, B::Garbage]),
            stores: Deck::of(&[S::Well, S::Killed, S::StandsStill, S::Paused, S::Flushed]),
        }
    }

    pub fn draw(&mut self, nodes: usize) -> Plan {
        let chance = &mut self.chance;
        let mut who: Vec<usize> = (0..nodes).collect();
        who.shuffle(chance);
        let mut ms = |range: std::ops::Range<u64>| Duration::from_millis(chance.random_range(range));
        let (lasts, begins, stands) = (ms(1000..4000), ms(0..1500), ms(300..3000));
        Plan {
            warm: chance.random_bool(0.75),
            network: self.networks.draw(chance),
            who,
            lasts,
            process: self.processes.draw(chance),
            victim: chance.random_range(0..nodes),
            begins,
            stands,
            beside: self.besides.draw(chance),
            other: chance.random_range(0..nodes),
            store: self.stores.draw(chance),
            seed: chance.next_u64(),
        }
    }
}

impl Plan {
    /// Breaks it all, and mends it, but for a process that is gone.
    pub async fn carry_out(&self, daemons: &[Daemon], relay: &Relay, store: Option<&mut Redis>, load: &Load) {
        let over = Instant::now() + self.lasts.max(self.begins + self.stands);
        tokio::join!(self.network(daemons, relay), self.process(daemons, load), self.beside(daemons, over), async {
            if let Some(redis) = store {
                self.store(redis).await;
            }
        });
    }

    /// Whether a node may not hear another for a while.
    pub fn is_cut(&self) -> bool {
        self.network != Network::Well
    }

    /// Whether a process comes to its end in it without all others hearing its last word.
    pub fn crashes(&self) -> bool {
        self.process == Process::Killed || self.process == Process::Restarted && self.is_cut()
    }

    async fn network(&self, daemons: &[Daemon], relay: &Relay) {
        let names: Vec<&str> = self.who.iter().map(|i| daemons[*i].name.as_str()).collect();
        let slow = Path { delay: Duration::from_millis(350), jitter: Duration::from_millis(150), loss: 0.2, ..WELL };
        match self.network {
            Network::Well => {}
            Network::Split => relay.split(&names[..2], &names[2..]),
            Network::Isolated => relay.split(&names[..1], &names[1..]),
            Network::OneWay => relay.cut(names[0], names[1]),
            Network::SlowPeer => names[1..].iter().for_each(|other| {
                relay.set(names[0], other, slow);
                relay.set(other, names[0], slow);
            }),
            Network::Lossy => relay.set_all(Path { delay: Duration::from_millis(20), loss: 0.3, ..WELL }),
        }
        sleep(self.lasts).await;
        relay.set_all(WELL);
    }

    async fn process(&self, daemons: &[Daemon], load: &Load) {
        let victim = &daemons[self.victim];
        sleep(self.begins).await;
        match self.process {
            Process::Runs => {}
            Process::Killed => victim.signal("KILL"),
            Process::Restarted => victim.signal("TERM"),
            Process::StandsStill => {
                load.halt(self.victim, true);
                victim.signal("STOP");
                sleep(self.stands).await;
                victim.signal("CONT");
                load.halt(self.victim, false);
            }
        }
    }

    async fn beside(&self, daemons: &[Daemon], over: Instant) {
        let daemon = &daemons[self.other];
        match self.beside {
            Beside::Nothing => {}
            Beside::DiskFull => fill_disk(daemon, over).await,
            Beside::Reloaded => reload(daemon, over).await,
            Beside::Garbage => {
                let ports: Vec<SocketAddr> = daemons.iter().filter_map(|d| d.cluster).collect();
                throw_garbage(self.seed, &ports, over).await;
            }
        }
    }

    async fn store(&self, redis: &mut Redis) {
        sleep(self.begins).await;
        match self.store {
            Store::Well => {}
            Store::Killed => {
                redis.kill().await;
                sleep(self.stands).await;
                redis.start_again().await;
            }
            Store::StandsStill => {
                redis.signal("STOP");
                sleep(self.stands).await;
                redis.signal("CONT");
            }
            Store::Paused => {
                redis.ask::<()>(&["CLIENT", "PAUSE", &self.stands.as_millis().to_string(), "ALL"]).await;
                sleep(self.stands).await;
            }
            Store::Flushed => redis.ask::<()>(&["SCRIPT", "FLUSH"]).await,
        }
    }
}

/// Where a daemon keeps its table.
pub fn data_dir(daemon: &str, directory: &std::path::Path) -> std::path::PathBuf {
    directory.join(format!("data-{daemon}"))
}

/// Whatever the daemon writes into its directory finds no room.
async fn fill_disk(daemon: &Daemon, over: Instant) {
    let beside = data_dir(&daemon.name, daemon.directory.path()).join("spillgate.snapshot.tmp");
    while Instant::now() < over {
        // it is there already, or it was taken away with a failed snapshot
        let _ = std::os::unix::fs::symlink("/dev/full", &beside);
        sleep(Duration::from_millis(5)).await;
    }
    let _ = std::fs::remove_file(&beside);
}

/// One node has twice the capacity of a limit, and another limit; then a file that is no configuration; then all is as it
/// was.
async fn reload(daemon: &Daemon, over: Instant) {
    let file = daemon.directory.path().join(format!("{}.toml", daemon.name));
    let limits = configured(ROOMY);
    let other = daemon.setup.limits.replace(&limits, &configured(2 * ROOMY));
    let more = format!("{other}[[limit]]\nname = \"more\"\nrate = \"1/s\"\n");
    let with = |limits: String| Setup { limits, ..daemon.setup.clone() }.config();
    let texts = [with(more), "[[limit".to_owned(), with(daemon.setup.limits.clone())];
    let pause = over.saturating_duration_since(Instant::now()) / 3;
    for text in texts {
        std::fs::write(&file, text).unwrap();
        daemon.signal("HUP");
        sleep(pause).await;
    }
}

/// Bytes at random, half of them with the look of QUIC, from somebody who is no member.
async fn throw_garbage(seed: u64, ports: &[SocketAddr], over: Instant) {
    let mut chance = StdRng::seed_from_u64(seed);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    while Instant::now() < over {
        for port in ports {
            let mut bytes = vec![0; chance.random_range(1..1400)];
            chance.fill_bytes(&mut bytes);
            if chance.random() && bytes.len() > 5 {
                // a long header, of version 1
                bytes[0] |= 0xc0;
                bytes[1..5].copy_from_slice(&1u32.to_be_bytes());
            }
            // a daemon that is down refuses it
            let _ = socket.send_to(&bytes, port).await;
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits for the end of the process that a plan made end, and starts it again.
pub async fn start_again(plan: &Plan, daemons: &mut Vec<Daemon>, relay: &Relay, load: &Load) {
    if !matches!(plan.process, Process::Killed | Process::Restarted) {
        return;
    }
    let mut gone = daemons.remove(plan.victim);
    let code = gone.ended().await;
    assert!(plan.process == Process::Killed || code == Some(0), "{} ended with {code:?}: {}", gone.name, gone.log());
    let back = gone.restart().await;
    relay.place(&back.name, back.cluster.unwrap());
    load.moved(plan.victim, back.http);
    daemons.insert(plan.victim, back);
}

/// Every daemon has the configuration that it began with.
pub async fn configured_as_before(daemons: &[Daemon]) {
    for daemon in daemons {
        until("its limits are as they were", async || {
            daemon.get("/v1/limits").await["limits"][0]["capacity"].as_u64() == Some(ROOMY)
        })
        .await;
    }
}
