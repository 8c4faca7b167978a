//! The socket slots of one session.
//!
//! A slot is free, reserved (see `stock`), in use (it has an owner in the transport's table, and
//! mostly a shadow), or a zombie: the transport is done with it but the application still holds a descriptor whose far
//! end is closed (reset). Zombies are used again when the application says that it is done
//! (both shutdown bits), or last of all, the oldest first: a stale descriptor then finds another
//! incarnation in the slot.

use crate::shadow::Shadow;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// No transport socket owns the slot.
pub const NO_OWNER: u32 = u32::MAX;

/// What a slot is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Free,
    /// Belongs to the stock.
    Reserved,
    Used,
    Zombie,
}

/// One slot.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) state: Use,
    pub(crate) owner: u32,
    pub(crate) incarnation: u32,
    pub(crate) shadow: Option<Shadow>,
    /// Its application's end is closed.
    pub(crate) closed: bool,
    /// Its application's end was given away.
    pub(crate) handed: bool,
    /// Its pair, made ahead and stored.
    pub(crate) premade: Option<(Shadow, OwnedFd)>,
    /// The window its buffers go on in, as last published; see [`abi::session::Rings::window`].
    pub(crate) window: u32,
}

impl Slot {
    const fn new() -> Self {
        Self {
            state: Use::Free,
            owner: NO_OWNER,
            incarnation: 0,
            shadow: None,
            closed: false,
            handed: false,
            premade: None,
            window: 0,
        }
    }
}

/// All of them; the vector grows as they are first used.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    count: u32,
    used: u32,
    /// Freed ones, the last freed used first: its pages are warm.
    free: Vec<u32>,
    zombies: VecDeque<u32>,
    windows: Windows,
}

/// Which windows are in use: those that slots name. A zombie keeps its own, as its application
/// may still read.
#[derive(Debug)]
struct Windows {
    count: u32,
    /// Used once at least, so far.
    made: u32,
    free: Vec<u32>,
}

impl Windows {
    fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let next = (self.made < self.count).then_some(self.made + 1)?;
            self.made = next;
            Some(next)
        })
    }

    /// Takes a certain one (restore).
    fn take_at(&mut self, window: u32) {
        while self.made < window.min(self.count) {
            self.made += 1;
            self.free.push(self.made);
        }
        self.free.retain(|&w| w != window);
    }

    fn give(&mut self, window: u32) {
        if (1..=self.made).contains(&window) && !self.free.contains(&window) {
            self.free.push(window);
        }
    }
}

impl Slots {
    pub(crate) fn new(count: u32, windows: u32) -> Self {
        Self {
            windows: Windows {
                count: windows,
                made: 0,
                free: Vec::new(),
            },
            slots: Vec::new(),
            count,
            used: 0,
            free: Vec::new(),
            zombies: VecDeque::new(),
        }
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize)
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// Of the slots from `from` on the first `count`: those in use, and where to go on (none: that
    /// was all).
    pub(crate) fn used_from(
        &self,
        from: u32,
        count: usize,
    ) -> (impl Iterator<Item = u32>, Option<u32>) {
        let end = u32::try_from(count).map_or(u32::MAX, |count| from.saturating_add(count));
        let more = (end as usize) < self.slots.len();
        let used = (from..end)
            .zip(self.slots.iter().skip(from as usize))
            .filter(|(_, s)| s.state == Use::Used)
            .map(|(slot, _)| slot);
        (used, more.then_some(end))
    }

    /// Takes a free slot, or an old zombie.
    pub(crate) fn allocate(&mut self) -> Option<u32> {
        let slot = self.pop_free().or_else(|| {
            std::iter::from_fn(|| self.zombies.pop_front()).find(|&z| {
                self.slots
                    .get(z as usize)
                    .is_some_and(|s| s.state == Use::Zombie)
            })
        })?;
        self.take(slot);
        Some(slot)
    }

    fn pop_free(&mut self) -> Option<u32> {
        while let Some(s) = self.free.pop() {
            // Adopted slots may still be in the list.
            if self.get(s).is_some_and(|s| s.state == Use::Free) {
                return Some(s);
            }
        }
        self.grow()
    }

    /// Reserves a free slot for the stock, if more than `spare` would be left.
    pub(crate) fn reserve(&mut self, spare: usize) -> Option<u32> {
        let left = self.free.len() + (self.count as usize).saturating_sub(self.slots.len());
        if left <= spare {
            return None;
        }
        let slot = self.pop_free()?;
        self.get_mut(slot)?.state = Use::Reserved;
        Some(slot)
    }

    /// Takes a reserved slot into use.
    pub(crate) fn use_reserved(&mut self, slot: u32) {
        if self.get(slot).is_some_and(|s| s.state == Use::Reserved) {
            self.take(slot);
        }
    }

    /// Gives a reserved slot back unused.
    pub(crate) fn unreserve(&mut self, slot: u32) {
        if let Some(s) = self.get_mut(slot)
            && s.state == Use::Reserved
        {
            s.state = Use::Free;
            self.free.push(slot);
        }
    }

    fn grow(&mut self) -> Option<u32> {
        let next = u32::try_from(self.slots.len())
            .ok()
            .filter(|&n| n < self.count)?;
        self.slots.push(Slot::new());
        Some(next)
    }

    /// A window for a slot in use, which has none.
    pub(crate) fn take_window(&mut self, slot: u32) -> Option<u32> {
        let s = self.slots.get_mut(slot as usize)?;
        if s.state != Use::Used || s.window != 0 {
            return None;
        }
        s.window = self.windows.take()?;
        Some(s.window)
    }

    /// A slot in use has this window (restore).
    pub(crate) fn adopt_window(&mut self, slot: u32, window: u32) {
        if let Some(s) = self.slots.get_mut(slot as usize)
            && s.window != window
        {
            let before = std::mem::replace(&mut s.window, window);
            self.windows.give(before);
            self.windows.take_at(window);
        }
    }

    /// Takes a free slot's (or a zombie's) window away.
    fn drop_window(&mut self, slot: u32) {
        if let Some(s) = self.slots.get_mut(slot as usize) {
            self.windows.give(std::mem::take(&mut s.window));
        }
    }

    fn take(&mut self, slot: u32) {
        self.drop_window(slot);
        if let Some(s) = self.get_mut(slot) {
            *s = Slot {
                state: Use::Used,
                ..Slot::new()
            };
            self.used += 1;
        }
    }

    /// Takes a certain slot (restore); false when it is taken or impossible.
    pub(crate) fn allocate_at(&mut self, slot: u32) -> bool {
        while self.slots.len() <= slot as usize {
            let Some(n) = self.grow() else { return false };
            self.free.push(n);
        }
        match self.get(slot) {
            Some(s) if s.state == Use::Free => {
                self.take(slot);
                true
            }
            _ => false,
        }
    }

    /// Gives a slot back; its shadow is handed out.
    pub(crate) fn release(&mut self, slot: u32, zombie: bool) -> Option<Shadow> {
        let s = self.get_mut(slot)?;
        if s.state != Use::Used {
            return None;
        }
        s.owner = NO_OWNER;
        let shadow = s.shadow.take();
        s.state = if zombie { Use::Zombie } else { Use::Free };
        if zombie {
            self.zombies.push_back(slot);
        } else {
            self.drop_window(slot);
            self.free.push(slot);
        }
        self.used -= 1;
        shadow
    }

    /// The application is done with a zombie.
    pub(crate) fn bury(&mut self, slot: u32) {
        if let Some(s) = self.get_mut(slot)
            && s.state == Use::Zombie
        {
            s.state = Use::Free;
            self.drop_window(slot);
            self.free.push(slot);
            self.zombies.retain(|&z| z != slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zombies_are_used_again_last_and_oldest_first() {
        let mut slots = Slots::new(3, 0);
        let all: Vec<_> = (0..3).map(|_| slots.allocate().unwrap()).collect();
        assert_eq!(all, [0, 1, 2]);
        assert_eq!(slots.allocate(), None);
        assert!(slots.release(1, true).is_none());
        slots.release(0, true);
        slots.release(2, false);
        assert_eq!(slots.used(), 0);
        assert_eq!(
            [slots.allocate(), slots.allocate(), slots.allocate()],
            [Some(2), Some(1), Some(0)]
        );
        assert_eq!(slots.allocate(), None);
    }

    #[test]
    fn a_buried_zombie_is_free() {
        let mut slots = Slots::new(1, 0);
        slots.allocate();
        slots.release(0, true);
        slots.bury(0);
        slots.bury(0);
        assert_eq!(slots.allocate(), Some(0));
        assert_eq!(slots.allocate(), None);
    }

    #[test]
    fn a_window_has_one_slot_and_a_zombie_keeps_its_own() {
        let mut slots = Slots::new(4, 2);
        for _ in 0..3 {
            slots.allocate();
        }
        assert_eq!(slots.take_window(0), Some(1));
        assert_eq!(slots.take_window(0), None);
        assert_eq!(slots.take_window(1), Some(2));
        assert_eq!(slots.take_window(2), None);
        slots.release(0, true);
        assert_eq!(slots.take_window(2), None);
        slots.bury(0);
        assert_eq!(slots.take_window(2), Some(1));
        slots.release(1, false);
        assert_eq!(slots.take_window(1), None, "not in use");
        slots.allocate_at(3);
        slots.adopt_window(3, 2);
        slots.adopt_window(3, 2);
        slots.allocate_at(1);
        assert_eq!(slots.take_window(1), None);
        slots.release(3, false);
        assert_eq!(slots.take_window(1), Some(2));
    }

    #[test]
    fn adoption_takes_a_certain_slot_once() {
        let mut slots = Slots::new(4, 0);
        assert!(slots.allocate_at(2));
        assert!(!slots.allocate_at(2));
        assert!(!slots.allocate_at(4));
        let rest: Vec<_> = std::iter::from_fn(|| slots.allocate()).collect();
        assert_eq!(rest.len(), 3);
        assert!(!rest.contains(&2));
    }
}
