//! What is to happen: ordered by time, and among equals by the order in which it was scheduled. It must not know what
//! any of it means.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use spillgate_core::time::Nanos;

/// Things to come. Two of the same instant come in the order in which they were put in, so that a run repeats.
#[derive(Debug)]
pub struct Queue<E> {
    /// (time, sequence number, place): small, since a heap moves its items about.
    heap: BinaryHeap<Reverse<(Nanos, u64, u32)>>,
    places: Vec<Option<E>>,
    free: Vec<u32>,
    sequence: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), places: Vec::new(), free: Vec::new(), sequence: 0 }
    }
}

impl<E> Queue<E> {
    /// Has `event` come at `at`.
    pub fn push(&mut self, at: Nanos, event: E) {
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = Some(event);
                place
            }
            None => {
                self.places.push(Some(event));
                u32::try_from(self.places.len() - 1).expect("four billion events are more than memory holds")
            }
        };
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence, place)));
    }

    /// When the next one comes.
    #[must_use]
    pub fn next_at(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes the next one.
    pub fn pop(&mut self) -> Option<(Nanos, E)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        let event = self.places[place as usize].take().expect("a place in the heap is filled until it is popped");
        Some((at, event))
    }

    /// How many are to come.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is to come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn events_come_by_time_and_equals_in_order(times in proptest::collection::vec(0..20u64, 0..200)) {
            let mut queue = Queue::default();
            let mut taken = Vec::new();
            for (i, at) in times.iter().enumerate() {
                queue.push(Nanos(*at), i);
                // places are given away again
                if i % 3 == 2 {
                    taken.push(queue.pop().unwrap());
                }
            }
            let mut rest = Vec::new();
            while let Some(event) = queue.pop() {
                rest.push(event);
            }
            prop_assert!(rest.windows(2).all(|w| w[0] < w[1]), "{rest:?}");
            prop_assert_eq!(taken.len() + rest.len(), times.len());
            prop_assert!(queue.is_empty() && queue.places.len() <= times.len());
        }
    }
}
