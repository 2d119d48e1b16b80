//! A bad network between daemons: a UDP relay with delay, jitter, loss, duplication and cuts, each direction by itself
//! and settable while it runs. It must not know what the datagrams say.
//!
//! Each node has one socket of the relay's, the address that the node is to advertise: it stands for the node towards
//! all others. What X sends to Y comes from X's own port to Y's socket here, and leaves from X's socket here to Y's own
//! port. So each node sees every other at the one address that the other advertises, whoever dialed, and answers come
//! back the same way: QUIC needs no migration.
//!
//! The fate of the n-th datagram of a direction (lost, doubled, how late) follows from the seed, the two names and n
//! alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Datagrams kept for a sender that is not placed yet.
const UNPLACED_MAX: usize = 256;

/// What happens to the datagrams of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Path {
    /// Each is late by so much,
    pub delay: Duration,
    /// and by up to so much more, evenly spread: they overtake one another then.
    pub jitter: Duration,
    /// The part that is lost, 0 to 1.
    pub loss: f64,
    /// The part that comes twice, 0 to 1.
    pub duplication: f64,
    /// Nothing gets through; what is under way still arrives.
    pub cut: bool,
}

impl Path {
    /// Late by `ms`, and nothing else.
    pub fn delayed(ms: u64) -> Self {
        Self { delay: Duration::from_millis(ms), ..Self::default() }
    }
}

/// What became of the datagrams of one direction so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    pub offered: u64,
    /// By chance.
    pub lost: u64,
    pub doubled: u64,
    /// While the direction was cut.
    pub cut: u64,
}

/// A datagram as a node sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub from: String,
    pub to: String,
    pub bytes: Vec<u8>,
}

/// The relay; it ends when dropped.
pub struct Relay {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    seed: u64,
    network: Mutex<Network>,
    flights: mpsc::UnboundedSender<Flight>,
}

#[derive(Default)]
struct Network {
    nodes: BTreeMap<String, Node>,
    /// By sender and receiver.
    directions: BTreeMap<(String, String), Direction>,
    /// Of directions that were never set.
    path: Path,
    /// What came from senders that are not placed yet: the receiver's name, the sender, the bytes.
    unplaced: Vec<(String, SocketAddr, Vec<u8>)>,
    record: Option<Vec<Datagram>>,
}

struct Node {
    socket: Arc<UdpSocket>,
    /// Its own port; none before it runs.
    own: Option<SocketAddr>,
}

struct Direction {
    path: Path,
    chance: StdRng,
    fates: Fates,
}

/// A datagram under way, by the time it is due.
struct Flight {
    due: Instant,
    number: u64,
    from: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Relay {
    /// A relay without nodes, on perfect paths.
    pub fn new(seed: u64) -> Self {
        let (flights, incoming) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(carry(incoming));
        Self { shared: Arc::new(Shared { seed, network: Mutex::default(), flights }), tasks }
    }

    /// Opens the socket that stands for `node`: the address for the node to advertise, and for others to dial.
    pub async fn open(&mut self, node: &str) -> SocketAddr {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = socket.local_addr().unwrap();
        let known = self.network().nodes.insert(node.to_owned(), Node { socket: socket.clone(), own: None });
        assert!(known.is_none(), "{node} is open already");
        let (shared, node) = (self.shared.clone(), node.to_owned());
        self.tasks.spawn(async move {
            let mut buffer = vec![0; 65_536];
            loop {
                // an error is the system's word of a node that is gone
                if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                    shared.receive(&node, from, buffer[..length].to_vec());
                }
            }
        });
        address
    }

    /// The address that stands for `node`.
    pub fn address(&self, node: &str) -> SocketAddr {
        self.network().nodes[node].socket.local_addr().unwrap()
    }

    /// Says at which port of its own `node` runs (again).
    pub fn place(&self, node: &str, own: SocketAddr) {
        let mut network = self.network();
        network.nodes.get_mut(node).expect("it was opened").own = Some(own);
        let (waiting, rest) = std::mem::take(&mut network.unplaced).into_iter().partition(|(_, from, _)| *from == own);
        network.unplaced = rest;
        drop(network);
        let waiting: Vec<(String, SocketAddr, Vec<u8>)> = waiting;
        for (to, from, bytes) in waiting {
            self.shared.receive(&to, from, bytes);
        }
    }

    /// Sets every direction, also those between nodes that are yet to come.
    pub fn set_all(&self, path: Path) {
        let mut network = self.network();
        network.path = path;
        network.directions.values_mut().for_each(|direction| direction.path = path);
    }

    /// Sets the direction of what `from` sends to `to`.
    pub fn set(&self, from: &str, to: &str, path: Path) {
        self.network().direction(self.shared.seed, from, to).path = path;
    }

    /// Lets nothing more of what `from` sends get to `to`.
    pub fn cut(&self, from: &str, to: &str) {
        self.network().direction(self.shared.seed, from, to).path.cut = true;
    }

    /// Cuts both directions between each of `these` and each of `those`.
    pub fn split(&self, these: &[&str], those: &[&str]) {
        for (one, other) in these.iter().flat_map(|one| those.iter().map(move |other| (one, other))) {
            self.cut(one, other);
            self.cut(other, one);
        }
    }

    /// Undoes every cut; delays and losses stay.
    pub fn heal(&self) {
        self.network().directions.values_mut().for_each(|direction| direction.path.cut = false);
    }

    /// What became of what `from` sent to `to`.
    pub fn fates(&self, from: &str, to: &str) -> Fates {
        self.network().direction(self.shared.seed, from, to).fates
    }

    /// Keeps a copy of every datagram that is sent from now on, lost ones included.
    pub fn record(&self) {
        self.network().record = Some(Vec::new());
    }

    /// The copies so far.
    pub fn recorded(&self) -> Vec<Datagram> {
        self.network().record.clone().unwrap_or_default()
    }

    fn network(&self) -> std::sync::MutexGuard<'_, Network> {
        self.shared.network.lock().unwrap()
    }
}

impl Shared {
    /// A datagram came to the socket that stands for `to`.
    fn receive(&self, to: &str, from: SocketAddr, bytes: Vec<u8>) {
        let mut network = self.network.lock().unwrap();
        let sender = network.nodes.iter().find(|(_, node)| node.own == Some(from));
        let Some((name, socket)) = sender.map(|(name, node)| (name.clone(), node.socket.clone())) else {
            // a node begins to dial before it has said where it listens
            if network.unplaced.len() < UNPLACED_MAX {
                network.unplaced.push((to.to_owned(), from, bytes));
            }
            return;
        };
        if let Some(record) = &mut network.record {
            record.push(Datagram { from: name.clone(), to: to.to_owned(), bytes: bytes.clone() });
        }
        let direction = network.direction(self.seed, &name, to);
        let (number, late) = (direction.fates.offered, direction.decide());
        let Some(own) = network.nodes[to].own else { return };
        for late in late {
            let flight =
                Flight { due: Instant::now() + late, number, from: socket.clone(), to: own, bytes: bytes.clone() };
            // the carrier ends only with the relay
            let _ = self.flights.send(flight);
        }
    }
}

impl Network {
    fn direction(&mut self, seed: u64, from: &str, to: &str) -> &mut Direction {
        let path = self.path;
        self.directions.entry((from.to_owned(), to.to_owned())).or_insert_with(|| {
            let names = from.bytes().chain([0]).chain(to.bytes());
            // FNV-1a: each direction has chances of its own, whatever the order in which they are first used
            let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            let chance = StdRng::seed_from_u64(names.fold(seed ^ 0xcbf2_9ce4_8422_2325, mix));
            Direction { path, chance, fates: Fates::default() }
        })
    }
}

impl Direction {
    /// How late each copy of the next datagram is; none: it is lost.
    fn decide(&mut self) -> Vec<Duration> {
        // always as many draws, so that a change of path does not change the chances of what comes later
        let [loss, duplication, first, second] = [(); 4].map(|()| self.chance.random::<f64>());
        let Path { delay, jitter, .. } = self.path;
        self.fates.offered += 1;
        if self.path.cut {
            self.fates.cut += 1;
            return Vec::new();
        }
        if loss < self.path.loss {
            self.fates.lost += 1;
            return Vec::new();
        }
        let mut late = vec![delay + jitter.mul_f64(first)];
        if duplication < self.path.duplication {
            self.fates.doubled += 1;
            late.push(delay + jitter.mul_f64(second));
        }
        late
    }
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Flight {}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

/// Sends each datagram when it is due, until the relay ends.
async fn carry(mut incoming: mpsc::UnboundedReceiver<Flight>) {
    let mut flights: BinaryHeap<Reverse<Flight>> = BinaryHeap::new();
    loop {
        let due = flights.peek().map(|next| next.0.due);
        tokio::select! {
            flight = incoming.recv() => match flight {
                Some(flight) => flights.push(Reverse(flight)),
                None => return,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                while flights.peek().is_some_and(|next| next.0.due <= Instant::now()) {
                    let Some(Reverse(flight)) = flights.pop() else { break };
                    // what a real network does with what it can't deliver
                    let _ = flight.from.send_to(&flight.bytes, flight.to).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
