//! The referee's own test: cores that are broken on purpose are caught. The core has no switches for that, so each is
//! broken where it listens: what reaches it is what a core with that fault would have made of what was said.

use spillgate_core::wire::{Frame, decode_frame, encode_frame};

use super::{Violation, all};
use crate::observe::{Fault, Request};
use crate::run::{Options, run_with};
use crate::scenario::{Endpoint, Scenario};
use crate::strategy::Strategy;
use crate::strategy::spillgate::{Spillgate, Word};
use crate::world::World;

/// Nothing is broken: the control.
const SOUND: u8 = 0;
/// Whatever a confirmation says, all that was ever sent is taken for confirmed.
const BELIEVES: u8 = 1;
/// Merging adds what is news to what was said before.
const ADDS: u8 = 2;
/// A window's reset clears the slot of the second node again with all that it says in the window.
const CLEARS_A_SLOT: u8 = 3;

/// Spillgate with one fault.
struct Broken<const HOW: u8>(Spillgate);

impl<const HOW: u8> Broken<HOW> {
    fn tamper(from: Endpoint, sent: u64, frame: &mut Frame) {
        match HOW {
            BELIEVES => {
                if let Some(ack) = &mut frame.header.ack {
                    (ack.high, ack.bits) = (sent, u64::MAX);
                }
            }
            ADDS => {
                for update in &mut frame.updates {
                    update.granted += update.fresh;
                }
            }
            CLEARS_A_SLOT if from == 1 => {
                for update in frame.updates.iter_mut().filter(|u| u.window.is_some()) {
                    update.granted -= update.fresh;
                    update.fresh = 0;
                }
            }
            _ => {}
        }
    }
}

impl<const HOW: u8> Strategy for Broken<HOW> {
    type Message = Word;

    fn new(name: &'static str, scenario: &Scenario) -> Self {
        Self(Spillgate::new(name, scenario))
    }

    fn arrival(&mut self, world: &mut World<'_, Word>, request: &Request) {
        self.0.arrival(world, request);
    }

    fn deliver(&mut self, world: &mut World<'_, Word>, from: Endpoint, to: Endpoint, word: &Word) {
        let Word::Frame(incarnation, run, bytes) = word else { return self.0.deliver(world, from, to, word) };
        let mut frame = decode_frame(bytes).expect("the core's own frames are well-formed");
        Self::tamper(from, self.0.frames_sent(world, to, from), &mut frame);
        self.0.deliver(world, from, to, &Word::Frame(*incarnation, *run, encode_frame(&frame)));
    }

    fn timer(&mut self, world: &mut World<'_, Word>, node: Endpoint, token: u64) {
        self.0.timer(world, node, token);
    }

    fn fault(&mut self, world: &mut World<'_, Word>, fault: Fault) {
        self.0.fault(world, fault);
    }

    fn sample(&mut self, world: &mut World<'_, Word>) {
        self.0.sample(world);
    }
}

fn violations<const HOW: u8>(text: &str, strategy: &'static str) -> Vec<Violation> {
    let scenario = Scenario::parse("mutation", text, &|_| Err("no such file".into())).expect("a scenario");
    let options = Options { checkers: all(&scenario, strategy), observers: Vec::new() };
    run_with::<Broken<HOW>>(strategy, &scenario, 1, options).violations
}

/// The broken one is caught by that checker at least, the sound one by none.
fn caught<const HOW: u8>(text: &str, strategy: &'static str, checker: &str) {
    let sound = violations::<SOUND>(text, strategy);
    assert_eq!(sound, [], "the sound core is blamed");
    let found = violations::<HOW>(text, strategy);
    let found = found.iter().find(|v| v.checker == checker).unwrap_or_else(|| panic!("not caught: {found:?}"));
    assert_eq!(found.seed, 1);
    assert_eq!(found.replay, format!("spillgate simulate simulations/mutation.toml --strategy {strategy} --seed 1"));
}

const SLOW: &str = "
duration = '5s'
[nodes]
count = 4
[network]
latency = '40ms'
[[limit]]
rate = '1000/s'
[[workload]]
load = 3.0
";

#[test]
fn confirmations_believed_too_early_are_caught() {
    caught::<BELIEVES>(SLOW, "strict", "promise");
}

const PLAIN: &str = "
duration = '3s'
[[limit]]
rate = '1000/s'
[[workload]]
load = 1.5
";

#[test]
fn a_merge_that_adds_is_caught() {
    caught::<ADDS>(PLAIN, "bounded", "counters-grow");
}

const WINDOWS: &str = "
duration = '5s'
[[limit]]
algorithm = 'fixed-window'
rate = '1000/s'
[[workload]]
load = 2.0
";

#[test]
fn a_window_reset_that_clears_one_slot_is_caught() {
    caught::<CLEARS_A_SLOT>(WINDOWS, "strict", "promise");
}
