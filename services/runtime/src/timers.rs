//! Many deadlines, of which the loop needs the next.
//!
//! A heap with lazy updates: moving a deadline later (what every acknowledgement does to a
//! retransmission timer) only writes the new time; the entry is put right when it comes up.
//! Moving it earlier adds an entry. Pure: the time is handed in.

use abi::Nanos;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Deadlines by key, a small number such as a slot. One deadline a key.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Nanos, u32)>>,
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// What was asked for.
    deadline: Option<Nanos>,
    /// The earliest entry in the heap.
    queued: Option<Nanos>,
}

impl Timers {
    /// None at all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets, moves or (none) takes away the deadline of `key`.
    pub fn set(&mut self, key: u32, deadline: Option<Nanos>) {
        let index = key as usize;
        if index >= self.slots.len() {
            if deadline.is_none() {
                return;
            }
            self.slots.resize(index + 1, Slot::default());
        }
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.deadline = deadline;
        if let Some(at) = deadline
            && slot.queued.is_none_or(|q| at < q)
        {
            slot.queued = Some(at);
            self.heap.push(Reverse((at, key)));
        }
    }

    /// The deadline of `key`.
    #[must_use]
    pub fn get(&self, key: u32) -> Option<Nanos> {
        self.slots.get(key as usize)?.deadline
    }

    /// When to look again: never later than the next deadline, sometimes earlier.
    #[must_use]
    pub fn next(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The key of a deadline that has passed; it is taken away. Call until none is left.
    pub fn expire(&mut self, now: Nanos) -> Option<u32> {
        while let Some(&Reverse((at, key))) = self.heap.peek() {
            if at > now {
                return None;
            }
            self.heap.pop();
            let Some(slot) = self.slots.get_mut(key as usize) else {
                continue;
            };
            if slot.queued != Some(at) {
                continue;
            }
            slot.queued = None;
            match slot.deadline {
                Some(due) if due <= now => {
                    slot.deadline = None;
                    return Some(key);
                }
                Some(due) => {
                    slot.queued = Some(due);
                    self.heap.push(Reverse((due, key)));
                }
                None => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn agrees_with_a_map() {
        let mut rng = 12345u64;
        let mut next = move || {
            rng = rng
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            rng >> 33
        };
        let (mut timers, mut oracle) = (Timers::new(), BTreeMap::new());
        let mut now = 0;
        for _ in 0..50_000 {
            let key = u32::try_from(next() % 50).unwrap();
            match next() % 4 {
                0 => {
                    timers.set(key, None);
                    oracle.remove(&key);
                }
                1 | 2 => {
                    let at = now + next() % 1000;
                    timers.set(key, Some(at));
                    oracle.insert(key, at);
                }
                _ => {
                    now += next() % 300;
                    let mut fired = Vec::new();
                    while let Some(key) = timers.expire(now) {
                        fired.push(key);
                    }
                    fired.sort_unstable();
                    let due: Vec<u32> = oracle
                        .iter()
                        .filter(|(_, at)| **at <= now)
                        .map(|(k, _)| *k)
                        .collect();
                    oracle.retain(|_, at| *at > now);
                    assert_eq!(fired, due);
                }
            }
            if let Some(first) = oracle.values().min() {
                assert!(timers.next().unwrap() <= *first);
            }
        }
        assert!(timers.heap.len() < 50 * 200);
    }
}
