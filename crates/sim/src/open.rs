//! Requests that wait for their answers, by number. It must not know who decides them.

use std::collections::VecDeque;

use crate::observe::Request;

/// Requests come in the order of their numbers and go in nearly that order, so a queue is quicker than a map.
#[derive(Debug, Default)]
pub(crate) struct Open {
    /// By number; `None`: answered, with others before it that are not.
    queue: VecDeque<(u64, Option<Request>)>,
    waiting: usize,
}

impl Open {
    pub fn insert(&mut self, request: Request) {
        let place = match self.queue.back() {
            Some((last, _)) if *last >= request.id => self.queue.partition_point(|(id, _)| *id < request.id),
            _ => self.queue.len(),
        };
        self.queue.insert(place, (request.id, Some(request)));
        self.waiting += 1;
    }

    /// Whether the request of that number was waiting; it is not any more.
    pub fn remove(&mut self, id: u64) -> bool {
        // the first to come is the first to go, often
        let first = self.queue.front().is_some_and(|(other, _)| *other == id);
        let place = if first { 0 } else { self.queue.partition_point(|(other, _)| *other < id) };
        let found = self.queue.get_mut(place).filter(|(other, _)| *other == id);
        let waited = found.is_some_and(|(_, request)| request.take().is_some());
        self.waiting -= usize::from(waited);
        while let Some((_, None)) = self.queue.front() {
            self.queue.pop_front();
        }
        waited
    }

    pub fn iter(&self) -> impl Iterator<Item = &Request> {
        self.queue.iter().filter_map(|(_, request)| request.as_ref())
    }

    pub const fn len(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use spillgate_core::time::Nanos;

    fn request(id: u64) -> Request {
        Request { id, first: id, attempt: 1, workload: 0, limit: 0, key: 0, cost: 1, node: 0, at: Nanos::ZERO }
    }

    proptest! {
        #[test]
        fn it_is_a_map_by_number(steps in proptest::collection::vec((any::<bool>(), 0..12u64), 0..200)) {
            let (mut open, mut map) = (Open::default(), std::collections::BTreeMap::new());
            let mut next = 0;
            for (insert, by) in steps {
                if insert {
                    next += 1 + by / 4;
                    open.insert(request(next));
                    map.insert(next, request(next));
                } else {
                    let id = next.saturating_sub(by);
                    prop_assert_eq!(open.remove(id), map.remove(&id).is_some());
                }
                prop_assert!(open.iter().eq(map.values()));
                prop_assert_eq!(open.len(), map.len());
            }
        }
    }
}
