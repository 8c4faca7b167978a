//! What becomes visible when the turn is committed.

use super::Udpd;
use super::counters::Counter;
use abi::session::SocketState;
use runtime::Context;

/// Something to show an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// An error for `SO_ERROR`.
    Error(i32),
    /// Whether it has a default peer.
    Peer,
    /// How much its buffers take.
    Limits,
}

impl Udpd {
    pub(super) fn let_out(&mut self, cx: &mut Context<'_>) {
        self.register(cx);
        // What a request changed is shown before its reply: the application looks right after it.
        let mut shows = std::mem::take(&mut self.shows);
        for (index, show) in shows.drain(..) {
            self.show(index, show);
        }
        self.shows = shows;
        self.sessions.release(&mut cx.plumbing.store);
        let mut touched = std::mem::take(&mut self.touched);
        for index in touched.drain(..) {
            self.show_positions(index);
        }
        self.touched = touched;
        self.count(cx);
    }

    fn show(&mut self, index: u32, show: Show) {
        let Some(socket) = self.engine.get(index) else {
            return;
        };
        let place = socket.place();
        let connected = socket.is_connected();
        let Some(words) = self.sessions.words(place) else {
            return;
        };
        match show {
            Show::Peer if connected => words.set_state(SocketState::Connected),
            Show::Peer => words.set_state(SocketState::Idle),
            Show::Limits => words.set_limits(socket.record.tx_limit, socket.record.rx_limit),
            Show::Error(errno) => {
                words.post_error(errno);
                // A reader learns of it, and a writer that waits.
                self.sessions.readable(place, false);
                self.sessions.writable(place);
            }
        }
    }

    /// Publishes the positions of a socket's queues and makes its readiness follow.
    fn show_positions(&mut self, index: u32) {
        let limit = u64::from(self.engine.capacity().0);
        let Some(socket) = self.engine.get_mut(index) else {
            return;
        };
        socket.touched = false;
        socket.rx_shown = socket.rx.tail;
        let (place, rx, tx) = (socket.place(), socket.rx, socket.tx);
        let limit = limit.min(socket.record.tx_limit.into());
        let Some(words) = self.sessions.words(place) else {
            return;
        };
        words.set_tx_head(tx.head);
        words.set_rx_tail(rx.tail);
        if rx.used() > 0 {
            self.sessions.received(place, false);
        }
        // Linux calls a socket writable when half of its buffer is free.
        if tx.used() * 2 <= limit {
            self.sessions.writable(place);
        }
    }

    /// Tells ipd which protocols are served, when that has changed: UDP, ICMP echo, and what raw
    /// sockets ask for.
    fn register(&mut self, cx: &mut Context<'_>) {
        let own = [
            u16::from(wire::protocol::UDP),
            u16::from(wire::protocol::ICMP),
        ];
        let raw = self
            .engine
            .raw_protocols()
            .map(u16::from)
            .filter(|p| !own.contains(p));
        if own
            .into_iter()
            .chain(raw)
            .eq(self.registered.iter().copied())
        {
            return;
        }
        let raw = self
            .engine
            .raw_protocols()
            .map(u16::from)
            .filter(|p| !own.contains(p));
        self.registered = own.into_iter().chain(raw).collect();
        if let Some(link) = cx.plumbing.links.first() {
            link.link().register(&self.registered);
        }
    }

    fn count(&mut self, cx: &mut Context<'_>) {
        let t = self.sessions.take_tally();
        for (counter, n) in [
            (Counter::SessionsOpened, t.opened),
            (Counter::SessionsEnded, t.ended),
            (Counter::Calls, t.calls),
            (Counter::CallsMalformed, t.malformed),
            (Counter::SessionsRefused, t.refused),
            (Counter::Tokens, t.tokens),
            (Counter::Drains, t.drains),
        ] {
            self.counts.add(counter, n);
        }
        if t.opened + t.ended + t.calls > 0 {
            let (sessions, sockets) = self.sessions.population();
            cx.plumbing
                .gauge(Counter::Sessions as usize, sessions as u64);
            cx.plumbing.gauge(Counter::Sockets as usize, sockets as u64);
        }
        self.counts.take(|index, n| cx.plumbing.count(index, n));
    }
}
