//! Whom each node holds to be there, from the news of membership. It must not know what that is used for.

use crate::observe::Fault;
use crate::scenario::Endpoint;

/// By node and peer, the run of the peer that the node holds to be there.
#[derive(Debug)]
pub(super) struct Peers(Vec<Vec<Option<u64>>>);

impl Peers {
    /// Nobody knows anybody.
    pub fn new(nodes: usize) -> Self {
        Self(vec![vec![None; nodes]; nodes])
    }

    /// Takes in what has happened.
    pub fn note(&mut self, fault: Fault) {
        match fault {
            Fault::Up(node) | Fault::Crashed(node) | Fault::Gone(node) => self.0[node].fill(None),
            Fault::PeerUp { node, peer, incarnation } => self.0[node][peer] = Some(incarnation),
            Fault::PeerDead { node, peer, incarnation } | Fault::PeerLeft { node, peer, incarnation } => {
                if self.0[node][peer] == Some(incarnation) {
                    self.0[node][peer] = None;
                }
            }
            Fault::Leaving(_) | Fault::Paused(_) | Fault::Resumed(_) => {}
        }
    }

    /// The peers of a node, in their order, without itself.
    pub fn of(&self, node: Endpoint) -> impl Iterator<Item = Endpoint> + '_ {
        self.0[node].iter().enumerate().filter(|(_, run)| run.is_some()).map(|(peer, _)| peer)
    }

    /// Which run of the peer the node holds to be there.
    pub fn run(&self, node: Endpoint, peer: Endpoint) -> Option<u64> {
        self.0[node][peer]
    }

    /// How many members the node counts, itself included.
    pub fn members(&self, node: Endpoint) -> usize {
        1 + self.of(node).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_news_of_an_earlier_run_takes_nobody_away() {
        let mut peers = Peers::new(3);
        peers.note(Fault::PeerUp { node: 0, peer: 2, incarnation: 1 });
        peers.note(Fault::PeerUp { node: 0, peer: 2, incarnation: 2 });
        peers.note(Fault::PeerDead { node: 0, peer: 2, incarnation: 1 });
        assert_eq!((peers.members(0), peers.run(0, 2), peers.members(1)), (2, Some(2), 1));
        peers.note(Fault::PeerLeft { node: 0, peer: 2, incarnation: 2 });
        assert_eq!(peers.of(0).count(), 0);
    }
}
