//! `oracle`: one bucket a key that every node sees at once. It is the yardstick, not a system: nothing that has to send
//! messages can be like it.

use super::Strategy;
use crate::bucket::Buckets;
use crate::observe::Request;
use crate::scenario::Scenario;
use crate::world::World;

/// The central buckets, on one clock.
#[derive(Debug, Default)]
pub(super) struct Oracle(Buckets);

impl Strategy for Oracle {
    type Message = ();

    fn new(_: &'static str, _: &Scenario) -> Self {
        Self::default()
    }

    fn arrival(&mut self, world: &mut World<'_, ()>, request: &Request) {
        let (rule, now) = (world.rule(request), world.clock(world.store()));
        let verdict = self.0.decide(rule, now, request.limit, request.key, request.cost);
        world.decide(request, verdict);
    }
}
