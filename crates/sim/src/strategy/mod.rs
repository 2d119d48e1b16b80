//! Strategies: what decides requests at the nodes. Here is what they have in common, and the list of them. It must not
//! know how any one of them works.

mod calls;
mod central;
mod cloud_control;
mod demand_share;
mod fixed_split;
mod fluid;
mod meters;
mod oracle;
mod owner;
mod owner_async;
mod peers;
pub(crate) mod spillgate;
mod window_counter;

use crate::observe::{Fault, Request};
use crate::run::{Options, RunResult, run_with};
use crate::scenario::{Endpoint, Scenario};
use crate::world::World;

/// Decides requests at all nodes of a cluster.
///
/// One value stands for all nodes, and must itself see to it that a node acts only on what that node can know: its own
/// state, the messages that reached it, its own clock. It may keep state by node; a node's state is void when its
/// process ends.
///
/// Calls come one at a time, in order of virtual time. In each the strategy may send messages, set timers, and answer
/// requests, the one that arrives or others that it holds, by [`World::decide`]; each is to be answered once.
pub trait Strategy: Sized {
    /// What its messages say.
    type Message: Clone;

    /// A new one, for a run of `scenario`; no node runs yet. `name` is the one it was asked for by.
    fn new(name: &'static str, scenario: &Scenario) -> Self;

    /// A request arrives at a node, which runs and is ready.
    fn arrival(&mut self, world: &mut World<'_, Self::Message>, request: &Request);

    /// A message arrives at `to`. The sender may have ended since; it may have been another run of `from`.
    fn deliver(&mut self, world: &mut World<'_, Self::Message>, from: Endpoint, to: Endpoint, message: &Self::Message) {
        let _ = (world, from, to, message);
    }

    /// A timer that the node has set runs out.
    fn timer(&mut self, world: &mut World<'_, Self::Message>, node: Endpoint, token: u64) {
        let _ = (world, node, token);
    }

    /// Something happens to a node, or it hears of a peer's fate. What is leaving must go, sooner or later.
    fn fault(&mut self, world: &mut World<'_, Self::Message>, fault: Fault) {
        if let Fault::Leaving(node) = fault {
            world.gone(node);
        }
    }

    /// The time has come for [`World::observe`]: bounds, convergence, what nodes know. Must not change what is decided.
    fn sample(&mut self, world: &mut World<'_, Self::Message>) {
        let _ = world;
    }
}

/// A strategy that scenarios can name.
#[derive(Debug)]
pub struct Registered {
    /// How they name it.
    pub name: &'static str,
    /// What it is, in half a sentence.
    pub about: &'static str,
    /// Makes a run of it.
    pub run: fn(&'static str, &Scenario, u64, Options<'_>) -> RunResult,
}

impl PartialEq for Registered {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// All of them, in the order of reports.
pub static ALL: &[Registered] = &[
    Registered {
        name: "oracle",
        about: "one central bucket that knows everything at once: what no real system can be",
        run: run_with::<oracle::Oracle>,
    },
    Registered {
        name: "central",
        about: "a Redis-like store that decides everything, a round trip away",
        run: run_with::<central::Central>,
    },
    Registered {
        name: "static",
        about: "each node its fixed part of the limit, without a word to the others",
        run: run_with::<fixed_split::FixedSplit>,
    },
    Registered {
        name: "window-counter",
        about: "fixed windows, counters pushed to all peers and merged by maximum (Limitador)",
        run: run_with::<window_counter::WindowCounter>,
    },
    Registered {
        name: "demand-share",
        about: "each node a part of the rate by its part of the gossiped demand (rateguard)",
        run: run_with::<demand_share::DemandShare>,
    },
    Registered {
        name: "owner",
        about: "one node a key decides, the others forward to it (gubernator)",
        run: run_with::<owner::Owner>,
    },
    Registered {
        name: "owner-async",
        about: "each node answers, and tells the key's owner 100 ms later (gubernator's GLOBAL)",
        run: run_with::<owner_async::OwnerAsync>,
    },
    Registered {
        name: "global-token-bucket",
        about: "full-size buckets that others' estimated arrivals drain, too (SIGCOMM 2007)",
        run: run_with::<cloud_control::Limiters<cloud_control::GlobalTokenBucket>>,
    },
    Registered {
        name: "global-random-drop",
        about: "refusals as likely as the whole demand exceeds the limit (SIGCOMM 2007)",
        run: run_with::<cloud_control::Limiters<cloud_control::GlobalRandomDrop>>,
    },
    Registered {
        name: "flow-proportional-share",
        about: "local buckets by weight among all (SIGCOMM 2007)",
        run: run_with::<cloud_control::Limiters<cloud_control::FlowProportionalShare>>,
    },
    Registered {
        name: "gossip",
        about: "spillgate without its rule: whatever the local count allows",
        run: run_with::<spillgate::Spillgate>,
    },
    Registered {
        name: "bounded",
        about: "spillgate's default: overshoot up to max_overshoot buys utilisation",
        run: run_with::<spillgate::Spillgate>,
    },
    Registered {
        name: "strict",
        about: "spillgate without overshoot, at the price of some refusals",
        run: run_with::<spillgate::Spillgate>,
    },
];

/// The strategy of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Registered> {
    ALL.iter().find(|s| s.name == name)
}
