//! The links between endpoints: what becomes of a message, and when it arrives. It must not know what messages say.

use std::collections::BTreeMap;

use spillgate_core::time::Nanos;

use crate::observe::{Channel, Fate};
use crate::random::{Purpose, Random};
use crate::scenario::{Endpoint, Latency, LinkChange, LinkState, Profile, Scenario};

/// After a stream's first try it tries again after so long, then after twice that, and so on.
const RESEND_FIRST: Nanos = Nanos::from_millis(200);
/// So many times; then the connection is given up, after about 6 s.
const RESENDS_MAX: u32 = 5;

/// What a link does now.
#[derive(Clone, Copy, Debug)]
struct Link {
    profile: u16,
    cut: bool,
    /// Messages are held until then.
    clogged: Nanos,
}

/// A change under way.
#[derive(Debug)]
struct Active {
    id: u64,
    change: LinkChange,
    until: Nanos,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Journey {
    /// In a word.
    pub fate: Fate,
    /// When it arrives.
    pub arrives: Option<Nanos>,
    /// When its double does.
    pub again: Option<Nanos>,
    /// When a stream tries once more.
    pub resend: Option<Nanos>,
}

impl Journey {
    const fn ends(fate: Fate) -> Self {
        Self { fate, arrives: None, again: None, resend: None }
    }
}

/// All links between the nodes and the central store.
#[derive(Debug)]
pub struct Links {
    endpoints: usize,
    profiles: Vec<Profile>,
    /// Without any change, by sender and receiver.
    base: Vec<u16>,
    now: Vec<Link>,
    active: Vec<Active>,
    /// When a link with a bandwidth has sent all that waits.
    busy: BTreeMap<(Endpoint, Endpoint), Nanos>,
    /// When the last message of a stream arrives.
    in_order: BTreeMap<(Endpoint, Endpoint), Nanos>,
    datagram_bytes: usize,
    /// One a sender.
    random: Vec<Random>,
}

impl Links {
    /// As the scenario describes them, nothing changed yet.
    #[must_use]
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        let endpoints = scenario.nodes.all.len() + 1;
        let network = &scenario.network;
        let mut profiles = vec![network.default];
        let mut base = vec![0u16; endpoints * endpoints];
        for rule in &network.links {
            let index = u16::try_from(profiles.len()).unwrap_or(u16::MAX);
            profiles.push(rule.profile);
            for from in &rule.from {
                for to in &rule.to {
                    base[from * endpoints + to] = index;
                    if rule.both {
                        base[to * endpoints + from] = index;
                    }
                }
            }
        }
        let senders = u32::try_from(endpoints).unwrap_or(u32::MAX);
        let mut links = Self {
            endpoints,
            profiles,
            now: Vec::new(),
            base,
            active: Vec::new(),
            busy: BTreeMap::new(),
            in_order: BTreeMap::new(),
            datagram_bytes: network.datagram_bytes,
            random: (0..senders).map(|from| Random::new(seed, Purpose::Network(from))).collect(),
        };
        links.apply();
        links
    }

    /// Works out what every link does, from its base and the changes in the order in which they came.
    fn apply(&mut self) {
        let plain = |profile: &u16| Link { profile: *profile, cut: false, clogged: Nanos::ZERO };
        self.now = self.base.iter().map(plain).collect();
        self.profiles.truncate(1 + usize::from(self.base.iter().copied().max().unwrap_or(0)));
        for active in &self.active {
            let changed = match active.change.how {
                LinkState::Changed(profile) => {
                    self.profiles.push(profile);
                    u16::try_from(self.profiles.len() - 1).unwrap_or(u16::MAX)
                }
                LinkState::Cut | LinkState::Clogged => 0,
            };
            for (from, to) in &active.change.links {
                let link = &mut self.now[from * self.endpoints + to];
                match active.change.how {
                    LinkState::Cut => link.cut = true,
                    LinkState::Clogged => link.clogged = link.clogged.max(active.until),
                    LinkState::Changed(_) => link.profile = changed,
                }
            }
        }
    }

    /// Something happens to links, until then; `id` ends it.
    pub fn change(&mut self, id: u64, change: LinkChange, until: Nanos) {
        self.active.push(Active { id, change, until });
        self.apply();
    }

    /// A change is over; its label, unless it has been healed before.
    pub fn restore(&mut self, id: u64) -> Option<String> {
        let place = self.active.iter().position(|a| a.id == id)?;
        let label = self.active.remove(place).change.label;
        self.apply();
        Some(label)
    }

    /// All changes are over; their labels.
    pub fn heal(&mut self) -> Vec<String> {
        let labels = self.active.drain(..).map(|a| a.change.label).collect();
        self.apply();
        labels
    }

    /// Whether nothing travels that way.
    #[must_use]
    pub fn cut(&self, from: Endpoint, to: Endpoint) -> bool {
        self.now[from * self.endpoints + to].cut
    }

    /// Whether both can hear each other.
    #[must_use]
    pub fn talk(&self, a: Endpoint, b: Endpoint) -> bool {
        !self.cut(a, b) && !self.cut(b, a)
    }

    /// Sends a message: what becomes of it. `tries` is how often a stream has tried before.
    pub fn carry(
        &mut self,
        now: Nanos,
        (from, to): (Endpoint, Endpoint),
        channel: Channel,
        bytes: usize,
        tries: u32,
    ) -> Journey {
        if channel == Channel::Datagram && bytes > self.datagram_bytes {
            return Journey::ends(Fate::TooLong);
        }
        let link = self.now[from * self.endpoints + to];
        let profile = self.profiles[usize::from(link.profile)];
        let resend = || {
            let pause = Nanos(RESEND_FIRST.0 << tries.min(16));
            (channel == Channel::Stream && tries < RESENDS_MAX).then(|| now.plus(pause))
        };
        if link.cut {
            return Journey { resend: resend(), ..Journey::ends(Fate::Cut) };
        }
        let random = &mut self.random[from];
        if random.happens(profile.loss) {
            return Journey { resend: resend(), ..Journey::ends(Fate::Lost) };
        }
        let mut sent = now.max(link.clogged);
        if let Some(bandwidth) = profile.bandwidth {
            let busy = self.busy.entry((from, to)).or_default();
            if busy.since(now) > profile.queue {
                return Journey { resend: resend(), ..Journey::ends(Fate::Full) };
            }
            let takes = bytes as u128 * 8 * u128::from(Nanos::SECOND.0) / u128::from(bandwidth);
            *busy = (*busy).max(now).plus(Nanos(u64::try_from(takes).unwrap_or(u64::MAX)));
            sent = sent.max(*busy);
        }
        let mut arrives = sent.plus(delay(&profile, random));
        if channel == Channel::Stream {
            let last = self.in_order.entry((from, to)).or_default();
            arrives = arrives.max(*last);
            *last = arrives;
            return Journey { arrives: Some(arrives), ..Journey::ends(Fate::Carried) };
        }
        if random.happens(profile.reorder) {
            arrives = arrives.plus(Nanos(random.between(0, profile.reorder_by.0)));
        }
        let again = random.happens(profile.duplicate).then(|| sent.plus(delay(&profile, random)));
        let fate = if again.is_some() { Fate::Doubled } else { Fate::Carried };
        Journey { fate, arrives: Some(arrives), again, resend: None }
    }
}

fn delay(profile: &Profile, random: &mut Random) -> Nanos {
    let latency = match profile.latency {
        Latency::Fixed(time) => time,
        Latency::Uniform(least, most) => Nanos(random.between(least.0, most.0)),
        Latency::LogNormal { median, sigma } => {
            Nanos((median.0 as f64 * crate::math::exp(sigma * random.normal())) as u64)
        }
    };
    if profile.jitter == Nanos::ZERO { latency } else { latency.plus(Nanos(random.between(0, profile.jitter.0))) }
}
