//! Who is up, who is dead, who has left: a pure state machine over what membership and the connections report. It
//! knows no sockets, no clock and no frames.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillgate_core::view::ReplicaId;

use super::{Member, MemberState};

/// What is known of a replica that is gone is kept for so long, so that neither news of it that is still on its way
/// nor its own ghost can raise it again.
pub(super) const REMEMBERED: Duration = Duration::from_secs(600);

/// Earlier runs of a node that are remembered: more within [`REMEMBERED`] is a node that fails again and again.
const PAST_MAX: usize = 64;

/// What the roster decided; the caller carries it out in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Up(ReplicaId, SocketAddr),
    Dead(ReplicaId),
    Left(ReplicaId),
    /// It said no goodbye, and another run of its node is there.
    Lost(ReplicaId),
    /// Its connections are to be closed: it has left.
    Close(ReplicaId),
    /// Its connections are to be closed and it is to be told: a newer one of its node is known.
    Supersede(ReplicaId),
}

/// By node, the newest incarnation that proved itself by a connection, and all that membership calls alive.
pub(super) struct Roster {
    me: ReplicaId,
    proved: HashMap<Arc<str>, Entry>,
    alive: HashMap<ReplicaId, SocketAddr>,
}

struct Entry {
    replica: ReplicaId,
    address: SocketAddr,
    linked: bool,
    phase: Phase,
    /// Earlier runs of the node, whose ghosts are refused.
    past: Vec<u64>,
    /// Of the last change, for forgetting.
    since: Instant,
}

/// What the layer above was told last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Untold,
    Up,
    Dead,
    Left,
}

impl Roster {
    pub(super) fn new(me: ReplicaId) -> Self {
        Self { me, proved: HashMap::new(), alive: HashMap::new() }
    }

    /// A connection has proved to be of this replica.
    pub(super) fn linked(&mut self, replica: &ReplicaId, address: SocketAddr, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        match self.proved.get(&replica.node) {
            _ if self.is_superseded(replica) => return vec![Change::Supersede(replica.clone())],
            Some(known) if known.replica == *replica && known.phase == Phase::Left => {
                return vec![Change::Close(replica.clone())];
            }
            Some(known) if known.replica == *replica => {}
            _ => {
                let past = Vec::new();
                let entry =
                    Entry { replica: replica.clone(), address, linked: true, phase: Phase::Untold, past, since: now };
                if let Some(mut old) = self.proved.insert(replica.node.clone(), entry) {
                    if let Some(entry) = self.proved.get_mut(&replica.node) {
                        entry.past = std::mem::take(&mut old.past);
                        entry.past.push(old.replica.incarnation);
                        let surplus = entry.past.len().saturating_sub(PAST_MAX);
                        entry.past.drain(..surplus);
                    }
                    if matches!(old.phase, Phase::Up | Phase::Dead) {
                        changes.push(Change::Lost(old.replica.clone()));
                    }
                    changes.push(Change::Supersede(old.replica));
                }
            }
        }
        if let Some(entry) = self.proved.get_mut(&replica.node) {
            (entry.linked, entry.address, entry.since) = (true, address, now);
            changes.extend(entry.settle(self.alive.contains_key(replica), now));
        }
        changes
    }

    /// The replica's last connection is lost.
    pub(super) fn unlinked(&mut self, replica: &ReplicaId, now: Instant) {
        if let Some(entry) = self.proved.get_mut(&replica.node).filter(|entry| entry.replica == *replica) {
            (entry.linked, entry.since) = (false, now);
        }
    }

    /// All that membership calls alive now.
    pub(super) fn alive(&mut self, alive: HashMap<ReplicaId, SocketAddr>, now: Instant) -> Vec<Change> {
        self.alive = alive;
        self.alive.retain(|replica, _| replica.node != self.me.node);
        let alive = &self.alive;
        self.proved.values_mut().filter_map(|entry| entry.settle(alive.contains_key(&entry.replica), now)).collect()
    }

    /// The replica said that it leaves.
    pub(super) fn goodbye(&mut self, replica: &ReplicaId, now: Instant) -> Vec<Change> {
        let Some(entry) = self.proved.get_mut(&replica.node).filter(|entry| entry.replica == *replica) else {
            return Vec::new();
        };
        let told = entry.phase;
        (entry.phase, entry.since) = (Phase::Left, now);
        match told {
            Phase::Left => Vec::new(),
            Phase::Untold => vec![Change::Close(replica.clone())],
            Phase::Up | Phase::Dead => vec![Change::Left(replica.clone()), Change::Close(replica.clone())],
        }
    }

    /// Alive, newest of its node, and not connected: to be dialed.
    pub(super) fn missing(&self) -> Vec<(ReplicaId, SocketAddr)> {
        let newest = |replica: &ReplicaId| {
            !self.alive.keys().any(|other| other.node == replica.node && other.incarnation > replica.incarnation)
        };
        let wanted = |replica: &ReplicaId| match self.proved.get(&replica.node) {
            None => true,
            Some(entry) if entry.replica == *replica => !entry.linked && entry.phase != Phase::Left,
            Some(entry) => entry.replica.incarnation < replica.incarnation,
        };
        self.alive
            .iter()
            .filter(|(replica, _)| wanted(replica) && newest(replica))
            .map(|(replica, address)| (replica.clone(), *address))
            .collect()
    }

    /// Drops what has been gone for long, and names it.
    pub(super) fn forget(&mut self, now: Instant) -> Vec<ReplicaId> {
        let alive = &self.alive;
        let gone = |entry: &Entry| {
            !entry.linked
                && entry.phase != Phase::Up
                && !alive.contains_key(&entry.replica)
                && now.saturating_duration_since(entry.since) >= REMEMBERED
        };
        self.proved.extract_if(|_, entry| gone(entry)).map(|(_, entry)| entry.replica).collect()
    }

    /// Another run of its node has taken its place: a newer one, unless that is gone and this one was never seen before
    /// (then its clock went back), or any that followed it.
    pub(super) fn is_superseded(&self, replica: &ReplicaId) -> bool {
        self.proved.get(&replica.node).is_some_and(|known| {
            let newer = known.replica.incarnation > replica.incarnation;
            known.past.contains(&replica.incarnation) || (newer && !known.is_gone())
        })
    }

    /// Why a run of a node that is reached at `address` can't be taken up: where the other process with its id is, and
    /// whether that has taken its place; it has not when it is just up there. At the same address no two can be, so that
    /// there a new run takes the old one's place at once.
    pub(super) fn conflict(&self, replica: &ReplicaId, address: SocketAddr) -> Option<(SocketAddr, bool)> {
        let known = self.proved.get(&replica.node)?;
        let superseded = self.is_superseded(replica);
        let in_use = known.replica != *replica && known.phase == Phase::Up && known.linked && known.address != address;
        (superseded || in_use).then_some((known.address, superseded))
    }

    /// Peers that are up.
    pub(super) fn peers_up(&self) -> usize {
        self.proved.values().filter(|entry| entry.phase == Phase::Up).count()
    }

    /// No peer is up.
    pub(super) fn is_alone(&self) -> bool {
        self.peers_up() == 0
    }

    /// The newest known replica of each node but this one, by node id.
    pub(super) fn members(&self) -> Vec<Member> {
        let mut members: Vec<Member> = self.proved.values().map(|entry| entry.member(&self.alive)).collect();
        members.extend(
            self.missing()
                .into_iter()
                .filter(|(replica, _)| !self.proved.contains_key(&replica.node))
                .map(|(replica, address)| Member { replica, address, state: MemberState::Connecting }),
        );
        members.sort_by(|a, b| a.replica.cmp(&b.replica));
        members
    }
}

impl Entry {
    const fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Dead | Phase::Left) && !self.linked
    }

    fn settle(&mut self, alive: bool, now: Instant) -> Option<Change> {
        let (phase, change) = match self.phase {
            Phase::Untold | Phase::Dead if alive && self.linked => {
                (Phase::Up, Change::Up(self.replica.clone(), self.address))
            }
            Phase::Up if !alive => (Phase::Dead, Change::Dead(self.replica.clone())),
            _ => return None,
        };
        (self.phase, self.since) = (phase, now);
        Some(change)
    }

    fn member(&self, alive: &HashMap<ReplicaId, SocketAddr>) -> Member {
        let state = match self.phase {
            Phase::Up => MemberState::Alive,
            Phase::Left => MemberState::Left,
            _ if alive.contains_key(&self.replica) => MemberState::Connecting,
            Phase::Untold if self.linked => MemberState::Connecting,
            _ => MemberState::Dead,
        };
        Member { replica: self.replica.clone(), address: self.address, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(node: &str, incarnation: u64) -> ReplicaId {
        ReplicaId { node: node.into(), incarnation }
    }

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn alive(replicas: &[(&ReplicaId, u16)]) -> HashMap<ReplicaId, SocketAddr> {
        replicas.iter().map(|(replica, port)| ((*replica).clone(), at(*port))).collect()
    }

    fn roster() -> (Roster, Instant) {
        (Roster::new(replica("me", 1)), Instant::now())
    }

    #[test]
    fn up_needs_both_life_and_a_connection_in_either_order() {
        let (b, c) = (replica("b", 1), replica("c", 1));
        let (mut roster, now) = roster();
        assert_eq!(roster.linked(&b, at(2), now), vec![]);
        assert!(roster.is_alone());
        assert_eq!(roster.alive(alive(&[(&b, 2), (&c, 3)]), now), vec![Change::Up(b.clone(), at(2))]);
        assert_eq!(roster.missing(), vec![(c.clone(), at(3))]);
        assert_eq!(roster.linked(&c, at(3), now), vec![Change::Up(c, at(3))]);
        assert_eq!(roster.linked(&b, at(2), now), vec![], "a second connection is no news");
        assert!(roster.missing().is_empty() && !roster.is_alone());
    }

    #[test]
    fn a_lost_connection_is_dialed_again_and_only_membership_calls_dead() {
        let b = replica("b", 1);
        let (mut roster, now) = roster();
        roster.alive(alive(&[(&b, 2)]), now);
        roster.linked(&b, at(2), now);
        roster.unlinked(&b, now);
        assert_eq!(roster.missing(), vec![(b.clone(), at(2))]);
        assert_eq!(roster.linked(&b, at(2), now), vec![]);
        assert_eq!(roster.alive(alive(&[]), now), vec![Change::Dead(b.clone())]);
        assert_eq!(roster.members()[0].state, MemberState::Dead, "though its connection has not timed out");
        assert_eq!(roster.alive(alive(&[(&b, 2)]), now), vec![Change::Up(b, at(2))]);
    }

    #[test]
    fn a_newer_incarnation_ends_the_old_one_and_refuses_its_ghost() {
        let (old, new) = (replica("b", 1), replica("b", 2));
        let (mut roster, now) = roster();
        roster.alive(alive(&[(&old, 2)]), now);
        roster.linked(&old, at(2), now);
        assert_eq!(roster.linked(&new, at(3), now), vec![Change::Lost(old.clone()), Change::Supersede(old.clone())]);
        roster.unlinked(&old, now);
        assert_eq!(roster.alive(alive(&[(&old, 2), (&new, 3)]), now), vec![Change::Up(new.clone(), at(3))]);
        assert_eq!(roster.linked(&old, at(2), now), vec![Change::Supersede(old)]);
        assert_eq!(roster.members().len(), 1);
        assert_eq!(roster.members()[0].replica, new);
    }

    #[test]
    fn hearsay_of_a_newer_incarnation_ends_nothing_but_is_dialed() {
        let (old, new) = (replica("b", 1), replica("b", u64::MAX));
        let (mut roster, now) = roster();
        roster.alive(alive(&[(&old, 2)]), now);
        roster.linked(&old, at(2), now);
        assert_eq!(roster.alive(alive(&[(&old, 2), (&new, 3)]), now), vec![]);
        assert_eq!(roster.missing(), vec![(new, at(3))]);
        assert_eq!(roster.members()[0].state, MemberState::Alive);
    }

    #[test]
    fn who_left_stays_away_until_forgotten() {
        let b = replica("b", 1);
        let (mut roster, now) = roster();
        roster.alive(alive(&[(&b, 2)]), now);
        roster.linked(&b, at(2), now);
        assert_eq!(roster.goodbye(&b, now), vec![Change::Left(b.clone()), Change::Close(b.clone())]);
        assert_eq!(roster.goodbye(&b, now), vec![]);
        roster.unlinked(&b, now);
        assert!(roster.missing().is_empty(), "membership still calls it alive, but it is not wanted");
        assert_eq!(roster.linked(&b, at(2), now), vec![Change::Close(b.clone())]);
        assert_eq!(roster.members()[0].state, MemberState::Left);
        assert_eq!(roster.alive(alive(&[]), now), vec![]);
        assert!(roster.forget(now + REMEMBERED - Duration::from_nanos(1)).is_empty());
        assert_eq!(roster.forget(now + REMEMBERED), vec![b]);
        assert!(roster.members().is_empty());
    }

    #[test]
    fn nobody_up_alive_or_connected_is_forgotten() {
        let (b, c) = (replica("b", 1), replica("c", 1));
        let (mut roster, now) = roster();
        roster.alive(alive(&[(&b, 2)]), now);
        roster.linked(&b, at(2), now);
        roster.linked(&c, at(3), now);
        roster.unlinked(&b, now);
        assert!(roster.forget(now + 2 * REMEMBERED).is_empty());
    }

    #[test]
    fn this_node_is_no_peer_of_itself() {
        let (me, before) = (replica("me", 1), replica("me", 0));
        let (mut roster, now) = roster();
        assert_eq!(roster.alive(alive(&[(&me, 1), (&before, 1)]), now), vec![]);
        assert!(roster.missing().is_empty() && roster.members().is_empty());
    }
}
