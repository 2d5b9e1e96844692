//! What goes first when space is short.
//!
//! Owns the order over the history of many files. Never decides how much must go: callers take from
//! the queue until what they dropped has freed enough, since what is shared frees nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Decision, Item};

/// Prunable items of many files, from the first to go to the last.
///
/// What its policy drops goes before what it keeps, and among either what stopped being current
/// longest ago. Heads, pinned items and those without bytes are never in it.
#[derive(Debug, Clone)]
pub struct PressureQueue<K> {
    heap: BinaryHeap<Reverse<Candidate<K>>>,
}

/// An item that can go. `K` is how the caller finds it.
///
/// The order of the fields is the order in which candidates go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate<K> {
    /// Whether its policy keeps it, so that it goes only because space is short.
    pub is_wanted: bool,
    /// When it stopped being current, in nanoseconds since 1970.
    pub end_ns: i64,
    /// The item.
    pub item: Item,
    /// The caller's name for it.
    pub key: K,
}

impl<K: Ord> PressureQueue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    /// Adds an item, if it can go at all and dropping it can free something.
    pub fn offer(&mut self, key: K, item: Item, decision: &Decision) {
        if !item.is_held() && item.size_bytes > 0 {
            let (is_wanted, end_ns) = (decision.is_keep(), item.end_ns());
            self.heap.push(Reverse(Candidate { is_wanted, end_ns, item, key }));
        }
    }

    /// Takes the first candidates whose sizes come to `wanted_bytes`, or all if they don't.
    pub fn take_bytes(&mut self, wanted_bytes: u64) -> Vec<Candidate<K>> {
        let mut taken = Vec::new();
        let mut bytes = 0_u64;
        while bytes < wanted_bytes {
            let Some(candidate) = self.next() else { break };
            bytes = bytes.saturating_add(candidate.item.size_bytes);
            taken.push(candidate);
        }
        taken
    }
}

impl<K: Ord> Default for PressureQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord> Iterator for PressureQueue<K> {
    type Item = Candidate<K>;

    /// Takes the candidate that goes next; more can be offered afterwards.
    fn next(&mut self) -> Option<Candidate<K>> {
        self.heap.pop().map(|Reverse(candidate)| candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DropReason, KeepReason, Life};
    use super::*;
    use proptest::prelude::*;

    fn past(time_ns: i64, end_ns: i64, size_bytes: u64) -> Item {
        Item { number: 1, time_ns, life: Life::Until(end_ns), size_bytes, pinned: false }
    }

    fn kept() -> Decision {
        Decision::Keep(vec![KeepReason::Pinned])
    }

    fn dropped() -> Decision {
        Decision::Drop(DropReason::Outlived)
    }

    #[test]
    fn the_longest_replaced_goes_first_and_the_unwanted_before_all() {
        let mut queue = PressureQueue::new();
        queue.offer("kept, old", past(1, 10, 1), &kept());
        queue.offer("kept, older, replaced later", past(0, 20, 1), &kept());
        queue.offer("dropped", past(90, 100, 1), &dropped());
        queue.offer("empty", past(0, 0, 0), &dropped());
        queue.offer("head", Item { life: Life::Head, ..past(0, 0, 1) }, &dropped());
        queue.offer("pinned", Item { pinned: true, ..past(0, 0, 1) }, &dropped());
        let order: Vec<_> = queue.map(|candidate| candidate.key).collect();
        assert_eq!(order, ["dropped", "kept, old", "kept, older, replaced later"]);
    }

    #[test]
    fn no_more_goes_than_is_needed() {
        let mut queue = PressureQueue::new();
        for time in 0..4 {
            queue.offer(time, past(time, time, 10), &kept());
        }
        let mut take = |bytes| queue.take_bytes(bytes).iter().map(|c| c.key).collect::<Vec<_>>();
        assert_eq!(take(0), [0; 0]);
        assert_eq!(take(11), [0, 1]);
        assert_eq!(take(10), [2]);
        assert_eq!(take(99), [3]);
        assert_eq!(take(1), [0; 0]);
    }

    proptest! {
        #[test]
        fn the_order_offered_does_not_matter(
            items in prop::collection::vec((0..9_i64, 0..9_i64, 0..3_u64, any::<bool>()), 0..30)
        ) {
            let queue = |items: &mut dyn Iterator<Item = (usize, (i64, i64, u64, bool))>| {
                let mut queue = PressureQueue::new();
                for (key, (time, end, size, keep)) in items {
                    let decision = if keep { kept() } else { dropped() };
                    queue.offer(key, past(time, end, size), &decision);
                }
                queue.collect::<Vec<_>>()
            };
            let forwards = queue(&mut items.iter().copied().enumerate());
            let backwards = queue(&mut items.iter().copied().enumerate().rev());
            prop_assert_eq!(&forwards, &backwards);
            prop_assert!(forwards.is_sorted_by_key(|c| (c.is_wanted, c.end_ns)));
        }
    }
}
