//! Who has to be looked at: dirty words, and which applications ring.
//!
//! A session is either *active* (masked: its applications do not ring, we look every turn) or
//! *armed* (they ring our bell, we look when we were woken). Before sleeping, all active ones
//! are armed, and stay armed until found dirty; so an idle session costs a look a wake-up, and
//! sleeping costs a store for each session that was busy since the last sleep.

use crate::sessions::{Event, Sessions};
use crate::slots::Use;

/// Sockets of a session that count as dirty in one turn after a restart: what moves already is
/// not to wait for thousands that do not.
const REPLAYED: usize = 64;

impl Sessions {
    /// Before the transport sleeps (true): wants to be rung. After it (false). A SeqCst fence
    /// must come between arming and [`Sessions::has_input`].
    pub fn arm(&mut self, armed: bool) {
        if !armed {
            // Whoever rang is found by a look at everybody.
            self.scan_all = true;
            return;
        }
        let mut active = std::mem::take(&mut self.active);
        self.armed.clear();
        for index in active.drain(..) {
            if let Some(session) = self.session_at_mut(index) {
                session.active = false;
                if let Some(memory) = session.memory() {
                    memory.set_armed(true);
                }
                self.armed.push(index);
            }
        }
        self.active = active;
    }

    /// Now and then: takes every socket for dirty, and so every session for one that may have
    /// been told wrongly that we are awake. Something may have written over the words that say
    /// what is to be looked at.
    pub fn look_again(&mut self) {
        self.scan_all = true;
        for session in self.all.iter_mut().flatten() {
            session.replay.get_or_insert(0);
        }
    }

    /// After arming: whether there is something to do all the same. Sessions armed earlier than
    /// just now have rung if they became dirty.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.hinted
            || self.armed.iter().any(|&index| {
                self.session_at(index).is_some_and(|s| {
                    s.replay.is_some() || s.memory().is_some_and(shm::SessionMemory::is_dirty)
                })
            })
    }

    /// Masks a session and looks at it every turn.
    pub(crate) fn activate(&mut self, index: usize) {
        if let Some(session) = self.session_at_mut(index)
            && !session.active
        {
            session.active = true;
            if let Some(memory) = session.memory() {
                memory.set_armed(false);
            }
            self.active.push(index);
        }
    }

    /// Looks at all armed sessions.
    pub(crate) fn scan_armed(&mut self) {
        self.scan_all = false;
        for index in 0..self.all.len() {
            let dirty = self.session_at(index).is_some_and(|s| {
                !s.active
                    && (s.replay.is_some() || s.memory().is_some_and(shm::SessionMemory::is_dirty))
            });
            if dirty {
                self.activate(index);
            }
        }
    }

    /// Takes the dirty sockets of the active sessions.
    pub(crate) fn scan_dirty(&mut self, events: &mut Vec<Event>) {
        for &index in &self.active {
            let Some(session) = self.all.get_mut(index).and_then(Option::as_deref_mut) else {
                continue;
            };
            let Some(attached) = &session.attached else {
                continue;
            };
            let memory = attached.memory.clone();
            if let Some(from) = session.replay {
                let region = session.region;
                let (slots, next) = session.slots.used_from(from, REPLAYED);
                events.extend(slots.map(|slot| Event::Dirty(crate::SocketRef { region, slot })));
                session.replay = next;
            }
            memory.take_dirty(|slot| match session.slots.get(slot).map(|s| s.state) {
                Some(Use::Used) => events.push(Event::Dirty(session.socket(slot))),
                Some(Use::Zombie) if session.words(slot).is_some_and(|w| w.shut_both()) => {
                    session.slots.bury(slot);
                }
                _ => {}
            });
        }
    }
}
