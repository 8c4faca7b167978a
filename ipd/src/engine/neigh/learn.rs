//! What an ARP packet (later a neighbour advertisement) says about a neighbour's address.

use super::entry::{DELAY_TIME, LOCK_TIME};
use super::{Key, State, Table};
use abi::Nanos;
use shm::SkBuff;
use std::collections::VecDeque;
use wire::MacAddr;

/// Where the news came from, which is how far it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// A reply sent to us: the neighbour hears us, too.
    Reply,
    /// A request for one of our addresses: worth an entry, proves only one direction.
    Request,
    /// An announcement or somebody else's exchange: only corrects what is known.
    Overheard,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Learned {
    /// Noted or already known.
    Known,
    /// A resolution is complete: these packets can go to the address.
    Resolved(VecDeque<SkBuff>),
    /// Another address came too soon after the last one: ignored.
    Locked,
    /// A stranger, and no room for it.
    Full,
    /// A stranger that did not ask for us.
    Ignored,
}

impl Table {
    /// Learns that `key` is at `mac`.
    pub(crate) fn learn(&mut self, key: Key, mac: MacAddr, how: How, now: Nanos) -> Learned {
        let place = match (self.index.get(&key), how) {
            (Some(&place), _) => place,
            (None, How::Request) => match self.insert_unasked(key, now) {
                Some(place) => place,
                None => return Learned::Full,
            },
            // RFC 826: the address is merged into an existing entry only.
            (None, How::Reply | How::Overheard) => return Learned::Ignored,
        };
        let Some(n) = self.entry_mut(place) else {
            return Learned::Ignored;
        };
        if n.state.is_valid() && n.mac == mac {
            if how == How::Reply {
                self.confirm(place, now);
            }
            return Learned::Known;
        }
        if n.state.is_valid() && now.saturating_sub(n.updated) < LOCK_TIME {
            // The first answer wins: with two hosts (or an attacker) answering, the address must
            // not flap with each packet.
            return Learned::Locked;
        }
        let was = n.state;
        n.mac = mac;
        n.updated = now;
        let queue = self.take_queue(place);
        if how == How::Reply {
            self.confirm(place, now);
        } else {
            let used = !queue.is_empty();
            if let Some(n) = self.entry_mut(place) {
                n.state = if used { State::Delay } else { State::Stale };
            }
            self.set_timer(place, used.then_some(now + DELAY_TIME));
            self.mark_dirty(place);
        }
        if was == State::Incomplete {
            Learned::Resolved(queue)
        } else {
            Learned::Known
        }
    }
}
