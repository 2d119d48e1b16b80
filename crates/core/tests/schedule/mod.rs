//! The strict rule on one key, and a network that may hold back, drop and reorder whatever it likes: a small model. Who
//! may grant how much is asked of the real `stability`; here is only what each node knows of the others.
//!
//! Each own act (a charge, another demand) is a version of a node; what it has heard meanwhile belongs to its newest one.
//! A frame brings one version of its sender: counter, demand, what the sender has heard of the receiver, and the newest
//! own version that the sender knows all to have heard. Of a version only the last state is ever delivered: an earlier
//! one confirms less and allows less, and brings nothing else. Nothing needs to be said to be in the air: whatever a node
//! ever was may arrive anywhere, once or never. Losing, repeating, holding back and reordering are all in that.

use std::hash::{DefaultHasher, Hash, Hasher};

use spillgate_core::limit::{Accuracy, Algorithm, Origin, Rule, RuleSpec};
use spillgate_core::stability::{self, Outlook};
use spillgate_core::time::Nanos;

/// What a model may do otherwise than the rule.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fault {
    /// A charge is common knowledge once all have confirmed it, though they do not know that of one another.
    pub single: bool,
    /// A confirmation counts without the news that the confirming node had.
    pub not_causal: bool,
    /// A node claims weight for demand that nobody has heard of.
    pub fresh_demand: bool,
    /// Not a fault but another rule, which is not built: see `ACCURACY.md`. A node says how far it may go and goes no
    /// further than all have confirmed to have heard; whatever the others have said counts as spent.
    pub promises: bool,
}

/// A limit and how many share it.
#[derive(Debug)]
pub struct Law {
    rule: Rule,
    outlook: Outlook,
    fault: Fault,
}

impl Law {
    /// A strict token bucket of `burst` tokens, and `ahead` more that may be shared before they have come back: W.
    pub fn new(n: usize, burst: u64, ahead: u64, fault: Fault) -> Self {
        let rate = "1/s".parse().expect("a rate");
        let spec =
            RuleSpec { burst: Some(burst), accuracy: Accuracy::Strict, ..RuleSpec::new(Algorithm::TokenBucket, rate) };
        let rule = Rule::new("model", Origin::Configured, spec).expect("a rule");
        let outlook = Outlook {
            replicas: u32::try_from(n).expect("few"),
            dead: 0,
            admitted: true,
            heard: 0,
            stable: 0,
            silent: 0,
            settle: Nanos::from_secs(ahead),
            known: Nanos::ZERO,
            apart: 0,
            apart_known: Nanos::ZERO,
            round_trip: Nanos::ZERO,
        };
        Self { rule, outlook, fault }
    }

    fn burst(&self) -> i64 {
        self.rule.capacity().cast_signed()
    }
}

/// One version of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Version<const N: usize> {
    granted: i64,
    demand: u8,
    /// Where promises rule: up to how many tokens it may grant.
    promised: i64,
    /// Which version of each node it had heard, and which one that node had said to be heard by all.
    heard: [u8; N],
    heard_common: [u8; N],
    /// The newest own version that all have confirmed.
    common: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node<const N: usize> {
    versions: Vec<Version<N>>,
    level: i64,
    /// Which own version each peer has confirmed, and which one to be common.
    confirmed: [u8; N],
    confirmed_common: [u8; N],
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A node grants so many tokens.
    Grant(usize, i64),
    /// So much is asked of a node.
    Ask(usize, u8),
    /// A node promises to go no further than its share of what nobody else has promised.
    Promise(usize),
    /// From, to, version; or of it the confirmations alone.
    Deliver(usize, usize, usize),
    DeliverConfirmation(usize, usize, usize),
    /// A token comes back everywhere.
    Refill,
}

/// All nodes.
#[derive(Clone, Debug)]
pub struct State<const N: usize> {
    nodes: [Node<N>; N],
    /// What one central bucket would hold.
    truth: i64,
    /// Refills, and changes of demand, that may still happen.
    pub refills: u32,
    pub changes: u32,
}

impl<const N: usize> State<N> {
    /// A full bucket of which nobody has heard, and which demand all know of each other.
    pub fn new(law: &Law, demands: [u8; N], refills: u32, changes: u32) -> Self {
        let node = |i: usize| Node {
            versions: vec![Version {
                granted: 0,
                demand: demands[i],
                promised: 0,
                heard: [0; N],
                heard_common: [0; N],
                common: 0,
            }],
            level: law.burst(),
            confirmed: [0; N],
            confirmed_common: [0; N],
        };
        Self { nodes: std::array::from_fn(node), truth: law.burst(), refills, changes }
    }

    /// Tokens granted by all.
    pub fn granted(&self) -> i64 {
        (0..N).map(|i| self.present(i).granted).sum()
    }

    /// How often node `i` has promised anything.
    pub fn promises(&self, i: usize) -> usize {
        self.nodes[i].versions.windows(2).filter(|v| v[0].promised != v[1].promised).count()
    }

    /// Tokens granted beyond what there was.
    pub fn over(&self) -> i64 {
        (-self.truth).max(0)
    }

    fn present(&self, i: usize) -> &Version<N> {
        self.nodes[i].versions.last().expect("there is a first one")
    }

    fn least(of: &[u8; N], but: usize) -> u8 {
        (0..N).filter(|j| *j != but).map(|j| of[j]).min().unwrap_or(u8::MAX)
    }

    /// The most that node `i` may grant now.
    pub fn grantable(&self, law: &Law, i: usize) -> i64 {
        let node = &self.nodes[i];
        let confirmed = if law.fault.single { &node.confirmed } else { &node.confirmed_common };
        let common = usize::from(Self::least(confirmed, i));
        let present = self.present(i);
        let unacked = (present.granted - node.versions[common].granted) as f64;
        let claimed = node.versions[common..].iter().map(|v| v.demand).min().unwrap_or(0);
        let own = if law.fault.fresh_demand { present.demand } else { claimed };
        let others =
            (0..N).filter(|j| *j != i).map(|j| f64::from(self.nodes[j].versions[usize::from(present.heard[j])].demand));
        let weight = stability::weight(f64::from(own), others.sum(), 0, &law.outlook);
        if law.fault.promises {
            let common = usize::from(Self::least(&node.confirmed, i));
            let told = node.versions[common..].iter().map(|v| v.promised).min().unwrap_or(0);
            return (told - present.granted).min(self.left(i)).max(0);
        }
        let window = stability::allowance(&law.rule, &law.outlook, weight, node.level as f64, unacked, 1.0);
        ((window - unacked).floor() as i64).min(node.level).max(0)
    }

    /// What node `i` knows to be left when all have granted all that they have promised.
    fn left(&self, i: usize) -> i64 {
        let unspent = |j: usize| {
            let heard = &self.nodes[j].versions[usize::from(self.present(i).heard[j])];
            (heard.promised - heard.granted).max(0)
        };
        self.nodes[i].level - (0..N).filter(|j| *j != i).map(unspent).sum::<i64>()
    }

    /// Does it; says whether anything has changed.
    pub fn act(&mut self, law: &Law, act: Act) -> bool {
        match act {
            Act::Grant(i, tokens) => {
                let next = Version { granted: self.present(i).granted + tokens, ..*self.present(i) };
                self.nodes[i].versions.push(next);
                self.nodes[i].level -= tokens;
                self.truth -= tokens;
                true
            }
            Act::Ask(i, demand) => {
                let next = Version { demand, ..*self.present(i) };
                self.changes -= 1;
                self.nodes[i].versions.push(next);
                true
            }
            Act::Promise(i) => {
                let share = self.left(i).max(0) / i64::try_from(N).expect("few");
                let present = *self.present(i);
                let next = Version { promised: present.granted + share.max(1), ..present };
                if next.promised != present.promised {
                    self.nodes[i].versions.push(next);
                }
                next.promised != present.promised
            }
            Act::Refill => {
                self.refills -= 1;
                for level in self.nodes.iter_mut().map(|n| &mut n.level).chain([&mut self.truth]) {
                    *level = (*level + 1).min(law.burst());
                }
                true
            }
            Act::Deliver(from, to, version) => self.deliver(from, to, version, true),
            Act::DeliverConfirmation(from, to, version) => self.deliver(from, to, version, false),
        }
    }

    fn deliver(&mut self, from: usize, to: usize, version: usize, news: bool) -> bool {
        let told = self.nodes[from].versions[version];
        let before = usize::from(self.present(to).heard[from]);
        let learnt = told.granted - self.nodes[from].versions[before].granted;
        let node = &mut self.nodes[to];
        let was = (*node.versions.last().expect("one"), node.confirmed, node.confirmed_common);
        node.confirmed[from] = node.confirmed[from].max(told.heard[to]);
        node.confirmed_common[from] = node.confirmed_common[from].max(told.heard_common[to]);
        let common = Self::least(&node.confirmed, to);
        let present = node.versions.last_mut().expect("one");
        if news {
            node.level -= learnt;
            present.heard[from] = u8::try_from(version).expect("few");
            present.heard_common[from] = present.heard_common[from].max(told.common);
        }
        present.common = common;
        was != (*present, node.confirmed, node.confirmed_common)
    }

    /// The versions of `from` that may still reach `to`.
    pub fn deliverable(&self, from: usize, to: usize) -> std::ops::Range<usize> {
        usize::from(self.present(to).heard[from])..self.nodes[from].versions.len()
    }

    /// What tells this state from others, but for what can have no effect any more.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.truth, self.refills, self.changes).hash(&mut hasher);
        for (i, node) in self.nodes.iter().enumerate() {
            (node.level, node.confirmed, node.confirmed_common).hash(&mut hasher);
            let heard = (0..N).filter(|j| *j != i).map(|j| self.present(j).heard[i]).min().unwrap_or(0);
            for (v, version) in node.versions.iter().enumerate() {
                if v < usize::from(heard) {
                    (version.granted, version.demand, version.promised).hash(&mut hasher);
                } else {
                    version.hash(&mut hasher);
                }
            }
        }
        hasher.finish()
    }
}
