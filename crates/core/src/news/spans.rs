//! Which own charges are common knowledge. It must not know peers: a tick is confirmed by all or it is not.

/// How many spans of ticks a key tells apart.
const SPANS: usize = 6;

/// What was told in a run of ticks.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    /// The last tick of the run.
    tick: u64,
    /// Own cumulative grants then.
    granted: u64,
    /// The demand told last, and the least one told.
    demand: f32,
    demand_least: f32,
}

/// Which own charges are common knowledge: a short queue of what was told when.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    pub(super) acked: u64,
    acked_demand: f32,
    /// Only while something is under way: most keys that a node knows are asked for at others.
    queue: Option<Box<Queue>>,
}

#[derive(Clone, Debug, Default)]
struct Queue {
    spans: [Span; SPANS],
    len: usize,
}

impl Spans {
    /// Everything up to `granted` is common knowledge, and so is that the demand is `demand`.
    pub(super) const fn settled(granted: u64, demand: f32) -> Self {
        Self { acked: granted, acked_demand: demand, queue: None }
    }

    fn under_way(&self) -> &[Span] {
        self.queue.as_ref().map_or(&[], |queue| &queue.spans[..queue.len])
    }

    /// Notes that `granted` and `demand` are told in `tick`, while ticks up to `common` are common knowledge.
    ///
    /// A span covers a sixth of the ticks under way or a little more. So the queue never overflows for long, whatever
    /// the round trip, and a charge waits at most a sixth longer than it must.
    pub(super) fn told(&mut self, tick: u64, granted: u64, demand: f32, common: u64) {
        let width = tick.saturating_sub(common) / (SPANS as u64 - 1) + 1;
        let Queue { spans, len } = &mut **self.queue.get_or_insert_default();
        match spans[..*len].last_mut() {
            Some(last) if last.tick / width == tick / width || *len == SPANS => {
                *last = Span { tick, granted, demand, demand_least: last.demand_least.min(demand) };
            }
            _ => {
                spans[*len] = Span { tick, granted, demand, demand_least: demand };
                *len += 1;
            }
        }
    }

    /// Lets go of what has become common knowledge.
    pub(super) fn confirm(&mut self, common: u64) {
        let Some(queue) = &mut self.queue else { return };
        let Queue { spans, len } = &mut **queue;
        let done = spans[..*len].iter().take_while(|s| s.tick <= common).count();
        if done > 0 {
            let last = spans[done - 1];
            (self.acked, self.acked_demand) = (last.granted, last.demand);
            spans.copy_within(done..*len, 0);
            *len -= done;
            if *len == 0 {
                self.queue = None;
            }
        }
    }

    /// Own cumulative grants that were told up to `tick`.
    pub(super) fn told_by(&self, tick: u64) -> u64 {
        self.under_way().iter().take_while(|s| s.tick <= tick).last().map_or(self.acked, |s| s.granted)
    }

    /// The least demand that a live peer may hold to be this node's, given the present one.
    pub(super) fn demand_confirmed(&self, present: f32) -> f32 {
        self.under_way().iter().map(|s| s.demand_least).fold(present.min(self.acked_demand), f32::min)
    }

    /// No demand told so far counts as heard of.
    pub(super) fn claim_nothing(&mut self) {
        self.acked_demand = 0.0;
        if let Some(queue) = &mut self.queue {
            queue.spans.iter_mut().for_each(|s| (s.demand, s.demand_least) = (0.0, 0.0));
        }
    }

    /// Whether nothing is under way.
    pub(super) const fn is_empty(&self) -> bool {
        self.queue.is_none()
    }
}
