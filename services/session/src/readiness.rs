//! What the application's `epoll` shows of a socket, see [`crate::shadow`].

use crate::SocketRef;
use crate::sessions::Sessions;
use crate::store::FdStore;
use crate::words::Words;
use shm::crash::{self, Point};
use shm::sync::{Ordering, fence};

impl Sessions {
    /// What was received is shown: as [`Sessions::readable`], unless the application, which
    /// looks without being told, has taken all of it already.
    pub fn received(&mut self, socket: SocketRef, refill: bool) {
        self.tell(socket, refill, |words| !words.is_drained());
    }

    /// Something is readable that was not: writes a token unless one may be unread. `refill`
    /// says that the application had emptied the buffer before: then a token is written all the
    /// same, so that edge-triggered waiters that did not take the last one see an edge.
    /// Not for listeners.
    pub fn readable(&mut self, socket: SocketRef, refill: bool) {
        self.tell(socket, refill, |_| true);
    }

    fn tell(&mut self, socket: SocketRef, refill: bool, is_news: impl Fn(&Words<'_>) -> bool) {
        // Pairs with the application's fence between clearing RX_TOKEN and looking at RX_TAIL.
        fence(Ordering::SeqCst);
        let Some(session) = self.session(socket.region) else {
            return;
        };
        let Some(words) = session.words(socket.slot) else {
            return;
        };
        let Some(shadow) = session.used(socket.slot).and_then(|s| s.shadow.as_ref()) else {
            return;
        };
        crash::reach(Point::PositionShown);
        let is_marked = words.mark_token();
        if !is_marked || refill {
            // After the mark: who empties the buffer from here on sees it, and waits for the byte.
            fence(Ordering::SeqCst);
            if !is_news(&words) {
                if !is_marked {
                    words.forget_token();
                }
                return;
            }
            // EPIPE: closed (the hang-up will tell), or readable for good after the FIN.
            let _ = shadow.token();
            crash::reach(Point::TokenWritten);
            self.tally.tokens += 1;
        }
    }

    /// There is room to send: drains the shadow if the application has stuffed it.
    pub fn writable(&mut self, socket: SocketRef) {
        // Pairs with the application's fence between stuffing and looking at TX_HEAD.
        fence(Ordering::SeqCst);
        let Some(session) = self.session(socket.region) else {
            return;
        };
        let Some(words) = session.words(socket.slot) else {
            return;
        };
        let Some(shadow) = session.used(socket.slot).and_then(|s| s.shadow.as_ref()) else {
            return;
        };
        if words.take_stuffed() {
            if shadow.drain() {
                crash::reach(Point::ShadowDrained);
                self.tally.drains += 1;
            } else {
                // It said so before it stuffed; it will look again and mark itself dirty.
                words.put_stuffed();
            }
        }
    }

    /// The peer's FIN: `RDHUP`, and readable for good. Set [`abi::session::event::PEER_FIN`]
    /// before.
    pub fn shut_wr(&self, socket: SocketRef) {
        if let Some(shadow) = self.shadow(socket) {
            shadow.shut_wr();
            crash::reach(Point::EndShown);
        }
    }

    /// An urgent byte is there and not taken: `PRI`, unless it is shown already; `anew` for
    /// another one than before, so that an edge shows.
    pub fn urgent(&self, socket: SocketRef, anew: bool) {
        let Some(session) = self.session(socket.region) else {
            return;
        };
        let Some(words) = session.words(socket.slot) else {
            return;
        };
        if (!words.mark_pri() || anew)
            && let Some(shadow) = self.shadow(socket)
        {
            crash::reach(Point::UrgentMarked);
            let _ = shadow.urgent();
            crash::reach(Point::UrgentSent);
        }
    }

    /// The connection is over and was reset: readable at once, `HUP`, and `ERR` when the
    /// supervisor has let go of its copy. Set the error and
    /// [`abi::session::event::RESET`] before. The shadow is given up: [`Sessions::free`] the
    /// socket when its record is cleared; the application still reads its words.
    pub fn reset(&mut self, socket: SocketRef, store: &mut dyn FdStore) {
        if let Some(shadow) = self.shadow(socket) {
            let _ = shadow.token();
            shadow.shut_both();
        }
        self.drop_shadow(socket, store);
    }

    /// Makes readiness right after a restart, whatever step the predecessor died at: `readable`
    /// if bytes were received that the application has not taken as far as it has told, `room` if
    /// a write would not block, `fin` if the peer's FIN is shown. Where an error was ever posted,
    /// only the application knows whether it has read it: it is woken once too often.
    pub fn reconcile(&mut self, socket: SocketRef, readable: bool, room: bool, fin: bool) {
        let Some(session) = self.session(socket.region) else {
            return;
        };
        let Some(words) = session.words(socket.slot) else {
            return;
        };
        let Some(shadow) = session.used(socket.slot).and_then(|s| s.shadow.as_ref()) else {
            return;
        };
        if room {
            // The predecessor may have died between taking the mark and draining.
            let stuffed = words.take_stuffed();
            if !shadow.drain() && stuffed {
                words.put_stuffed();
            }
        }
        // It may have died between the mark and the token, or before it took the mark back.
        if fin || words.has_errors() || (readable && !words.is_drained()) {
            words.mark_token();
            let _ = shadow.token();
        } else {
            words.forget_token();
        }
        if fin {
            shadow.shut_wr();
        }
    }

    fn shadow(&self, socket: SocketRef) -> Option<&crate::Shadow> {
        self.session(socket.region)?
            .used(socket.slot)?
            .shadow
            .as_ref()
    }
}
