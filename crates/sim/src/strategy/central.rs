//! `central`: every request is decided by one store, one round trip away, as limiters over Redis do with a script that
//! reads, decides and writes at once.
//!
//! Source: the common pattern (a Lua script in Redis, as redis-cell, Kong's and Spring Cloud Gateway's limiters have it).
//! The store is exact, has core's own arithmetic and the right clock. When its answer takes longer than 500 ms the
//! request is refused as `unreachable`; the store may have charged it all the same. (Many limiters can be told to allow
//! instead, and some do by default, as Envoy's; then nothing holds the limit while the store is cut off.)
//!
//! Simplified: the store never fails and takes no time to decide, however many ask; there is no pool of connections,
//! no failover, no loss of writes. All in its favour. It must not know where the store is.

use super::Strategy;
use super::calls::{Call, Calls, LEAVE, PATIENCE};
use crate::bucket::Buckets;
use crate::observe::{Fault, Request};
use crate::scenario::{Endpoint, Scenario};
use crate::world::World;

/// The store, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Central {
    store: Buckets,
    calls: Calls,
}

impl Strategy for Central {
    type Message = Call;

    fn new(_name: &'static str, _scenario: &Scenario) -> Self {
        Self::default()
    }

    fn arrival(&mut self, world: &mut World<'_, Call>, request: &Request) {
        let store = world.store();
        self.calls.ask(world, store, request);
    }

    fn deliver(&mut self, world: &mut World<'_, Call>, _from: Endpoint, to: Endpoint, call: &Call) {
        match call {
            Call::Ask(request) => {
                let now = world.clock(to);
                let verdict = self.store.decide(world.rule(request), now, request.limit, request.key, request.cost);
                Calls::reply(world, to, request, verdict);
            }
            Call::Answer(request, verdict) => self.calls.answered(world, request, *verdict),
        }
    }

    fn timer(&mut self, world: &mut World<'_, Call>, node: Endpoint, token: u64) {
        self.calls.timer(world, node, token);
    }

    fn fault(&mut self, world: &mut World<'_, Call>, fault: Fault) {
        match fault {
            Fault::Leaving(node) => world.timer(node, PATIENCE, LEAVE),
            Fault::Crashed(node) | Fault::Gone(node) => self.calls.drop_of(node),
            _ => {}
        }
    }
}
