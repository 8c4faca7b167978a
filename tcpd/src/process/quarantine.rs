//! Connections that cannot go on: reset alone, without being worked on again.
//!
//! What the engine works on is noted in the vital signs, for what is at work in crash after crash
//! is quarantined. A record that is quarantined when tcpd starts never reaches the engine: its
//! peer gets a reset made of three of its fields, its application an error. So does one whose
//! record is corrupt; who that is, the copy before tells.

use super::Tcpd;
use super::records::Record;
use super::socket::place_of;
use crate::engine::seq::{Offset, to_wire};
use crate::engine::watch::OnWork;
use crate::engine::{ConnId, Errno, SegmentOut, State, Tcb};
use abi::config::DaemonConfig;
use abi::session::event;
use abi::suspect::Suspect;
use abi::{Endpoint, Nanos};
use runtime::Plumbing;
use runtime::quarantine::concerns;
use session::Adopted;
use shm::{Vitals, crash};
use std::sync::Arc;
use wire::tcp::{Flags, Repr};
use zerocopy::IntoBytes;

const TCP: u8 = 6;

/// Notes which socket the engine works on.
pub(super) fn watch(vitals: &Arc<Vitals>) -> OnWork {
    let vitals = Arc::clone(vitals);
    Box::new(move |id, tcb| {
        vitals.note_socket(id.0, tcb.generation);
        crash::inspect(tcb.remote.as_bytes());
    })
}

/// Whether a socket is quarantined, itself or by its flow.
pub(super) fn holds(quarantine: &[Suspect], id: ConnId, tcb: &Tcb) -> bool {
    quarantine.iter().any(|suspect| match *suspect {
        Suspect::Socket { index, generation } => (index, generation) == (id.0, tcb.generation),
        _ => tcb.remote != Endpoint::NONE && concerns(suspect, TCP, tcb.local, tcb.remote),
    })
}

impl Tcpd {
    /// Resets what the supervisor says is quarantined from now on.
    pub(super) fn reset_quarantined(&mut self, config: &DaemonConfig, now: Nanos) {
        if config.quarantine.is_empty() {
            return;
        }
        let held: Vec<ConnId> = self
            .engine
            .records()
            .filter(|(id, tcb)| tcb.state() != State::Closed && holds(&config.quarantine, *id, tcb))
            .map(|(id, _)| id)
            .collect();
        for id in held {
            tracing::warn!(id = id.0, "a connection is quarantined: it is reset");
            self.engine.abort(now, id, Errno::ECONNABORTED);
        }
    }

    /// Ends a socket whose record is not to be looked into.
    pub(super) fn bury(&mut self, id: ConnId, record: &Record, plumbing: &mut Plumbing) {
        tracing::warn!(id = id.0, "a socket is quarantined: it is reset");
        self.records.commit(id, None, 0);
        let reset = Flags::RST | Flags::ACK;
        self.end(id, record, (reset, record.tcb.snd_nxt), plumbing);
    }

    /// Ends a socket of which only a former record is known. Where its peer is by now is not, and
    /// a reset must be exact (RFC 5961 3.2); so the peer is asked, by an acknowledgement from
    /// long ago. Its answer (RFC 9293 3.10.7.4) belongs to no connection and brings it the reset.
    pub(super) fn end_unknown(&mut self, id: ConnId, before: &Record, plumbing: &mut Plumbing) {
        self.end(
            id,
            before,
            (Flags::ACK, before.tcb.snd_una.saturating_sub(1)),
            plumbing,
        );
    }

    fn end(
        &mut self,
        id: ConnId,
        record: &Record,
        (flags, at): (Flags, Offset),
        plumbing: &mut Plumbing,
    ) {
        let tcb = &record.tcb;
        if tcb.state() != State::Closed
            && tcb.state() != State::Listen
            && tcb.remote != Endpoint::NONE
        {
            self.deferred.push_back(last_segment(tcb, flags, at));
        }
        let Some(place) = place_of(tcb.owner) else {
            return;
        };
        let store = &mut plumbing.store;
        if self.sessions.adopt(place, record.incarnation, id.0, store) == Adopted::Gone {
            return;
        }
        if let Some(words) = self.sessions.words(place) {
            words.post_error(Errno::ECONNABORTED.0);
            words.add_events(event::RESET);
        }
        self.sessions.reset(place, store);
        self.sessions.free(place, store);
    }
}

/// RFC 9293 3.10.5: the segment that ends a connection from this side, or begins to.
fn last_segment(tcb: &Tcb, flags: Flags, at: Offset) -> SegmentOut {
    SegmentOut {
        id: None,
        src: tcb.local,
        dst: tcb.remote,
        repr: Repr {
            src_port: tcb.local.port,
            dst_port: tcb.remote.port,
            seq: to_wire(tcb.iss, at),
            ack: to_wire(tcb.irs, tcb.rcv_nxt),
            flags,
            ..Repr::default()
        },
        payload: None,
        gso_size: 0,
        tos: 0,
        ttl: 0,
    }
}
