//! One link: sequence numbers, confirmations, loss, and what the peer has still to be told. It must not know keys'
//! states or other peers.

use std::collections::VecDeque;
use std::sync::Arc;

use super::backlog::{Backlog, Keys};
use super::budget::Budget;
use super::flight::{Cargo, Flight, Sent, Word};
use super::joint::Mark;
use super::received::Received;
use super::settled::{self, Settled};
use crate::counter::Slot;
use crate::entry::KeyId;
use crate::time::Nanos;
use crate::view::{PeerState, ReplicaId};
use crate::wire::{
    Ack, EXTENSION_ANEW, EXTENSION_MEMBERS, FLAG_BEHIND, FLAG_DEAF, FLAG_INCLUDED, FLAG_RELEASING, FLAG_SYNCED, Header,
};

/// A frame counts as lost when one sent so many later was received.
const REORDER_MAX: u64 = 3;
/// So many frames may go without a confirmation: well below [`crate::wire::WINDOW`], or the peer would take the rest for lost.
const ACK_EVERY: u32 = 24;
/// Frames whose times of sending are kept: more than go out in any round trip worth the name.
const SENT_TIMES_MAX: usize = 512;
/// The round trip assumed before the first is measured.
const ROUND_TRIP_FIRST: Nanos = Nanos::from_millis(20);

/// One peer and the link to it.
#[derive(Debug)]
pub struct Peer {
    /// Who.
    pub replica: ReplicaId,
    /// Its short name here.
    pub slot: Slot,
    /// How it stands.
    pub state: PeerState,
    /// Whether membership calls it dead.
    pub dead: bool,
    /// When it was last heard, or met.
    pub heard: Nanos,
    /// When the newest frame was sent that it has confirmed: it heard this node after that.
    pub heard_us: Nanos,
    /// Up to when all is known here that it granted, but for what it had still to tell in its next round.
    pub known: Nanos,
    /// When it was last seen to go on by itself, or might have.
    pub apart_at: Option<Nanos>,
    /// Whether it was ever heard.
    pub spoke: bool,
    /// Whether other peers count it and this node has not met it yet.
    pub hearsay: bool,
    /// Whether it counts this node among those that must confirm.
    pub includes_us: bool,
    /// Whether it says that this node has confirmed all it had to say when they met.
    pub synced_to_us: bool,
    /// Whether it says that it does not hear this node.
    pub deaf: bool,
    /// Whether it says that it goes on without this node's confirmation.
    pub releasing: bool,
    /// Whether it has not been heard for the stale time.
    pub unheard: bool,
    /// The digest of all replicas that it counts, by its own word, and the number of the frame that said so.
    pub members: Option<u64>,
    members_seq: u64,
    /// The first of its frames since which it tells all it has to say anew, by its own word, and up to which of its frames
    /// what it did not tell again has been taken back.
    anew_from: u64,
    taken_back: u64,
    /// The first frame since which it is told everything anew, and whether it has confirmed one that says so.
    anew_said: (u64, bool),
    /// The digest of this node's members that it is told, in which frame first, and whether it has confirmed one with it.
    members_said: (u64, u64),
    members_told: bool,
    /// Whether this node must confirm something at the next tick.
    pub owes_ack: bool,
    /// When something was sent last.
    pub sent_at: Nanos,
    /// Smoothed round trip.
    pub round_trip: Option<Nanos>,
    /// Its wall clock minus ours in seconds, smoothed.
    pub clock_offset: Option<f64>,
    /// Keys that it named and this node can't place.
    pub unknown: Vec<[u8; 16]>,
    /// Frames sent, received, and noticed as lost.
    pub frames: (u64, u64, u64),
    /// The newest stable tick that it has confirmed hearing of.
    pub stable_told: u64,
    in_flight: Flight,
    /// One for all: most frames carry none.
    no_keys: Arc<[KeyId]>,
    /// When frames were sent, with their numbers: also of those that were given up for lost, since on a slow path that is
    /// where the round trip is learnt.
    sent_times: VecDeque<(u64, Nanos)>,
    /// The newest frame that it has confirmed, and when that was sent.
    confirmed_sent: (u64, Nanos),
    backlog: Backlog,
    budget: Budget,
    synced: bool,
    /// The tick when it was last queued everything there was.
    everything_at: u64,
    seq: u64,
    received: Received,
    settled: Settled,
    /// Frames received since the last confirmation went out.
    received_unacked: u32,
}

impl Peer {
    /// Whether it goes on without this node's confirmation, or may: it is silent, or has not ended its own silence yet.
    pub(crate) fn goes_on(&self) -> bool {
        self.state == PeerState::Silent || self.releasing
    }

    /// A peer just met: it is to be told everything that has happened up to `tick`, in frames with numbers above `said`.
    #[must_use]
    pub fn new(replica: ReplicaId, slot: Slot, now: Nanos, tick: u64, said: u64) -> Self {
        Self {
            replica,
            slot,
            state: PeerState::Joining,
            dead: false,
            heard: now,
            heard_us: now,
            known: now,
            apart_at: None,
            spoke: false,
            hearsay: false,
            includes_us: false,
            synced_to_us: false,
            deaf: false,
            releasing: false,
            unheard: false,
            members: None,
            members_seq: 0,
            anew_from: 0,
            taken_back: 0,
            // whom nobody has told anything holds nothing to take back
            anew_said: (said + 1, true),
            members_said: (0, 0),
            members_told: false,
            owes_ack: false,
            sent_at: Nanos::ZERO,
            round_trip: None,
            clock_offset: None,
            unknown: Vec::new(),
            frames: (0, 0, 0),
            stable_told: 0,
            in_flight: Flight::default(),
            no_keys: Arc::from([]),
            sent_times: VecDeque::new(),
            confirmed_sent: (0, now),
            backlog: Backlog::Everything(tick),
            budget: Budget::new(),
            synced: false,
            everything_at: tick,
            seq: said,
            received: Received::default(),
            settled: Settled::default(),
            received_unacked: 0,
        }
    }

    /// The round trip, or a guess before the first.
    #[must_use]
    pub fn round_trip(&self) -> Nanos {
        self.round_trip.unwrap_or(ROUND_TRIP_FIRST)
    }

    /// The newest tick up to which it has confirmed everything; `last` is the newest there is.
    #[must_use]
    pub fn confirmed(&self, last: u64) -> u64 {
        let oldest = self.in_flight.oldest().into_iter().chain(self.backlog.oldest()).min();
        oldest.map_or(last, |tick| tick.saturating_sub(1))
    }

    /// The number of the last frame to it.
    #[must_use]
    pub const fn said(&self) -> u64 {
        self.seq
    }

    /// Whether it has confirmed hearing which replicas this node counts now.
    #[must_use]
    pub const fn knows_members(&self) -> bool {
        self.members_told
    }

    /// What it adds to all live peers together, where it is one; `last` is the newest tick.
    #[must_use]
    pub fn mark(&self, last: u64) -> Option<Mark> {
        let mark = || Mark { confirmed: self.confirmed(last), stable: self.stable_told, round_trip: self.round_trip() };
        (self.state == PeerState::Alive).then(mark)
    }

    /// Whether it has confirmed all there was to say when they met.
    #[must_use]
    pub const fn synced(&self) -> bool {
        self.synced
    }

    /// Gives up on single keys: it will be told everything anew, as of `tick`.
    pub fn start_over(&mut self, tick: u64) {
        let oldest = self.confirmed(tick.saturating_sub(1)) + 1;
        self.in_flight.0.clear();
        self.budget.start_over();
        self.backlog = Backlog::Everything(oldest.min(tick));
        self.synced = false;
        self.anew_said = (self.seq + 1, false);
    }

    /// Whether it waits to be told everything.
    #[must_use]
    pub const fn wants_everything(&self) -> bool {
        matches!(self.backlog, Backlog::Everything(_))
    }

    /// Answers [`Self::wants_everything`]: these are all the keys there are at `present`, the newest tick.
    pub fn queue_everything(&mut self, keys: impl IntoIterator<Item = KeyId>, present: u64) {
        self.everything_at = present;
        if let Backlog::Everything(tick) = self.backlog {
            self.backlog = Backlog::Keys(Keys::default());
            let keys: Vec<KeyId> = keys.into_iter().collect();
            self.queue(&keys, tick);
        }
    }

    /// Queues keys to be told, since news of `tick` was lost or had to wait.
    pub fn queue(&mut self, keys: &[KeyId], tick: u64) {
        if self.backlog.add(keys, tick) {
            self.start_over(tick);
        }
    }

    /// Takes up to `most` queued keys, and the oldest tick whose news they lack.
    pub fn take_queued(&mut self, most: usize) -> (Vec<KeyId>, u64) {
        self.backlog.take(most)
    }

    /// Looks, before `tick` is told, which of its frames had been received when the last was told that it has.
    pub fn look_settled(&mut self, tick: u64) {
        let missing = self.in_flight.oldest_missing().into_iter().chain(self.backlog.oldest()).min();
        self.settled.look(tick, missing, self.received);
    }

    /// Bytes of news that may go out to it now, beside what is under way.
    #[must_use]
    pub fn room(&self) -> usize {
        self.budget.room()
    }

    /// The header of the next frame, and of the news that it carries, if any; it is noted as under way.
    pub fn next_header(&mut self, now: Nanos, word: Word, cargo: Option<Cargo>) -> Header {
        let Word { own, stable, members } = word;
        self.seq += 1;
        if self.members_said.0 != members {
            (self.members_said, self.members_told) = ((members, self.seq), false);
        }
        self.frames.0 += 1;
        self.sent_at = now;
        self.owes_ack = false;
        self.received_unacked = 0;
        let tick = cargo.as_ref().map(|c| c.tick);
        let (bytes, keys) = cargo.map_or_else(|| (0, Arc::clone(&self.no_keys)), |c| (c.bytes, c.keys));
        self.budget.sent(bytes);
        let needs = self.needed(&keys);
        self.in_flight.0.push_back(Sent { seq: self.seq, at: now, tick, stable, bytes, arrived: false, keys });
        if self.sent_times.len() >= SENT_TIMES_MAX {
            self.sent_times.pop_front();
        }
        self.sent_times.push_back((self.seq, now));
        let flags = [
            (self.state != PeerState::Joining, FLAG_INCLUDED),
            (self.synced, FLAG_SYNCED),
            (self.unheard, FLAG_DEAF),
            (self.state == PeerState::Silent, FLAG_RELEASING),
            (needs.is_none(), FLAG_BEHIND),
        ];
        let flags = flags.iter().filter(|(holds, _)| *holds).fold(0, |all, (_, flag)| all | flag);
        let (unknown, mut extensions) = (Vec::new(), Vec::new());
        if !self.members_told {
            extensions.push((EXTENSION_MEMBERS, members.to_be_bytes().to_vec()));
        }
        if needs != Some(0) {
            extensions.extend(self.settled.extension());
        }
        if let (anew_from, false) = self.anew_said {
            extensions.push((EXTENSION_ANEW, anew_from.to_be_bytes().to_vec()));
        }
        Header {
            incarnation: own,
            seq: self.seq,
            ack: self.received.ack(self.replica.incarnation, now),
            stable,
            flags,
            needs: needs.unwrap_or(0),
            unknown,
            extensions,
        }
    }

    /// Which earlier frames the peer must have beside the next one, which tells `keys`, to know all news so far; `None`
    /// when not even that would do.
    fn needed(&self, keys: &[KeyId]) -> Option<u64> {
        let needs = self.in_flight.needed(self.seq, keys)?;
        self.backlog.oldest().is_none().then_some(needs)
    }

    /// Whether all has been received that a frame [needs](Header::needs).
    #[must_use]
    pub fn has_needed(&self, header: &Header) -> bool {
        header.flags & FLAG_BEHIND == 0 && self.received.has_before(header.seq, header.needs)
    }

    /// Notes a frame received. False when it is a duplicate or too old to be told from one.
    pub fn receive(&mut self, header: &Header, now: Nanos) -> bool {
        let newest = self.received.is_newest(header.seq);
        if !self.received.note(header.seq, now) {
            return false;
        }
        if newest {
            self.read_word(header);
        }
        self.read_extensions(header);
        self.frames.1 += 1;
        self.received_unacked += 1;
        self.heard = now;
        self.spoke = true;
        self.unheard = false;
        true
    }

    /// Which frames were received.
    #[must_use]
    pub const fn received(&self) -> Received {
        self.received
    }

    /// The frame received since then counts as not received.
    pub const fn restore(&mut self, received: Received) {
        self.received = received;
    }

    /// Takes in what the newest frame says of the peer's view of this node; an older one would only take it back.
    const fn read_word(&mut self, header: &Header) {
        self.includes_us = header.flags & FLAG_INCLUDED != 0;
        self.synced_to_us = header.flags & FLAG_SYNCED != 0;
        self.deaf = header.flags & FLAG_DEAF != 0;
        self.releasing = header.flags & FLAG_RELEASING != 0;
    }

    /// Takes in what is told until it is confirmed: a frame that comes late may be the only one that tells it, since to
    /// the sender it is confirmed with that frame.
    fn read_extensions(&mut self, header: &Header) {
        let number = |tag| header.extension(tag).map(u64::from_be_bytes);
        if let Some(digest) = number(EXTENSION_MEMBERS).filter(|_| header.seq > self.members_seq) {
            (self.members, self.members_seq) = (Some(digest), header.seq);
        }
        // it speaks of frames up to its own, or it is no honest one
        let anew_from = number(EXTENSION_ANEW).filter(|from| *from <= header.seq);
        self.anew_from = self.anew_from.max(anew_from.unwrap_or(0));
    }

    /// Once it has told all it has to say anew: the first of the frames since which it did. What it asked for before, and
    /// did not say again, it asks for no more.
    pub fn take_retold(&mut self) -> Option<u64> {
        let retold = self.synced_to_us && self.anew_from > self.taken_back;
        retold.then(|| {
            self.taken_back = self.anew_from;
            self.anew_from
        })
    }

    /// Whether a frame of that number is older than all that counts of the demands it tells.
    #[must_use]
    pub const fn is_taken_back(&self, seq: u64) -> bool {
        seq < self.taken_back
    }

    /// Whether so much was received that the confirmation can't wait for the next tick.
    #[must_use]
    pub const fn acks_due(&self) -> bool {
        self.received_unacked >= ACK_EVERY
    }

    /// Takes in a confirmation; `own` is this node's incarnation.
    ///
    /// What it confirms counts as heard only where `all_known`: where this node has all news that the peer had when it
    /// confirmed. Or charges would leave the window that the peer has heard of, while what the peer had spent before it
    /// did is still on its way, and be granted once more.
    pub fn confirm(&mut self, ack: &Ack, all_known: bool, own: u64, now: Nanos) {
        if ack.of != own || ack.high > self.seq {
            return;
        }
        let got = |seq: u64| ack.names(seq);
        let mut lost = Vec::new();
        let (mut members_told, said_from) = (self.members_told, self.members_said.1);
        let mut anew_said = self.anew_said;
        let sample = self.sample(ack, now);
        if all_known && self.confirmed_sent.0 == ack.high {
            // it spoke after hearing that frame, and all that it had told by then is known here
            self.known = self.known.max(self.confirmed_sent.1);
        }
        self.in_flight.supersede(&got);
        let (mut arrived, mut lost_bytes) = (0, 0);
        let mut heard_us = self.heard_us;
        self.in_flight.0.retain_mut(|sent| {
            if got(sent.seq) && !sent.arrived {
                sent.arrived = true;
                arrived += sent.bytes;
                heard_us = heard_us.max(sent.at);
                members_told |= sent.seq >= said_from;
                anew_said.1 |= sent.seq >= anew_said.0;
            }
            let gone = !sent.arrived && sent.seq + REORDER_MAX <= ack.high;
            if gone {
                lost_bytes += sent.bytes;
                lost.push((Arc::clone(&sent.keys), sent.tick));
            }
            !gone
        });
        if all_known {
            self.let_go(ack);
        }
        (self.members_told, self.anew_said) = (members_told, anew_said);
        self.heard_us = heard_us;
        self.budget.arrived(arrived);
        self.budget.lost(lost_bytes, now, self.round_trip());
        self.lose(lost);
        if let Some(sample) = sample {
            self.round_trip = Some(match self.round_trip {
                Some(smoothed) => Nanos((smoothed.0 / 8).saturating_mul(7).saturating_add(sample.0 / 8)),
                None => sample,
            });
        }
        self.note_synced();
    }

    /// Takes in what the peer says that it had received before it told the last of what has arrived here.
    pub fn confirm_settled(&mut self, header: &Header, own: u64) {
        if let Some(ack) = settled::read(header).filter(|ack| ack.of == own) {
            self.let_go(&ack);
        }
    }

    fn let_go(&mut self, ack: &Ack) {
        let announced = self.in_flight.let_go(ack);
        self.stable_told = self.stable_told.max(announced.unwrap_or(0));
    }

    /// The round trip that a confirmation shows, once for each frame.
    fn sample(&mut self, ack: &Ack, now: Nanos) -> Option<Nanos> {
        while self.sent_times.front().is_some_and(|(seq, _)| *seq < ack.high) {
            self.sent_times.pop_front();
        }
        let (_, at) = self.sent_times.pop_front_if(|(seq, _)| *seq == ack.high)?;
        self.confirmed_sent = (ack.high, at);
        Some(now.since(at).since(Nanos(ack.delay_us.saturating_mul(1000))))
    }

    /// Notices frames that were not confirmed for so long that they must be lost.
    pub fn expire(&mut self, now: Nanos, interval: Nanos) {
        let patience = self.round_trip().times(2).plus(interval.times(3));
        let (mut lost, mut lost_bytes) = (Vec::new(), 0);
        self.in_flight.0.retain(|sent| {
            let waits = sent.arrived || now.since(sent.at) <= patience;
            if !waits {
                lost_bytes += sent.bytes;
                lost.push((Arc::clone(&sent.keys), sent.tick));
            }
            waits
        });
        self.budget.lost(lost_bytes, now, self.round_trip());
        self.lose(lost);
    }

    fn lose(&mut self, lost: Vec<(Arc<[KeyId]>, Option<u64>)>) {
        for (keys, tick) in lost {
            // a frame without news asks for nothing, and its loss costs nothing
            if let Some(tick) = tick {
                self.frames.2 += 1;
                self.queue(&keys, tick);
            }
        }
    }

    /// Notes whether everything there was to say has been confirmed by now.
    pub fn note_synced(&mut self) {
        let begun = matches!(self.backlog, Backlog::Keys(_));
        self.synced |= self.spoke && begun && self.confirmed(u64::MAX) >= self.everything_at;
    }
}

#[cfg(test)]
mod tests;
