//! The session memory behind the engine's buffers: windows for those that grow, pages back from
//! those that are idle, and what applications are shown of sizes.

use super::Tcpd;
use super::socket;
use crate::engine::ConnId;
use abi::Nanos;
use session::Empty;

impl Tcpd {
    /// Sockets that outgrow their own part of the session memory get a window, while there are
    /// any. The record has it before anything in it is used.
    pub(super) fn give_windows(&mut self, now: Nanos) {
        let mut wanting = std::mem::take(&mut self.wanting);
        self.engine.take_wanting(&mut wanting);
        for &id in &wanting {
            if let Some(socket) = self.sockets.get(id)
                && let Some(window) = self.sessions.take_window(socket.place)
            {
                self.engine.give_window(now, id, window);
            }
        }
        self.wanting = wanting;
    }

    /// After the commit: where the buffers lie now, and what may be in them.
    pub(super) fn show_sizes(&mut self, id: ConnId) {
        let Some((tcb, socket)) = self.engine.record(id).zip(self.sockets.get(id)) else {
            return;
        };
        let place = socket.place;
        socket::show_sizes(&mut self.sessions, place, tcb);
        if socket::has_room(tcb) {
            self.sessions.writable(place);
        }
    }

    /// After the commit: an idle socket's pages go back.
    pub(super) fn trim(&mut self, id: ConnId) {
        let Some((tcb, socket)) = self.engine.record(id).zip(self.sockets.get(id)) else {
            return;
        };
        if !tcb.buffers_are_empty() {
            return;
        }
        let empty = Empty {
            tx_tail: tcb.written,
            rx: true,
        };
        self.sessions.trim(socket.place, &tcb.memory.rings, empty);
    }
}
