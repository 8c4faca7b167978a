//! Pages of busy sockets that hold nothing, while memory is short.
//!
//! ```text
//!   a ring     |....##########..............................|   # not acknowledged, or not read
//!                   ^lo       ^hi                               . walked through: pages, but no data
//! ```
//!
//! A ring that has been walked through keeps its pages, however little is in it. Linux, whose
//! buffers are what is in them, need not do anything about that; here the shell punches out what
//! lies before the first and behind the last byte in use. It is asked to when the position has
//! moved by half of the base since it last did, and when the list of sockets with pages is looked
//! through ([`super::idle`]), which finds those that stand still. So under pressure a socket holds
//! its data and half a base at the most, however large its rings are; the rings stay as they are,
//! because a smaller one could be used only when everything in the larger one is gone, and the peer
//! would have to stop for that.
//!
//! What is given back is before the positions of a committed record: no restart needs it. The
//! receive buffer is written by the transport alone; of the send buffer the shell gives nothing
//! back while the application may be writing, and is asked again.
//!
//! Volatile: a restore takes everything for touched, and asks.

use super::Account;
use super::account::{PAGE, pages};
use crate::engine::actions::Notice;
use crate::engine::conn::Conn;
use crate::engine::{ConnId, Engine, SocketRef};

/// Fewer bytes are not worth a system call.
pub(super) const LEAST: u64 = 4 * PAGE;

/// Bytes that a socket that is in use keeps for nothing.
pub(super) fn most(base: u32) -> u64 {
    u64::from(base.min(super::RING_BASE) / 2).max(LEAST)
}

fn first(position: u64) -> u64 {
    position - position % PAGE
}

impl Conn {
    /// Bytes of pages that hold nothing, of the send and of the receive buffer.
    fn spare(&self) -> (u64, u64) {
        let tcb = &self.tcb;
        let rings = &tcb.memory.rings;
        let (tx, rx) = self.charges();
        let unacked = pages(rings.tx.span(), first(tcb.acked_upto()), tcb.written);
        let unread = pages(rings.rx.span(), first(tcb.consumed), tcb.placed_upto());
        (tx.saturating_sub(unacked), rx.saturating_sub(unread))
    }

    /// Under pressure: the shell is asked for pages if one of the buffers has `least` to spare.
    pub(super) fn ask_for_spare(
        &mut self,
        least: u64,
        account: &Account,
        notices: &mut Vec<Notice>,
    ) {
        if !account.pressure() || self.rt.memory.asked || self.tcb.owner == SocketRef::NONE {
            return;
        }
        let (tx, rx) = self.spare();
        if tx.max(rx) >= least {
            self.rt.memory.asked = true;
            notices.push(Notice::Spare(self.id));
        }
    }
}

impl Engine {
    /// The answer to [`Notice::Spare`], before anything else is shown to the engine: of which of
    /// the buffers, send and receive, everything was given back that holds nothing.
    pub fn gave_back(&mut self, id: ConnId, tx: bool, rx: bool) {
        let Some(conn) = self
            .slots
            .get_mut(id.0 as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        let (sent, read) = (first(conn.tcb.acked_upto()), first(conn.tcb.consumed));
        let memory = &mut conn.rt.memory;
        memory.asked = false;
        if tx {
            memory.trimmed.0 = memory.trimmed.0.max(sent);
        }
        if rx {
            memory.trimmed.1 = memory.trimmed.1.max(read);
        }
        if tx || rx {
            self.account.shown.trimmed += 1;
            conn.settle_charge(&mut self.account, &self.config.memory.limits);
        }
    }
}
