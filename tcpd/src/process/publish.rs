//! After the commit: what applications see. Everything here is derived from the committed record
//! and can be done twice.

use super::socket::{self, place_of};
use super::{Tcpd, counters};
use crate::engine::{ConnId, Notice, State};
use abi::session::{SocketState, event};
use runtime::Context;
use shm::crash::{self, Point};

/// What a request changed of what an application sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Its state.
    State,
    /// Its options; and whether the peer's end was shown by then: one that came since is shown
    /// after the bytes before it.
    Options { fin: bool },
}

impl Tcpd {
    /// After the commit, and before the reply: whose caller looks right after it.
    pub(super) fn show_asked(&mut self) {
        let mut asked = std::mem::take(&mut self.asked);
        for (id, what) in asked.drain(..) {
            self.show_asked_one(id, what);
        }
        self.asked = asked;
    }

    fn show_asked_one(&mut self, id: ConnId, what: Asked) {
        let Some((tcb, socket)) = self.engine.record(id).zip(self.sockets.get(id)) else {
            return;
        };
        let (place, state) = (socket.place, socket::state_word(tcb));
        let Some(words) = self.sessions.words(place) else {
            return;
        };
        // The end of a connection is shown with its reason.
        if state == SocketState::Closed {
            return;
        }
        match what {
            Asked::State => {
                words.set_state(state);
                if tcb.is_open() {
                    // Fast Open waits for the first write.
                    self.sessions.writable(place);
                }
            }
            Asked::Options { fin } => {
                let mut bits = socket::event_bits(tcb);
                if !fin {
                    bits &= !event::PEER_FIN;
                }
                words.set_events(bits);
                words.set_linger(tcb.linger_ms());
            }
        }
    }

    /// Acts on the news of a batch.
    pub(super) fn publish(&mut self, cx: &mut Context<'_>) {
        let notices = std::mem::take(&mut self.actions.notices);
        // Rings before any position: an application that sees a new position with an old ring
        // would look for its bytes, or put them, in the wrong place.
        for notice in &notices {
            if let Notice::Resized(id) = *notice {
                self.show_sizes(id);
            }
        }
        for notice in &notices {
            self.publish_one(*notice, cx);
        }
        self.actions.notices = notices;
        for id in std::mem::take(&mut self.errors) {
            self.show_reset(id, cx);
        }
        while let Some(id) = self.resized.pop() {
            self.show_sizes(id);
        }
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            self.look_again(id);
        }
        self.touched = touched;
    }

    fn publish_one(&mut self, notice: Notice, cx: &mut Context<'_>) {
        match notice {
            Notice::Received(id) => self.show_received(id),
            Notice::Acked(id) => {
                let Some((tcb, socket)) = self.engine.record(id).zip(self.sockets.get(id)) else {
                    return;
                };
                if let Some(words) = self.sessions.words(socket.place) {
                    words.set_tx_head(tcb.acked_upto());
                    if tcb.opts.notsent_lowat != 0 {
                        words.set_tx_limit(tcb.shown_send_limit());
                    }
                    crash::reach(Point::RoomShown);
                }
                if socket::has_room(tcb) {
                    self.sessions.writable(socket.place);
                }
            }
            Notice::Connected(id) => {
                let Some(socket) = self.sockets.get(id) else {
                    return;
                };
                if let Some(words) = self.sessions.words(socket.place) {
                    words.set_state(SocketState::Connected);
                    crash::reach(Point::ConnectedShown);
                }
                self.sessions.writable(socket.place);
            }
            Notice::PeerFin(id) => {
                self.show_received(id);
                self.show_fin(id);
            }
            Notice::ConnectFailed(id) | Notice::Reset(id) => self.show_reset(id, cx),
            Notice::Urgent(id) => self.show_urgent(id, true),
            Notice::Idle(id) => self.trim(id),
            Notice::Spare(id) => self.give_back(id),
            Notice::Released { id, owner } => {
                if let Some(place) = place_of(owner) {
                    self.sockets.remove_at(id, place);
                    self.sessions.free(place, &mut cx.plumbing.store);
                }
            }
            Notice::Closed(id) => {
                if let Some(socket) = self.sockets.remove(id) {
                    self.sessions.free(socket.place, &mut cx.plumbing.store);
                }
            }
            // Handed over before the commit; nothing to show for the end of both directions that
            // the FINs did not show.
            Notice::Accepted { .. } | Notice::Finished(_) | Notice::Resized(_) => {}
        }
    }

    fn show_received(&mut self, id: ConnId) {
        let (Some(tcb), Some(socket)) = (self.engine.record(id), self.sockets.get_mut(id)) else {
            return;
        };
        let upto = tcb.received_upto();
        if upto == socket.shown_rx {
            return;
        }
        // The application had emptied its buffer: who waits for an edge must get one.
        let refill = tcb.consumed >= socket.shown_rx;
        socket.shown_rx = upto;
        if let Some(words) = self.sessions.words(socket.place) {
            if let Some(mark) = tcb.urgent_upto() {
                // Before the bytes: who reads must know where to stop.
                words.set_rx_urgent(mark, tcb.urgent_lost());
            }
            words.set_rx_tail(upto);
        }
        if socket::has_readable(tcb) {
            self.sessions.received(socket.place, refill);
        }
    }

    /// Where urgent data is, and `PRI` while its byte waits to be taken (`anew`: for the first
    /// time).
    fn show_urgent(&self, id: ConnId, anew: bool) {
        let Some((tcb, socket)) = self.engine.record(id).zip(self.sockets.get(id)) else {
            return;
        };
        let (Some(mark), Some(words)) = (tcb.urgent_upto(), self.sessions.words(socket.place))
        else {
            return;
        };
        words.set_rx_urgent(mark, tcb.urgent_lost());
        if tcb.urgent_is_here() {
            words.set_rx_oob(mark);
            crash::reach(Point::UrgentShown);
            if tcb.consumed < mark && words.oob_taken() != mark {
                self.sessions.urgent(socket.place, anew);
            }
        }
    }

    fn show_fin(&mut self, id: ConnId) {
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        if let Some(words) = self.sessions.words(socket.place) {
            words.add_events(event::PEER_FIN);
        }
        self.sessions.shut_wr(socket.place);
    }

    /// The connection broke: the application reads the error, and its descriptor hangs up. Then
    /// nobody can tell when it is closed, so the record goes now.
    pub(super) fn show_reset(&mut self, id: ConnId, cx: &mut Context<'_>) {
        let (Some(tcb), Some(socket)) = (self.engine.record(id), self.sockets.get(id)) else {
            return;
        };
        let place = socket.place;
        if let Some(words) = self.sessions.words(place) {
            words.set_rx_tail(tcb.received_upto());
            words.post_error(tcb.error);
            words.add_events(event::RESET);
            words.set_state(SocketState::Closed);
            crash::reach(Point::ResetShown);
        }
        self.sessions.writable(place);
        self.sessions.reset(place, &mut cx.plumbing.store);
        self.broken.push(id);
    }

    /// The application marked the socket: make readiness agree with what there is.
    fn look_again(&mut self, id: ConnId) {
        let (Some(tcb), Some(socket)) = (self.engine.record(id), self.sockets.get(id)) else {
            return;
        };
        if tcb.state() == State::Listen {
            return;
        }
        let (place, room) = (socket.place, socket::has_room(tcb));
        let (unread, fin) = (socket::has_readable(tcb), tcb.peer_finished());
        if tcb.urgent_is_here() {
            self.show_urgent(id, false);
        }
        if room {
            self.sessions.writable(place);
        }
        if unread {
            self.sessions.received(place, false);
        }
        if fin {
            self.show_fin(id);
        }
    }

    /// Takes the session layer's counts over.
    pub(super) fn tally(&mut self, cx: &mut Context<'_>) {
        let t = self.sessions.take_tally();
        if t.ended > 0 {
            let sessions = &self.sessions;
            cx.plumbing
                .arena
                .retain_regions(|region| sessions.memory(region).is_some());
        }
        let stats = *self.engine.stats();
        let told = core::mem::replace(&mut self.told, stats);
        for &(index, of) in counters::OF_ENGINE {
            let n = of(&stats) - of(&told);
            if n > 0 {
                cx.count(index, n);
            }
        }
        let memory = self.engine.memory_use();
        let before = core::mem::replace(&mut self.told_memory, memory);
        if memory != before {
            cx.plumbing.gauge(counters::MEMORY, memory.bytes);
            cx.plumbing
                .gauge(counters::PRESSURE, memory.pressure.into());
        }
        for (index, n) in [
            (counters::PRESSURES, memory.pressures - before.pressures),
            (counters::NOT_GROWN, memory.refused - before.refused),
            (counters::TRIMMED, memory.trimmed - before.trimmed),
            (counters::CALLS, t.calls),
            (counters::TOKENS, t.tokens),
            (counters::HANDED, t.handed),
            (counters::SESSIONS, t.opened),
            (counters::REFUSED, t.refused),
            (counters::MALFORMED, t.malformed),
        ] {
            if n > 0 {
                cx.count(index, n);
            }
        }
    }
}
