//! The links to all peers together: who counts, what all of them have confirmed, who is silent. It must not know keys'
//! states or limits.

mod backlog;
mod budget;
mod flight;
mod joint;
mod peer;
mod received;
mod settled;
#[cfg(test)]
mod tests;
mod unheard;

pub use flight::{Cargo, Word};
pub use joint::Mark;
pub use peer::Peer;

use std::collections::VecDeque;
use std::hash::Hasher as _;
use std::sync::Arc;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::counter::Slot;
use crate::stability::Outlook;
use crate::time::Nanos;
use crate::view::{PeerState, ReplicaId};
use joint::Joint;
use unheard::Unheard;

/// With nothing to say, a peer still hears from us so often; well below any time after which it would call us silent.
pub const KEEP_ALIVE: Nanos = Nanos::from_millis(50);
/// Round trips after which a peer counts as silent, where that is longer than the configured time.
const STALE_ROUND_TRIPS: u64 = 5;
/// Replicas that are gone for good are remembered, so that a late frame does not bring one back: so many.
const GONE_MAX: usize = 128;
/// The most peers; beyond about a hundred a full mesh costs more than it is worth.
pub const PEERS_MAX: usize = 1023;
/// The most convergence times kept until somebody takes them.
const CONVERGED_MAX: usize = 4096;

/// Times that rule the links.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between ticks.
    pub interval: Nanos,
    /// A peer not heard of for so long is silent, or for five round trips if that is longer.
    pub stale_after: Nanos,
    /// A peer not heard of for so long is forgotten: its share goes to the others.
    pub forget_after: Nanos,
}

/// A replica that was heard of, whose counters have a slot already.
#[derive(Debug)]
struct Kept {
    replica: ReplicaId,
    slot: Slot,
    since: Nanos,
    /// Whether this node's snapshot names it, and not only a peer's table.
    restored: bool,
}

/// All links.
#[derive(Debug)]
pub struct Links {
    /// The peers, in the order they were met.
    pub peers: Vec<Peer>,
    /// Ticks so far.
    pub tick: u64,
    /// Whether the peers count this node in.
    pub admitted: bool,
    /// Whether this node grants nothing though they do: the tables of its peers are still to come.
    pub held: bool,
    /// Whether peers that have not spoken are still waited for.
    patient: bool,
    /// The newest tick that carried news.
    news_tick: u64,
    /// Ticks with news that not all have confirmed, and when they were.
    unconfirmed: VecDeque<(u64, Nanos)>,
    converged: Vec<Nanos>,
    slots_used: u16,
    slots_free: Vec<Slot>,
    /// Replicas that were heard of and may not have been met: of this node's snapshot, whose counters it brought along (runs
    /// that are over, too, this node's own last one among them), and of peers' tables.
    kept: Vec<Kept>,
    gone: VecDeque<ReplicaId>,
    /// The highest number of a frame to any peer that was parted with: whoever is met again must not take new frames for
    /// old ones.
    said: u64,
    /// Peers that have told all they have to say anew, and since which of their frames they did.
    retold: Vec<(Slot, u64)>,
    /// Where each peer stands in `peers`, by the hash of its replica.
    places: HashTable<usize>,
    /// What the live ones came to when all were looked at, and since.
    joint: Joint,
    /// What the peers may have granted that is not known here, as of the last round.
    unheard: Unheard,
    own: ReplicaId,
    pace: Pace,
    /// Of all replicas that count, this one included: equal where two nodes count the same ones.
    members: u64,
}

/// A silent peer, as its spending is assumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silent {
    /// Its short name.
    pub slot: Slot,
    /// Whether membership calls it dead.
    pub dead: bool,
    /// From when on it may have gone on by itself, and nothing of that is known.
    pub since: Nanos,
}

impl Links {
    /// Of a node that has met nobody yet.
    #[must_use]
    pub fn new(own: ReplicaId, pace: Pace, admitted: bool) -> Self {
        Self {
            members: hash(&own),
            said: 0,
            peers: Vec::new(),
            tick: 0,
            admitted,
            held: false,
            patient: true,
            news_tick: 0,
            unconfirmed: VecDeque::new(),
            converged: Vec::new(),
            slots_used: 0,
            slots_free: Vec::new(),
            kept: Vec::new(),
            gone: VecDeque::new(),
            retold: Vec::new(),
            places: HashTable::new(),
            joint: Joint::NONE,
            unheard: Unheard::default(),
            own,
            pace,
        }
    }

    /// Where the link to `replica` stands among [`Self::peers`], until one comes or goes.
    #[must_use]
    pub fn place(&self, replica: &ReplicaId) -> Option<usize> {
        self.places.find(hash(replica), |place| self.peers[*place].replica == *replica).copied()
    }

    fn index(&mut self, place: usize) {
        let peers = &self.peers;
        self.places.insert_unique(hash(&peers[place].replica), place, |place| hash(&peers[*place].replica));
    }

    /// The link to `replica`.
    pub fn find(&mut self, replica: &ReplicaId) -> Option<&mut Peer> {
        let place = self.place(replica)?;
        self.peers.get_mut(place)
    }

    /// Meets a replica. Returns the slot of a forerunner whose place it takes, to be forgotten everywhere; `None` also
    /// when the replica was met before, is gone for good, is a forerunner itself, or is this node.
    pub fn meet(&mut self, now: Nanos, replica: &ReplicaId) -> Option<Slot> {
        let newer = self.peers.iter().any(|p| p.replica.node == replica.node && p.replica >= *replica);
        if newer || replica.node == self.own.node || self.gone.contains(replica) || self.peers.len() >= PEERS_MAX {
            // whoever spends already goes on without those it never met, until both know all of each other
            let state = if self.admitted { PeerState::Silent } else { PeerState::Joining };
            if let Some(peer) = self.find(replica) {
                peer.dead = false;
                if std::mem::take(&mut peer.hearsay) {
                    (peer.state, peer.heard) = (state, now);
                }
            }
            return None;
        }
        let forerunner = self.peers.iter().find(|p| p.replica.node == replica.node).map(|p| p.replica.clone());
        let freed = forerunner.and_then(|old| self.part(&old));
        // not given away again in this very call: the freed slot must be forgotten first
        let slot = self.kept(replica).unwrap_or_else(|| self.take_slot());
        self.members ^= hash(replica);
        self.peers.push(Peer::new(replica.clone(), slot, now, self.tick, self.said));
        self.index(self.peers.len() - 1);
        freed
    }

    /// Learns of replicas that a peer counts and that were never met: they may be out of reach, and are silent until they
    /// speak. Of a node that was met, no other peer's word is taken: it would be dropped for a run that may not exist.
    pub fn learn_of(&mut self, now: Nanos, replicas: &[ReplicaId]) {
        for replica in replicas {
            if self.peers.iter().any(|p| p.replica.node == replica.node) {
                continue;
            }
            self.meet(now, replica);
            if let Some(peer) = self.find(replica) {
                (peer.state, peer.hearsay) = (PeerState::Silent, true);
            }
        }
    }

    /// What every frame says of this node, `stable` being the newest tick that all live peers have confirmed.
    #[must_use]
    pub const fn word(&self, stable: u64) -> Word {
        Word { own: self.own.incarnation, stable, members: self.members }
    }

    fn take_slot(&mut self) -> Slot {
        self.slots_free.pop().unwrap_or_else(|| {
            self.slots_used += 1;
            Slot(self.slots_used)
        })
    }

    /// A slot for the counters of a replica that this node's snapshot names, or (not `restored`) a peer's table: when it is
    /// met, what it tells is set against those. `None` when too many are named.
    pub fn keep(&mut self, replica: &ReplicaId, restored: bool, now: Nanos) -> Option<Slot> {
        if *replica == self.own {
            return Some(Slot::OWN);
        }
        let met = self.place(replica).map(|place| self.peers[place].slot);
        let known = self.kept(replica).or(if restored { None } else { met });
        let over = |other: &ReplicaId| other.node == replica.node && other > replica;
        let is_over = !restored && (over(&self.own) || self.peers.iter().any(|p| over(&p.replica)));
        if known.is_some() || is_over || self.kept.len() > PEERS_MAX || self.gone.contains(replica) {
            return known;
        }
        let slot = met.unwrap_or_else(|| self.take_slot());
        self.kept.push(Kept { replica: replica.clone(), slot, since: now, restored });
        Some(slot)
    }

    fn kept(&self, replica: &ReplicaId) -> Option<Slot> {
        self.kept.iter().find(|k| k.replica == *replica).map(|k| k.slot)
    }

    /// Whether this node's snapshot names the replica.
    #[must_use]
    pub fn is_restored(&self, replica: &ReplicaId) -> bool {
        self.kept.iter().any(|k| k.restored && k.replica == *replica)
    }

    /// The slot of this node's own last run, where its snapshot was found.
    #[must_use]
    pub fn own_before(&self) -> Option<Slot> {
        let own = self.kept.iter().filter(|k| k.restored && k.replica.node == self.own.node);
        own.max_by_key(|k| k.replica.incarnation).map(|k| k.slot)
    }

    /// Every replica whose counters this node may hold: itself, its peers, those it has heard of.
    pub fn replicas(&self) -> impl Iterator<Item = (&ReplicaId, Slot)> {
        let peers = self.peers.iter().map(|p| (&p.replica, p.slot));
        let met = |kept: &ReplicaId| self.peers.iter().any(|p| p.replica == *kept);
        let kept = self.kept.iter().filter(move |k| !met(&k.replica)).map(|k| (&k.replica, k.slot));
        std::iter::once((&self.own, Slot::OWN)).chain(peers).chain(kept)
    }

    /// Forgets replicas that were heard of before `then`. Returns the slots of those that are not peers now, to be forgotten
    /// everywhere and then [freed](Self::free).
    pub fn let_go(&mut self, then: Nanos) -> Vec<Slot> {
        let old: Vec<Kept> = self.kept.extract_if(.., |k| k.since < then).collect();
        let gone = |k: &&Kept| self.peers.iter().all(|p| p.slot != k.slot);
        old.iter().filter(gone).map(|k| k.slot).collect()
    }

    /// Parts with a replica for good. Returns its slot, which must be forgotten everywhere and then [freed](Self::free).
    pub fn part(&mut self, replica: &ReplicaId) -> Option<Slot> {
        let slot = self.lose(replica)?;
        if self.gone.len() >= GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back(replica.clone());
        Some(slot)
    }

    /// Gives up a replica that was not heard of for too long: it may come again, as one that was never met. Returns its
    /// slot as [`Self::part`] does.
    pub fn lose(&mut self, replica: &ReplicaId) -> Option<Slot> {
        let place = self.place(replica)?;
        let peer = self.peers.remove(place);
        self.places.clear();
        (0..self.peers.len()).for_each(|place| self.index(place));
        self.members ^= hash(replica);
        self.said = self.said.max(peer.said());
        // its slot will be another's
        self.kept.retain(|k| k.slot != peer.slot);
        Some(peer.slot)
    }

    /// A slot that nobody has any counts of may be given to another replica.
    pub fn free(&mut self, slot: Slot) {
        self.slots_free.push(slot);
    }

    /// Judges who is silent, who is back, and who is to be forgotten: those replicas are returned.
    pub fn judge(&mut self, now: Nanos) -> Vec<ReplicaId> {
        let tick = self.tick;
        let mut forgotten = Vec::new();
        for peer in &mut self.peers {
            peer.expire(now, self.pace.interval);
            peer.note_synced();
            let quiet = now.since(peer.heard);
            peer.unheard = quiet > patience(&self.pace, peer);
            self.retold.extend(peer.take_retold().map(|anew_from| (peer.slot, anew_from)));
            // silence is mutual: one that does not hear this node confirms nothing, and goes on by itself
            let cut_off = peer.unheard || peer.deaf;
            let in_step = !cut_off && peer.synced() && peer.synced_to_us;
            match peer.state {
                PeerState::Alive if cut_off => {
                    peer.state = PeerState::Silent;
                    peer.start_over(tick + 1);
                }
                PeerState::Joining | PeerState::Silent if in_step => {
                    peer.state = PeerState::Alive;
                    peer.dead = false;
                }
                _ if quiet > self.pace.forget_after => forgotten.push(peer.replica.clone()),
                _ => {}
            }
        }
        self.admitted |= self.is_counted_in() || (!self.patient && self.peers.is_empty());
        self.unheard = Unheard::look(&mut self.peers, self.pace.interval, now);
        forgotten
    }

    /// Peers that have told all they have to say anew, since the last call, and since which of their frames they did: for
    /// what they did not speak of since then they have no demand any more.
    pub fn take_retold(&mut self) -> Vec<(Slot, u64)> {
        std::mem::take(&mut self.retold)
    }

    /// Whether all peers that are not silent count this node in, and the same others as it does.
    ///
    /// Without the second, of two that join one after the other each would take weight that the other has: both are
    /// counted in by all they know, and do not know each other yet. As it is, whichever of the two some third node met
    /// first, the later one hears of it from there.
    ///
    /// Those it never met are waited for, too: a joiner cut off from them would spend beside all shares that they count.
    fn is_counted_in(&self) -> bool {
        let waits_for = |p: &&Peer| p.state != PeerState::Silent || (p.hearsay && self.patient);
        let mut met = self.peers.iter().filter(waits_for).peekable();
        met.peek().is_some() && met.all(|p| p.includes_us && p.members == Some(self.members))
    }

    /// Drops replicas that this node only heard of, and that were gone when it did. Returns their slots, which must be
    /// forgotten everywhere. Should they be there after all, they will be met.
    pub fn dismiss_phantoms(&mut self) -> Vec<Slot> {
        let phantoms = self.phantoms();
        let slots = phantoms.iter().filter_map(|phantom| self.lose(phantom));
        slots.collect()
    }

    /// Those of hearsay but for which all peers that speak count the same replicas as this node does.
    fn phantoms(&self) -> Vec<ReplicaId> {
        let mut met = self.peers.iter().filter(|p| p.state != PeerState::Silent).map(|p| p.members);
        let Some(Some(theirs)) = met.next() else { return Vec::new() };
        if theirs == self.members || met.any(|members| members != Some(theirs)) {
            return Vec::new();
        }
        let surplus = theirs ^ self.members;
        let unheard = || self.peers.iter().filter(|p| p.hearsay).map(|p| &p.replica);
        match unheard().find(|replica| hash(replica) == surplus) {
            Some(one) => vec![one.clone()],
            None if unheard().fold(0, |all, replica| all ^ hash(replica)) == surplus => unheard().cloned().collect(),
            None => Vec::new(),
        }
    }

    /// Waits no longer for peers that have not spoken: they count as silent; and when nobody is left, begins alone.
    pub fn give_up_waiting(&mut self) {
        self.patient = false;
        self.admitted |= self.peers.is_empty();
        for peer in self.peers.iter_mut().filter(|p| p.state == PeerState::Joining && (!p.spoke || p.unheard)) {
            peer.state = PeerState::Silent;
        }
    }

    /// Peers not heard for half the time after which they count as silent.
    #[must_use]
    pub fn doubted(&self, now: Nanos) -> Vec<Slot> {
        let doubted = |p: &&Peer| p.state == PeerState::Alive && now.since(p.heard).times(2) > patience(&self.pace, p);
        self.peers.iter().filter(doubted).map(|p| p.slot).collect()
    }

    /// Whether a peer is stale: there is no use in sending it news.
    #[must_use]
    pub fn stale(&self, peer: &Peer, now: Nanos) -> bool {
        peer.state == PeerState::Silent && now.since(peer.heard) > self.pace.stale_after
    }

    /// Notes that the present tick carries news.
    pub fn note_news(&mut self, now: Nanos) {
        self.news_tick = self.tick;
        if !self.peers.is_empty() {
            self.unconfirmed.push_back((self.tick, now));
        }
    }

    /// The newest tick that all must have heard to be heard of; what is newer carries no news.
    #[must_use]
    pub const fn news_tick(&self) -> u64 {
        self.news_tick
    }

    /// What decisions need to know; also notes which ticks have become common.
    pub fn outlook(&mut self, now: Nanos) -> Outlook {
        self.joint = self.survey();
        self.conclude(now)
    }

    /// The same where nothing has changed since but one link, which was at `from` and is at `to` now: quicker.
    pub fn outlook_after(&mut self, now: Nanos, from: Option<Mark>, to: Option<Mark>) -> Outlook {
        let known = match (from, to) {
            (Some(from), Some(to)) => from == to || self.joint.change(from, to),
            (None, None) => true,
            _ => false,
        };
        if !known {
            self.joint = self.survey();
        }
        debug_assert_eq!(self.joint, self.survey(), "something changed a link without a look at all");
        self.conclude(now)
    }

    /// Looks at all peers.
    fn survey(&self) -> Joint {
        let mut joint = Joint::NONE;
        for peer in &self.peers {
            if let Some(mark) = peer.mark(self.tick) {
                joint.add(mark);
            } else if peer.state == PeerState::Silent {
                joint.silent += 1;
                joint.dead += u32::from(peer.dead);
            }
        }
        joint
    }

    fn conclude(&mut self, now: Nanos) -> Outlook {
        let nobody = Mark { confirmed: self.tick, stable: self.tick, round_trip: Nanos::ZERO };
        let Mark { confirmed: heard, stable, round_trip } = self.joint.mark().unwrap_or(nobody);
        // once all news is stable, so is every tick since
        let stable = if stable >= self.news_tick { heard } else { stable };
        while let Some((oldest, at)) = self.unconfirmed.front()
            && *oldest <= heard
        {
            if self.converged.len() < CONVERGED_MAX {
                self.converged.push(now.since(*at));
            }
            self.unconfirmed.pop_front();
        }
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Outlook {
            replicas: small(self.peers.len() + 1),
            dead: self.joint.dead,
            admitted: self.admitted && !self.held,
            heard,
            stable,
            silent: self.joint.silent,
            settle: round_trip.plus(self.pace.interval.times(2)),
            known: self.unheard.known,
            apart: self.unheard.apart,
            apart_known: self.unheard.apart_known,
            round_trip,
        }
    }

    /// Peers that go on without this node's confirmation, or may: the silent, and those that have not ended their own
    /// silence towards it yet.
    #[must_use]
    pub fn silent(&self, now: Nanos) -> Arc<[Silent]> {
        let silent = |p: &Peer| {
            // what was heard last had been on its way for a while, and it goes on by itself only after the stale time
            let last = Nanos(p.heard.0.saturating_sub(p.round_trip().0 / 2));
            let alone = last.max(p.heard_us.plus(self.pace.stale_after));
            // longer ago only if this node itself stood still, and then its bucket was refilled meanwhile
            let longest = patience(&self.pace, p).plus(p.round_trip()).plus(self.pace.interval.times(2));
            Silent { slot: p.slot, dead: p.dead, since: alone.max(Nanos(now.0.saturating_sub(longest.0))) }
        };
        self.peers.iter().filter(|p| p.goes_on()).map(silent).collect()
    }

    /// Times from a tick with news to its being confirmed by all, since the last call.
    pub fn take_converged(&mut self) -> Vec<Nanos> {
        std::mem::take(&mut self.converged)
    }
}

/// How long a peer may go unheard before it counts as silent.
fn patience(pace: &Pace, peer: &Peer) -> Nanos {
    pace.stale_after.max(peer.round_trip().times(STALE_ROUND_TRIPS))
}

/// A replica's hash, also its part in the digest of members, which is the exclusive or of all parts. Peers have shown who
/// they are, so that nobody picks names to collide: the hash needs no secret.
fn hash(replica: &ReplicaId) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write_u64(replica.incarnation);
    hasher.write(replica.node.as_bytes());
    hasher.finish()
}
