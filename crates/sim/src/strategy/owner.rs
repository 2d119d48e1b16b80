//! `owner`: one node decides all requests under a key, picked by the key's hash among the members; the others forward.
//!
//! Source: gubernator's architecture page (docs/architecture.md, "Gubernator Architecture" and "Operation"): a consistent
//! hash of the key names the peer that owns it; only the owner counts; state is in memory and lost with its process.
//! A node that calls the owner dead hashes among those left, and the new owner begins with a full bucket; while
//! membership has not noticed, requests to it end as `unreachable` after 500 ms, the default timeout of its batches.
//!
//! Simplified: rendezvous hashing in place of a ring with virtual nodes (the same ownership, fewer moves); no batching
//! of forwarded requests, which would add up to 500 us; core's arithmetic in place of gubernator's own. All in its
//! favour. It must not know how membership works.

use super::Strategy;
use super::calls::{Call, Calls, LEAVE, PATIENCE};
use super::meters::{Key, Meters, key_of};
use super::peers::Peers;
use crate::observe::{Fault, Request};
use crate::scenario::{Endpoint, Scenario};
use crate::world::World;

/// All nodes.
#[derive(Debug)]
pub(super) struct Owner {
    peers: Peers,
    nodes: Vec<Meters>,
    calls: Calls,
}

impl Strategy for Owner {
    type Message = Call;

    fn new(_name: &'static str, scenario: &Scenario) -> Self {
        let n = scenario.nodes.all.len();
        Self { peers: Peers::new(n), nodes: (0..n).map(|_| Meters::default()).collect(), calls: Calls::default() }
    }

    fn arrival(&mut self, world: &mut World<'_, Call>, request: &Request) {
        let owner = owner_of(&self.peers, request.node, key_of(request));
        if owner == request.node {
            let verdict = self.nodes[owner].decide(world.rule(request), world.clock(owner), request);
            world.decide(request, verdict);
        } else {
            self.calls.ask(world, owner, request);
        }
    }

    fn deliver(&mut self, world: &mut World<'_, Call>, _from: Endpoint, to: Endpoint, call: &Call) {
        match call {
            // who is asked decides, whoever it holds to be the owner
            Call::Ask(request) => {
                let verdict = self.nodes[to].decide(world.rule(request), world.clock(to), request);
                Calls::reply(world, to, request, verdict);
            }
            Call::Answer(request, verdict) => self.calls.answered(world, request, *verdict),
        }
    }

    fn timer(&mut self, world: &mut World<'_, Call>, node: Endpoint, token: u64) {
        self.calls.timer(world, node, token);
    }

    fn fault(&mut self, world: &mut World<'_, Call>, fault: Fault) {
        self.peers.note(fault);
        match fault {
            Fault::Up(node) => self.nodes[node] = Meters::default(),
            // it goes on deciding while its peers hear of it
            Fault::Leaving(node) => world.timer(node, PATIENCE, LEAVE),
            Fault::Crashed(node) | Fault::Gone(node) => self.calls.drop_of(node),
            _ => {}
        }
    }
}

/// Who owns a key, as `node` sees it: of the members the one with the highest hash.
pub(super) fn owner_of(peers: &Peers, node: Endpoint, key: Key) -> Endpoint {
    peers.of(node).chain([node]).max_by_key(|member| (score(key, *member), *member)).unwrap_or(node)
}

/// A hash of key and member, each bit of which hangs on all bits of both (the finisher of splitmix64, twice).
fn score(key: Key, member: Endpoint) -> u64 {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let key = mix((key.0 as u64) << 32 | u64::from(key.1));
    mix(key ^ mix(member as u64 + 1).rotate_left(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_spread_evenly_and_stay_when_another_goes() {
        let mut peers = Peers::new(4);
        for peer in 1..4 {
            peers.note(Fault::PeerUp { node: 0, peer, incarnation: 1 });
        }
        let owners: Vec<_> = (0..4000).map(|key| owner_of(&peers, 0, (0, key))).collect();
        for node in 0..4 {
            let owned = owners.iter().filter(|o| **o == node).count();
            assert!((850..1150).contains(&owned), "{node} owns {owned} of 4000");
        }
        peers.note(Fault::PeerDead { node: 0, peer: 3, incarnation: 1 });
        for (key, owner) in owners.iter().enumerate().filter(|(_, owner)| **owner != 3) {
            assert_eq!(owner_of(&peers, 0, (0, key as u32)), *owner);
        }
    }
}
