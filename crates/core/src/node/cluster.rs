//! What peers do to the node and what it sends them: meeting, ticks, frames. It must not know how frames travel.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Node;
use super::batch::Batch;
use super::requests::enlist;
use crate::counter::Slot;
use crate::entry::KeyId;
use crate::gossip::{Cargo, KEEP_ALIVE, Links, Peer, Silent, Word};
use crate::stability::Outlook;
use crate::table::TOGETHER;
use crate::time::{Nanos, Now};
use crate::view::{PeerState, ReplicaId};
use crate::wire::{
    DecodeError, EXTENSION_WALL_CLOCK, FLAG_ASK, FLAG_BEHIND, FLAG_ELICIT, Frame, Header, Packer, UNKNOWN_MAX, Update,
    decode_frame, encode_header,
};

/// What a header takes at most, without a list of unknown keys.
const HEADER_BYTES_MAX: usize = 112;
/// What a frame that answers an urgent one may carry beside its header: that fits any path.
const REPLY_BYTES_MAX: usize = 1000;
/// Keys told again to one peer in one tick.
const REPAIRS_MAX: usize = 512;
/// What one of them takes at the least.
const REPAIR_BYTES: usize = 40;
/// Keys told again to all, in one tick, for no reason but caution.
const REMINDERS_MAX: usize = 8;
/// The wall clock is told so often.
const WALL_CLOCK_EVERY: Nanos = Nanos::from_secs(1);
/// How often time is let pass for silent peers.
const ASSUME_EVERY: Nanos = Nanos::from_millis(20);

/// Carries frames away.
pub trait Outbox {
    /// One frame to one peer; it may be lost.
    fn frame(&mut self, to: &ReplicaId, bytes: Vec<u8>);
}

/// What came of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Updates taken in.
    pub updates: usize,
    /// Whether more of this node's charges are common knowledge now, or tokens came back: held requests may be tried again.
    pub progress: bool,
}

/// Why a frame was dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is none.
    #[error("frame does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// It speaks for another run of the node than the link.
    #[error("frame speaks for incarnation {0}, the link is of {1}")]
    Incarnation(u64, ReplicaId),
    /// The sender is gone for good, or there are too many peers.
    #[error("frame of {0}, which is no peer (any more)")]
    Stranger(ReplicaId),
}

/// One round of news, as every peer is told of it.
struct Round {
    now: Now,
    tick: u64,
    /// Whether every peer is asked to confirm at once.
    ask: bool,
    /// Whether anything is new in it.
    news: bool,
    /// The tick that peers should know to be stable.
    announce: u64,
    word: Word,
    /// Peers that were not heard for some time: they are asked, before they are taken for silent.
    doubted: Vec<Slot>,
    bytes_max: usize,
    chunks: Vec<(Vec<u8>, Arc<[KeyId]>)>,
}

impl Round {
    const fn ask_flag(&self) -> u8 {
        if self.ask { FLAG_ASK } else { 0 }
    }
}

/// What follows a header when there is no news.
const NO_UPDATES: [u8; 1] = [0];

impl Node {
    /// Meets a peer: membership calls it alive and it has shown who it is.
    pub fn peer_up(&self, peer: &ReplicaId, now: Now) {
        let mut links = self.links.lock();
        self.meet(&mut links, peer, now);
        self.publish(links.outlook(now.at));
    }

    fn meet(&self, links: &mut Links, peer: &ReplicaId, now: Now) {
        if !links.admitted && links.find(peer).is_some_and(|p| p.hearsay) {
            // what it granted meanwhile comes all at once, on top of what was assumed of it
            self.doubt();
        }
        // a forerunner said no last word, or it would have left
        if let Some(freed) = links.meet(now.at, peer) {
            self.lose_slot(links, freed, now);
        }
    }

    /// Membership calls a peer dead: it may come back.
    pub fn peer_dead(&self, peer: &ReplicaId, now: Now) {
        let mut links = self.links.lock();
        if let Some(peer) = links.find(peer) {
            peer.dead = true;
        }
        self.publish(links.outlook(now.at));
    }

    /// A peer has left for good, and said so; its last word has been heard, unless it was silent.
    pub fn peer_left(&self, peer: &ReplicaId, now: Now) {
        let silent = self.links.lock().find(peer).is_some_and(|p| p.state == PeerState::Silent);
        self.part(peer, silent, now);
    }

    /// A peer is gone for good without a last word: another run of its node has taken its place.
    pub fn peer_lost(&self, peer: &ReplicaId, now: Now) {
        self.part(peer, true, now);
    }

    fn part(&self, peer: &ReplicaId, lost: bool, now: Now) {
        let mut links = self.links.lock();
        match links.part(peer) {
            Some(slot) if lost => self.lose_slot(&mut links, slot, now),
            Some(slot) => self.forget_slot(&mut links, slot),
            None => {}
        }
        self.publish(links.outlook(now.at));
    }

    /// Grants nothing from now on, even if peers count this node in: it may have to learn from their tables first.
    pub fn hold(&self, now: Now) {
        let mut links = self.links.lock();
        links.held = true;
        self.publish(links.outlook(now.at));
    }

    /// The peers' tables have come: granting waits for nothing more than being counted in.
    pub fn release(&self, now: Now) {
        let mut links = self.links.lock();
        links.held = false;
        self.publish(links.outlook(now.at));
    }

    /// This node itself stood still (a suspended machine, a stopped process) while its peers went on: their news of that
    /// time comes all at once, to buckets that were full meanwhile. Peers should be asked for their tables, whose levels
    /// are then better than its own.
    pub fn doubt(&self) {
        for shard in &self.shards {
            shard.0.lock().doubt();
        }
    }

    /// Waits no longer for whoever has not answered: with nobody there to count this node in, it begins by itself, with
    /// the whole limit; else those that have not spoken count as silent.
    pub fn begin_alone(&self, now: Now) {
        let mut links = self.links.lock();
        links.held = false;
        links.give_up_waiting();
        self.publish(links.outlook(now.at));
    }

    pub(super) fn forget_slot(&self, links: &mut Links, slot: Slot) {
        for shard in &self.shards {
            shard.0.lock().forget(slot);
        }
        links.free(slot);
    }

    /// The same of a replica that may have granted what nobody has heard of.
    pub(super) fn lose_slot(&self, links: &mut Links, slot: Slot, now: Now) {
        let outlook = self.outlook.load();
        for shard in &self.shards {
            shard.0.lock().lose(slot, now, &outlook);
        }
        self.forget_slot(links, slot);
    }

    /// One round of news to every peer. `bytes_max` is the longest frame that travels.
    pub fn tick(&self, now: Now, bytes_max: usize, outbox: &mut impl Outbox) {
        self.round(now, bytes_max, false, outbox);
        let places = self.shards.len() as u64;
        let mut links = self.links.lock();
        let place = (links.tick % places) as usize;
        self.shards[place].0.lock().sweep(now);
        for slot in links.dismiss_phantoms() {
            self.forget_slot(&mut links, slot);
        }
        for replica in links.judge(now.at) {
            if let Some(slot) = links.lose(&replica) {
                self.lose_slot(&mut links, slot, now);
            }
        }
        for (slot, anew_from) in links.take_retold() {
            for shard in &self.shards {
                shard.0.lock().take_back_demand(slot, anew_from);
            }
        }
        self.let_go_of_snapshot(&mut links, now);
        self.publish(links.outlook(now.at));
        let silent = links.silent(now.at);
        drop(links);
        self.let_silence_pass(now, &silent);
    }

    /// The same at once, asking every peer to confirm at once: see [`Node::press_at`].
    pub fn press(&self, now: Now, bytes_max: usize, outbox: &mut impl Outbox) {
        self.pressed.store(false, Relaxed);
        self.pressed_at.store(now.at.0, Relaxed);
        self.round(now, bytes_max, true, outbox);
    }

    fn round(&self, now: Now, bytes_max: usize, ask: bool, outbox: &mut impl Outbox) {
        let mut links = self.links.lock();
        // before the tick begins: nothing of it is under way yet, so it would count as confirmed
        let outlook = self.outlook.load();
        links.tick += 1;
        let tick = links.tick;
        let mut batch = Batch::new(bytes_max.saturating_sub(HEADER_BYTES_MAX));
        let alone = links.peers.is_empty();
        let mut news = false;
        for shard in &self.shards {
            shard.0.lock().drain(now, tick, &outlook, &mut |key, update| {
                news = true;
                // with nobody to tell, nothing is packed
                if !alone {
                    batch.push(key, &update);
                }
            });
        }
        if news {
            links.note_news(now.at);
        }
        if !ask && !alone {
            let place = (tick % self.shards.len() as u64) as usize;
            self.shards[place].0.lock().remind(now, REMINDERS_MAX, &mut |key, update| batch.push(key, &update));
        }
        if links.peers.iter().any(|p| p.wants_everything() && !links.stale(p, now.at)) {
            self.fill_backlogs(&mut links, now);
        }
        let announce = outlook.heard.min(links.news_tick());
        let word = links.word(outlook.heard);
        let doubted = links.doubted(now.at);
        let round = Round { now, tick, ask, news, announce, word, doubted, bytes_max, chunks: batch.finish() };
        for i in 0..links.peers.len() {
            if links.stale(&links.peers[i], now.at) {
                self.knock(&round, &mut links.peers[i], outbox);
            } else {
                self.tell(&round, &mut links.peers[i], outbox);
            }
        }
        self.publish(links.outlook(now.at));
    }

    /// Lets a peer that is not heard of know that we are there, no more: what it misses it is told when it is back.
    fn knock(&self, round: &Round, peer: &mut Peer, outbox: &mut impl Outbox) {
        if round.news && !peer.wants_everything() {
            peer.start_over(round.tick);
        }
        if round.now.at.since(peer.sent_at) >= KEEP_ALIVE {
            self.send_bare(round, peer, round.ask_flag() | FLAG_ELICIT, outbox);
        }
    }

    /// Tells a peer what it missed, the round's news, and if there is neither, what else it should hear.
    ///
    /// What it missed comes first: where there is no room for all, news that is told in each round must not keep out what
    /// waits, or no tick would ever be confirmed. Every frame but the last is behind what the next ones tell.
    fn tell(&self, round: &Round, peer: &mut Peer, outbox: &mut impl Outbox) {
        peer.look_settled(round.tick);
        // by itself: beside a full run of updates the list would not fit
        if !peer.unknown.is_empty() {
            let unknown = std::mem::take(&mut peer.unknown);
            let mut header = Header { unknown, ..peer.next_header(round.now.at, round.word, None) };
            header.flags |= if round.chunks.is_empty() { 0 } else { FLAG_BEHIND };
            self.carry(peer, &header, &NO_UPDATES, round.now, outbox);
        }
        let mut told = self.repair(peer, round, outbox);
        for (i, (bytes, keys)) in round.chunks.iter().enumerate() {
            if peer.room() == 0 {
                peer.queue(keys, round.tick);
                continue;
            }
            let cargo = Cargo { tick: round.tick, bytes: bytes.len(), keys: Arc::clone(keys) };
            let last = i + 1 == round.chunks.len();
            self.send_news(peer, round, (cargo, bytes), last, outbox);
            told = true;
        }
        let settling = peer.state != PeerState::Alive || !peer.includes_us || !peer.knows_members();
        let elicit = settling || peer.stable_told < round.announce;
        let overdue = peer.owes_ack || round.now.at.since(peer.sent_at) >= KEEP_ALIVE;
        if round.doubted.contains(&peer.slot) {
            self.send_bare(round, peer, FLAG_ASK | FLAG_ELICIT, outbox);
        } else if !told && (round.ask || elicit || overdue) {
            self.send_bare(round, peer, round.ask_flag() | if elicit { FLAG_ELICIT } else { 0 }, outbox);
        }
    }

    /// A frame with news, and whether it is the last of the round's.
    fn send_news(
        &self,
        peer: &mut Peer,
        round: &Round,
        (cargo, bytes): (Cargo, &[u8]),
        last: bool,
        outbox: &mut impl Outbox,
    ) {
        let mut header = peer.next_header(round.now.at, round.word, Some(cargo));
        header.flags |= FLAG_ELICIT | round.ask_flag() | if last { 0 } else { FLAG_BEHIND };
        self.carry(peer, &header, bytes, round.now, outbox);
    }

    /// A frame without news.
    fn send_bare(&self, round: &Round, peer: &mut Peer, flags: u8, outbox: &mut impl Outbox) {
        let mut header = peer.next_header(round.now.at, round.word, None);
        header.flags |= flags;
        self.carry(peer, &header, &NO_UPDATES, round.now, outbox);
    }

    /// Collects, for peers that are to be told everything, all keys that have something to say.
    fn fill_backlogs(&self, links: &mut Links, now: Now) {
        let keys: Vec<KeyId> = self.shards.iter().flat_map(|s| s.0.lock().talkative().collect::<Vec<_>>()).collect();
        let present = links.tick;
        let fresh: Vec<bool> = links.peers.iter().map(|p| !links.stale(p, now.at)).collect();
        for (peer, fresh) in links.peers.iter_mut().zip(fresh) {
            if fresh {
                peer.queue_everything(keys.iter().copied(), present);
            }
        }
    }

    /// Tells a peer again what it missed, with the values of now; says whether there was anything.
    fn repair(&self, peer: &mut Peer, round: &Round, outbox: &mut impl Outbox) -> bool {
        let (keys, tick) = peer.take_queued(REPAIRS_MAX.min(peer.room() / REPAIR_BYTES));
        if keys.is_empty() {
            return false;
        }
        let mut batch = Batch::new(round.bytes_max.saturating_sub(HEADER_BYTES_MAX));
        for key in keys {
            let update = self.shard(key).lock().find(key).and_then(|entry| entry.tell_again(round.now));
            if let Some(update) = update {
                batch.push(key, &update);
            }
        }
        let chunks = batch.finish();
        let count = chunks.len();
        for (i, (bytes, keys)) in chunks.into_iter().enumerate() {
            let cargo = Cargo { tick, bytes: bytes.len(), keys };
            let last = i + 1 == count && round.chunks.is_empty();
            self.send_news(peer, round, (cargo, &bytes), last, outbox);
        }
        count > 0
    }

    fn carry(&self, peer: &Peer, header: &Header, updates: &[u8], now: Now, outbox: &mut impl Outbox) {
        let mut header = header.clone();
        let every = WALL_CLOCK_EVERY.0 / KEEP_ALIVE.0;
        if header.seq % every == 1 {
            header.extensions.push((EXTENSION_WALL_CLOCK, (now.wall / 1000).to_be_bytes().to_vec()));
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES_MAX + updates.len());
        encode_header(&header, &mut bytes);
        bytes.extend_from_slice(updates);
        outbox.frame(&peer.replica, bytes);
    }

    /// Takes in a frame from the peer that the link belongs to; a confirmation asked for goes out at once.
    ///
    /// # Errors
    /// [`FrameError`]; nothing was changed then.
    pub fn handle_frame(
        &self,
        from: &ReplicaId,
        bytes: &[u8],
        now: Now,
        outbox: &mut impl Outbox,
    ) -> Result<Heard, FrameError> {
        let Frame { header, mut updates } = decode_frame(bytes)?;
        if header.incarnation != from.incarnation {
            return Err(FrameError::Incarnation(header.incarnation, from.clone()));
        }
        let mut links = self.links.lock();
        if links.place(from).is_none() {
            self.meet(&mut links, from, now);
            self.publish(links.outlook(now.at));
        }
        let before = self.outlook.load();
        let (tick, word) = (links.tick, links.word(before.heard));
        let Some(place) = links.place(from) else { return Err(FrameError::Stranger(from.clone())) };
        let peer = &mut links.peers[place];
        let mark = peer.mark(tick);
        let received = peer.received();
        if !peer.receive(&header, now.at) {
            return Ok(Heard::default());
        }
        if let Some(ack) = &header.ack {
            let all_known = peer.has_needed(&header);
            peer.confirm(ack, all_known, word.own, now.at);
            peer.confirm_settled(&header, word.own);
        }
        note_clock(peer, &header, now);
        peer.owes_ack |= header.flags & FLAG_ELICIT != 0;
        let described: Vec<KeyId> = header.unknown.iter().map(|k| KeyId::from_bytes(*k)).collect();
        peer.queue(&described, tick.max(1));
        let slot = peer.slot;
        let asked = header.flags & FLAG_ASK != 0;
        if peer.is_taken_back(header.seq) {
            updates.iter_mut().for_each(|update| update.demand = 0.0);
        }
        let refunds = updates.iter().any(|update| update.refunds.is_some());
        let gave_way = updates.iter().any(|update| update.demand.is_sign_negative());
        let own = &self.config.replica;
        let mut unknown = Vec::new();
        for together in updates.chunks(TOGETHER) {
            self.merge(together, |shard, update| {
                if !shard.learn(slot, header.seq, update, now) && unknown.len() < UNKNOWN_MAX {
                    unknown.push(update.key);
                }
                if asked && update.demand > 0.0 {
                    let key = KeyId::from_bytes(update.key);
                    shard.give_up_demand(key, now);
                    if shard.give_way(key, now, &before, own, from) {
                        enlist(shard, key);
                    }
                }
            });
        }
        if !unknown.is_empty() {
            // what could not be taken in must not be confirmed: it counts as lost, and is told again with a description
            peer.restore(received);
        }
        peer.unknown = unknown;
        if asked || peer.acks_due() {
            // A confirmation must not overtake our own news of any key: it confirms all frames before it, too, and that
            // all have heard of what was stable then; who asks would spend on a level that we have lowered already. That
            // news is told to all at the next tick all the same.
            let mut reply = Packer::default();
            let mut sink = |update: &Update| reply.push(update, REPLY_BYTES_MAX);
            let all = self.shards.iter().all(|shard| shard.0.lock().untold(now, &mut sink));
            let mut header = peer.next_header(now.at, word, None);
            header.flags |= if all { 0 } else { FLAG_BEHIND };
            self.carry(peer, &header, &reply.finish(), now, outbox);
        }
        let moved = peer.mark(tick);
        let after = links.outlook_after(now.at, mark, moved);
        self.publish(after);
        let progress = after.heard > before.heard || after.stable > before.stable || after.admitted != before.admitted;
        Ok(Heard { updates: updates.len(), progress: progress || refunds || gave_way })
    }

    /// Lets decisions see a new outlook. Once one sees silent peers, keys may wait for the end of the silence.
    pub(super) fn publish(&self, outlook: Outlook) {
        if outlook.silent > 0 && self.assumed_at.load(Relaxed) == 0 {
            self.assumed_at.store(1, Relaxed);
        }
        self.outlook.store(outlook);
    }

    fn let_silence_pass(&self, now: Now, silent: &[Silent]) {
        let outlook = self.outlook.load();
        let last = self.assumed_at.load(Relaxed);
        if silent.is_empty() && last == 0 {
            return;
        }
        if !silent.is_empty() && now.at.since(Nanos(last)) < ASSUME_EVERY {
            return;
        }
        for shard in &self.shards {
            shard.0.lock().assume(now, &outlook, silent);
        }
        self.assumed_at.store(if silent.is_empty() { 0 } else { now.at.0.max(1) }, Relaxed);
    }
}

/// Estimates the peer's clock from the time it tells and half the round trip.
fn note_clock(peer: &mut Peer, header: &Header, now: Now) {
    let Some(micros) = header.extension(EXTENSION_WALL_CLOCK).map(u64::from_be_bytes) else { return };
    let theirs = micros as f64 / 1e6 + peer.round_trip().as_secs_f64() / 2.0;
    let offset = theirs - now.wall as f64 / 1e9;
    peer.clock_offset = Some(match peer.clock_offset {
        // a jump is taken over at once, noise is smoothed
        Some(smoothed) if (smoothed - offset).abs() < 1.0 => smoothed + 0.25 * (offset - smoothed),
        _ => offset,
    });
}
