//! What the process keeps of a socket beside its record: where its buffers are, and what the
//! application has been shown. All of it follows from the record after a restart.

use crate::engine::{ConnId, State, Tcb, sockopt};
use abi::RegionId;
use abi::session::{SocketState, event};
use session::{NewSocket, Sessions, SocketRef};

/// A socket of an application.
#[derive(Debug, Clone, Copy)]
pub(super) struct Socket {
    /// Where.
    pub(super) place: SocketRef,
    /// Which use of the slot; part of the record.
    pub(super) incarnation: u32,
    /// Receive position shown last.
    pub(super) shown_rx: u64,
}

impl Socket {
    pub(super) fn new(new: NewSocket) -> Self {
        Self {
            place: new.socket,
            incarnation: new.incarnation,
            shown_rx: 0,
        }
    }

    pub(super) fn as_new(&self) -> NewSocket {
        NewSocket {
            socket: self.place,
            incarnation: self.incarnation,
        }
    }
}

/// All sockets by record number, the lowest of which are used first.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    all: Vec<Option<Socket>>,
}

impl Sockets {
    pub(super) fn insert(&mut self, id: ConnId, socket: Socket) {
        let index = id.0 as usize;
        if self.all.len() <= index {
            self.all.resize(index + 1, None);
        }
        if let Some(slot) = self.all.get_mut(index) {
            *slot = Some(socket);
        }
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Socket> {
        self.all.get(id.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Socket> {
        self.all.get_mut(id.0 as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Socket> {
        self.all.get_mut(id.0 as usize)?.take()
    }

    /// Removes the socket of `id` if it still has the buffers at `place`.
    pub(super) fn remove_at(&mut self, id: ConnId, place: SocketRef) -> Option<Socket> {
        let slot = self.all.get_mut(id.0 as usize)?;
        slot.take_if(|socket| socket.place == place)
    }
}

/// The engine's name of a socket's buffers in the session layer's terms.
pub(super) fn place_of(owner: crate::engine::SocketRef) -> Option<SocketRef> {
    (owner != crate::engine::SocketRef::NONE).then_some(SocketRef {
        region: RegionId(owner.region),
        slot: owner.slot,
    })
}

/// The state word that a record stands for.
pub(super) fn state_word(tcb: &Tcb) -> SocketState {
    match tcb.state() {
        _ if tcb.is_open() => SocketState::Connected,
        State::Listen => SocketState::Listening,
        State::SynSent | State::SynReceived => SocketState::Connecting,
        State::Closed if tcb.has(crate::engine::tcb::flag::WAS_CONNECTED) || tcb.error != 0 => {
            SocketState::Closed
        }
        State::Closed => SocketState::Idle,
        _ => SocketState::Connected,
    }
}

/// Whether there is room worth waking a writer for: a third of the buffer, as Linux does it
/// (`sk_stream_is_writeable`). It is asked at each acknowledgement, so no wake-up is lost.
pub(super) fn has_room(tcb: &Tcb) -> bool {
    match tcb.state() {
        State::SynSent | State::SynReceived | State::Listen if !tcb.is_open() => false,
        State::Closed => true,
        _ => {
            let used = tcb.written - tcb.acked_upto();
            3 * used <= 2 * tcb.send_room() && tcb.is_little_unsent()
        }
    }
}

/// Whether a read would find something: what is unread, but for an urgent byte at its beginning
/// that is only taken out of band (as Linux's `tcp_stream_is_readable`).
pub(super) fn has_readable(tcb: &Tcb) -> bool {
    let inline = tcb.opts.has(sockopt::flag::OOBINLINE);
    tcb.unread() > u64::from(tcb.is_at_mark() && !inline)
}

/// The level flags that a record stands for.
pub(super) fn event_bits(tcb: &Tcb) -> u32 {
    let mut bits = 0;
    if tcb.peer_finished() {
        bits |= event::PEER_FIN;
    }
    if tcb.opts.has(sockopt::flag::OOBINLINE) {
        bits |= event::OOB_INLINE;
    }
    bits
}

/// Shows where a socket's buffers lie and how much may be in them.
pub(super) fn show_sizes(sessions: &mut Sessions, place: SocketRef, tcb: &Tcb) {
    sessions.set_rings(place, &tcb.memory.rings);
    if let Some(words) = sessions.words(place) {
        let rcv = match tcb.memory.rcv_clamp {
            0 => tcb.opts.rcv_buf,
            clamp => clamp.min(tcb.opts.rcv_buf),
        };
        words.set_limits(tcb.shown_send_limit(), rcv);
    }
}

/// Makes all words of a socket what its record says: at a restart, and when a connection is
/// about to be handed over.
pub(super) fn show(sessions: &mut Sessions, socket: &mut Socket, tcb: &Tcb) {
    show_sizes(sessions, socket.place, tcb);
    let Some(words) = sessions.words(socket.place) else {
        return;
    };
    words.set_tx_head(tcb.acked_upto());
    if let Some(upto) = tcb.urgent_upto() {
        words.set_rx_urgent(upto, tcb.urgent_lost());
        if tcb.urgent_is_here() {
            words.set_rx_oob(upto);
        }
    }
    words.set_rx_tail(tcb.received_upto());
    socket.shown_rx = tcb.received_upto();
    words.set_events(event_bits(tcb));
    words.set_linger(tcb.linger_ms());
    words.set_state(state_word(tcb));
}
