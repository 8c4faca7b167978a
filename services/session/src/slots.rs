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
}

impl Slots {
    pub(crate) fn new(count: u32) -> Self {
        Self {
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

    /// Slots in use with their numbers.
    pub(crate) fn iter_used(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0u32..)
            .zip(&self.slots)
            .filter(|(_, s)| s.state == Use::Used)
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

    fn take(&mut self, slot: u32) {
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
        let mut slots = Slots::new(3);
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
        let mut slots = Slots::new(1);
        slots.allocate();
        slots.release(0, true);
        slots.bury(0);
        slots.bury(0);
        assert_eq!(slots.allocate(), Some(0));
        assert_eq!(slots.allocate(), None);
    }

    #[test]
    fn adoption_takes_a_certain_slot_once() {
        let mut slots = Slots::new(4);
        assert!(slots.allocate_at(2));
        assert!(!slots.allocate_at(2));
        assert!(!slots.allocate_at(4));
        let rest: Vec<_> = std::iter::from_fn(|| slots.allocate()).collect();
        assert_eq!(rest.len(), 3);
        assert!(!rest.contains(&2));
    }
}
