//! Sockets that cannot go on: ended alone, without being worked on again.
//!
//! What is worked on is noted in the vital signs, for what is at work in crash after crash is
//! quarantined. A record that is quarantined when udpd starts never reaches the engine. (Packets
//! that are quarantined are dropped where they are received, before they come here.)

use super::Udpd;
use crate::engine::Record;
use abi::RegionId;
use abi::config::DaemonConfig;
use abi::session::event;
use abi::suspect::Suspect;
use runtime::StoreClient;
use session::{Adopted, SocketRef};
use shm::{Vitals, crash};
use std::sync::Arc;
use zerocopy::IntoBytes;

/// Notes which socket is worked on.
#[derive(Debug)]
pub(super) struct Watch(pub(super) Arc<Vitals>);

impl Watch {
    pub(super) fn works_on(&self, index: u32, record: &Record) {
        self.0.note_socket(index, record.incarnation);
        crash::inspect(record.local.as_bytes());
    }

    pub(super) fn works_on_none(&self) {
        self.0.note_no_socket();
    }
}

/// Whether a socket is quarantined: its record, and which use of its buffers it is.
pub(super) fn holds(quarantine: &[Suspect], index: u32, record: &Record) -> bool {
    let this = Suspect::Socket {
        index,
        generation: record.incarnation,
    };
    quarantine.contains(&this)
}

impl Udpd {
    /// Ends what the supervisor says is quarantined from now on.
    pub(super) fn end_quarantined(&mut self, config: &DaemonConfig, store: &mut StoreClient) {
        for suspect in &config.quarantine {
            if let Suspect::Socket { index, .. } = *suspect
                && let Some(socket) = self.engine.get(index)
                && holds(&config.quarantine, index, &socket.record)
            {
                tracing::warn!(index, "a socket is quarantined: it is ended");
                if let Some(place) = self.engine.close(index) {
                    self.end(place, libc::ECONNABORTED, store);
                }
            }
        }
    }

    /// Ends a socket whose record is not to be looked into.
    pub(super) fn end_record(&mut self, index: u32, record: &Record, store: &mut StoreClient) {
        tracing::warn!(index, "a socket is quarantined: it is ended");
        self.table.clear(index);
        let place = SocketRef {
            region: RegionId(record.region),
            slot: record.slot,
        };
        let adopted = self.sessions.adopt(place, record.incarnation, index, store);
        if adopted != Adopted::Gone {
            self.end(place, libc::ECONNABORTED, store);
        }
    }

    /// The application is told why, and its descriptor hangs up.
    pub(super) fn end(&mut self, place: SocketRef, errno: i32, store: &mut StoreClient) {
        if let Some(words) = self.sessions.words(place) {
            words.post_error(errno);
            words.add_events(event::RESET);
        }
        self.sessions.reset(place, store);
        self.sessions.free(place, store);
    }
}
