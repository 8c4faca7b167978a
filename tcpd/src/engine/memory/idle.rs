//! Idle sockets give their pages back.
//!
//! Sockets that have pages are in a list, in the order in which they were entered. The first is
//! looked at when it has been there for the idle time: if it was in use since, or holds data, it
//! goes to the end; else its pages can go, and it is in no list until it has pages again. So a
//! busy socket costs one look in each idle time, and an idle one nothing. Under pressure looks
//! come sixteen times as often, and what is not idle gives up the pages that hold nothing
//! ([`spare`]).

use super::{Account, spare};
use crate::engine::actions::Notice;
use crate::engine::conn::Conn;
use crate::engine::error::Errno;
use crate::engine::{ConnId, Engine};
use abi::Nanos;

/// Sockets looked at in one turn.
const LOOKS: usize = 64;
/// Idle times under pressure are so much shorter.
const HURRY: Nanos = 16;

/// An entry of the list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed {
    id: ConnId,
    generation: u32,
    since: Nanos,
}

/// What a look found.
enum Found {
    Gone,
    InUse,
    Idle,
}

impl Conn {
    pub(super) fn list(&mut self, account: &mut Account, now: Nanos) {
        let memory = &mut self.rt.memory;
        if memory.charged > 0 && !memory.listed {
            memory.listed = true;
            account.listed.push_back(Listed {
                id: self.id,
                generation: self.tcb.generation,
                since: now,
            });
        }
    }

    fn last_use(&self) -> Nanos {
        self.tcb
            .last_recv_at
            .max(self.tcb.last_sent_at)
            .max(self.rt.memory.touched_at)
    }
}

impl Engine {
    fn idle_time(&self) -> Nanos {
        if self.account.pressure() {
            self.config.memory.idle / HURRY
        } else {
            self.config.memory.idle
        }
    }

    /// When [`Engine::trim_idle`] should be called next.
    #[must_use]
    pub fn next_trim(&self) -> Option<Nanos> {
        if self.config.memory.idle == 0 {
            return None;
        }
        let first = self.account.listed.front()?;
        Some(first.since + self.idle_time())
    }

    /// Finds idle sockets: [`Notice::Idle`] for each, at most a few at a time. When memory is
    /// used up, orphans that hold data and make no progress are given up (Linux:
    /// `tcp_out_of_memory`).
    pub fn trim_idle(&mut self, now: Nanos) {
        for _ in 0..LOOKS {
            if self.next_trim().is_none_or(|at| at > now) {
                return;
            }
            let Some(entry) = self.account.listed.pop_front() else {
                return;
            };
            match self.look_at_idle(entry, now) {
                Found::Gone => {}
                Found::InUse => self.account.listed.push_back(Listed {
                    since: now,
                    ..entry
                }),
                Found::Idle => {
                    self.account.shown.trimmed += 1;
                    self.actions.notices.push(Notice::Idle(entry.id));
                }
            }
        }
    }

    fn look_at_idle(&mut self, entry: Listed, now: Nanos) -> Found {
        let idle = self.idle_time();
        let exhausted = self.account.is_exhausted(&self.config.memory.limits);
        let Some(conn) = self
            .slots
            .get_mut(entry.id.0 as usize)
            .and_then(Option::as_deref_mut)
            .filter(|conn| conn.tcb.generation == entry.generation)
        else {
            return Found::Gone;
        };
        let limits = &self.config.memory.limits;
        conn.settle_charge(&mut self.account, limits);
        if conn.rt.memory.charged == 0 {
            conn.rt.memory.listed = false;
            return Found::Gone;
        }
        if conn.last_use() + idle > now || !conn.tcb.buffers_are_empty() {
            if exhausted && conn.tcb.is_orphan() && conn.tcb.progress_at + idle <= now {
                self.step(entry.id, now, |conn, ctx| {
                    conn.abort(Some(Errno::ECONNABORTED), ctx);
                });
                return Found::Gone;
            }
            conn.ask_for_spare(spare::LEAST, &self.account, &mut self.actions.notices);
            return Found::InUse;
        }
        conn.note_trimmed();
        conn.settle_charge(&mut self.account, limits);
        conn.rt.memory.listed = false;
        Found::Idle
    }
}
