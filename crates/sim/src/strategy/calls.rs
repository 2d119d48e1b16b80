//! Requests whose decision is asked of another endpoint, over a stream, with patience. It must not know whom is asked.

use std::collections::BTreeMap;

use spillgate_core::time::Nanos;

use crate::observe::{Reason, Request, Verdict};
use crate::scenario::Endpoint;
use crate::world::{Message, World};

/// How long a node waits for the answer: the default of gubernator's batches, and within what Redis clients take.
pub(super) const PATIENCE: Nanos = Nanos::from_millis(500);
/// The timer of a leaving node, whose calls get their answers first. No request has this number.
pub(super) const LEAVE: u64 = 0;
/// About what question and answer take, framing included, besides the key.
const ASK_BYTES: usize = 64;
const ANSWER_BYTES: usize = 48;

/// What is said.
#[derive(Clone, Debug)]
pub(super) enum Call {
    /// Decide this.
    Ask(Request),
    /// It is decided.
    Answer(Request, Verdict),
}

/// What has been asked, by all nodes, and not been answered.
#[derive(Debug, Default)]
pub(super) struct Calls(BTreeMap<u64, Request>);

impl Calls {
    /// Asks, and gives up after [`PATIENCE`].
    pub fn ask(&mut self, world: &mut World<'_, Call>, whom: Endpoint, request: &Request) {
        let bytes = ASK_BYTES + world.scenario().keys.text(request.key).len();
        world.send(request.node, whom, Message::stream(bytes, Call::Ask(*request)));
        world.timer(request.node, PATIENCE, request.id);
        self.0.insert(request.id, *request);
    }

    /// Sends an answer back.
    pub fn reply(world: &mut World<'_, Call>, by: Endpoint, request: &Request, verdict: Verdict) {
        world.send(by, request.node, Message::stream(ANSWER_BYTES, Call::Answer(*request, verdict)));
    }

    /// An answer came; one that comes too late is none.
    pub fn answered(&mut self, world: &mut World<'_, Call>, request: &Request, verdict: Verdict) {
        if self.0.remove(&request.id).is_some() {
            world.decide(request, verdict);
        }
    }

    /// A node's timer ran out: a request is refused, or a leaving node goes.
    pub fn timer(&mut self, world: &mut World<'_, Call>, node: Endpoint, token: u64) {
        if token == LEAVE {
            world.gone(node);
        } else if let Some(request) = self.0.remove(&token) {
            world.decide(&request, Verdict::denied(Reason::Unreachable));
        }
    }

    /// A node's process is gone, and nobody waits there any more.
    pub fn drop_of(&mut self, node: Endpoint) {
        self.0.retain(|_, request| request.node != node);
    }
}
