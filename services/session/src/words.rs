//! A socket's words in session memory, seen from the transport: what the application wrote is
//! validated against the committed record, what the transport shows is published here.

use abi::session::{Ring, Rings, SocketState, busy, control, shut};
use shm::sync::Ordering;
use shm::{PeerFault, SessionMemory};

/// What the transport knows of a socket's positions from its committed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Send position that the application had reached when last looked at.
    pub tx_tail: u64,
    /// Bytes of the send buffer that are free again.
    pub tx_head: u64,
    /// Bytes that may be in the send buffer: of a growing one, what its ring allows.
    pub tx_limit: u32,
    /// Bytes the application had taken when last looked at.
    pub rx_head: u64,
    /// Bytes published to it.
    pub rx_tail: u64,
}

/// What the application says, validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppWords {
    /// Bytes it has written into the send buffer: `known.tx_tail ..= known.tx_head + tx_limit`.
    pub tx_tail: u64,
    /// Bytes it has taken from the receive buffer: `known.rx_head ..= known.rx_tail`.
    pub rx_head: u64,
    /// [`abi::session::shut`] bits.
    pub shutdown: u32,
    /// Send position that urgent data ends at; 0 for none, at most `tx_tail`.
    pub tx_urgent: u64,
}

/// The words of one socket.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a> {
    memory: &'a SessionMemory,
    slot: u32,
}

impl<'a> Words<'a> {
    /// The words of a slot.
    #[must_use]
    pub fn new(memory: &'a SessionMemory, slot: u32) -> Self {
        Self { memory, slot }
    }

    /// The memory they are in, for the buffers.
    #[must_use]
    pub fn memory(&self) -> &'a SessionMemory {
        self.memory
    }

    /// The slot.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slot
    }

    fn get32(&self, word: usize, order: Ordering) -> u32 {
        self.memory
            .u32(self.slot, word)
            .map_or(0, |w| w.load(order))
    }

    fn get64(&self, word: usize, order: Ordering) -> u64 {
        self.memory
            .u64(self.slot, word)
            .map_or(0, |w| w.load(order))
    }

    fn set32(&self, word: usize, value: u32) {
        if let Some(w) = self.memory.u32(self.slot, word) {
            // Release: pairs with the application's Acquire; the buffer's bytes come before.
            w.store(value, Ordering::Release);
        }
    }

    fn set64(&self, word: usize, value: u64) {
        if let Some(w) = self.memory.u64(self.slot, word) {
            // Release: as in `set32`.
            w.store(value, Ordering::Release);
        }
    }

    /// Loads what the application wrote, each word once, and validates it.
    ///
    /// # Errors
    /// [`PeerFault::Position`] for a position that went backwards or past what there is: the
    /// application scribbled; count it and reset this socket alone.
    pub fn load(&self, known: &Known) -> Result<AppWords, PeerFault> {
        // Before the position, which the application moves for the last time before it says so:
        // otherwise what it writes in between would be missing from the end that is seen.
        let shutdown = self.get32(control::SHUTDOWN, Ordering::Acquire) & (shut::RD | shut::WR);
        // Acquire: pairs with the application's Release; its bytes are visible.
        let tx_tail = self.get64(control::TX_TAIL, Ordering::Acquire);
        let rx_head = self.get64(control::RX_HEAD, Ordering::Acquire);
        within(
            tx_tail,
            known.tx_tail,
            known.tx_head.saturating_add(known.tx_limit.into()),
        )?;
        within(rx_head, known.rx_head, known.rx_tail)?;
        // It is written first: beyond the tail that was seen, its byte is not there yet.
        let tx_urgent = match self.get64(control::TX_URGENT, Ordering::Acquire) {
            mark if mark > tx_tail => 0,
            mark => mark,
        };
        Ok(AppWords {
            tx_tail,
            rx_head,
            shutdown,
            tx_urgent,
        })
    }

    /// What was last shown as free of the send buffer, from the word itself: for transports whose
    /// records do not have it. Only the application could have scribbled it.
    #[must_use]
    pub fn tx_head(&self) -> u64 {
        self.get64(control::TX_HEAD, Ordering::Relaxed)
    }

    /// Bytes the application says it has written, not validated.
    pub(crate) fn tx_tail(&self) -> u64 {
        self.get64(control::TX_TAIL, Ordering::SeqCst)
    }

    /// What was last shown as received, likewise.
    #[must_use]
    pub fn rx_tail(&self) -> u64 {
        self.get64(control::RX_TAIL, Ordering::Relaxed)
    }

    /// The incarnation taken from the accept queue.
    #[must_use]
    pub fn accepted(&self) -> u32 {
        self.get32(control::ACCEPTED, Ordering::SeqCst)
    }

    pub(crate) fn swap_accepted(&self, from: u32, to: u32) -> bool {
        self.memory
            .u32(self.slot, control::ACCEPTED)
            .is_some_and(|w| {
                w.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok()
            })
    }

    pub(crate) fn set_accepted(&self, value: u32) {
        self.set32(control::ACCEPTED, value);
    }

    /// How far the slot's buffers were used, about.
    pub(crate) fn reach(&self) -> u64 {
        self.get64(control::TX_TAIL, Ordering::Relaxed)
            .max(self.get64(control::RX_TAIL, Ordering::Relaxed))
    }

    /// Whether the application says that it has shut down both ways.
    #[must_use]
    pub fn shut_both(&self) -> bool {
        self.get32(control::SHUTDOWN, Ordering::Relaxed) & (shut::RD | shut::WR)
            == shut::RD | shut::WR
    }

    pub(crate) fn incarnation(&self) -> u32 {
        self.get32(control::INCARNATION, Ordering::Relaxed)
    }

    pub(crate) fn set_incarnation(&self, incarnation: u32) {
        self.set32(control::INCARNATION, incarnation);
    }

    /// A new use of the slot: every word as at the beginning, the incarnation last.
    pub(crate) fn reset(&self, incarnation: u32, state: SocketState) {
        self.set32(control::STATE, SocketState::Free as u32);
        for word in [
            control::TX_TAIL,
            control::RX_HEAD,
            control::TX_URGENT,
            control::OOB_TAKEN,
        ] {
            self.set64(word, 0);
        }
        for word in [
            control::RX_TAIL,
            control::TX_HEAD,
            control::RX_URGENT,
            control::RX_OOB,
            control::RX_LOST,
        ] {
            self.set64(word, 0);
        }
        for word in [
            control::SHUTDOWN,
            control::RX_TOKEN,
            control::TX_STUFFED,
            control::RX_PRI,
            control::ERROR,
            control::ERROR_SEQ,
            control::EVENTS,
            control::TX_BUSY,
            control::LINGER,
        ] {
            self.set32(word, 0);
        }
        let layout = self.memory.layout();
        self.set_rings(&Rings {
            tx: Ring::new(layout.tx_base()),
            rx: Ring::new(layout.rx_base()),
            ..Rings::default()
        });
        self.set32(control::TX_LIMIT, layout.tx_base());
        self.set32(control::RX_LIMIT, layout.rx_base());
        self.set32(control::INCARNATION, incarnation);
        self.set32(control::STATE, state as u32);
    }

    /// Publishes received bytes. Follow with [`Sessions::readable`](crate::Sessions::readable).
    pub fn set_rx_tail(&self, position: u64) {
        self.set64(control::RX_TAIL, position);
    }

    /// Gives send buffer back. Follow with [`Sessions::writable`](crate::Sessions::writable).
    pub fn set_tx_head(&self, position: u64) {
        self.set64(control::TX_HEAD, position);
    }

    /// Shows the state.
    pub fn set_state(&self, state: SocketState) {
        self.set32(control::STATE, state as u32);
    }

    /// The state as shown (the application may have scribbled it).
    #[must_use]
    pub fn state(&self) -> Option<SocketState> {
        SocketState::from_word(self.get32(control::STATE, Ordering::Relaxed))
    }

    /// Whether an error was ever posted.
    pub(crate) fn has_errors(&self) -> bool {
        self.get32(control::ERROR_SEQ, Ordering::Relaxed) != 0
    }

    /// Posts an error for `SO_ERROR`.
    pub fn post_error(&self, errno: i32) {
        self.set32(control::ERROR, errno.unsigned_abs());
        let n = self.get32(control::ERROR_SEQ, Ordering::Relaxed);
        self.set32(control::ERROR_SEQ, n.wrapping_add(1));
    }

    /// Shows [`abi::session::event`] bits beside those shown already.
    pub fn add_events(&self, bits: u32) {
        if let Some(w) = self.memory.u32(self.slot, control::EVENTS) {
            w.fetch_or(bits, Ordering::Release);
        }
    }

    /// Shows exactly these event bits (after a restart, from the record).
    pub fn set_events(&self, bits: u32) {
        self.set32(control::EVENTS, bits);
    }

    /// Shows how long closing waits, in milliseconds; 0: it does not.
    pub fn set_linger(&self, millis: u32) {
        self.set32(control::LINGER, millis);
    }

    /// Shows where the urgent byte is (its position plus 1; 0 for none), and an earlier one that
    /// is left out of the stream.
    pub fn set_rx_urgent(&self, position: u64, lost: u64) {
        self.set64(control::RX_LOST, lost);
        self.set64(control::RX_URGENT, position);
    }

    /// Shows that the urgent byte in front of `position` is in the receive buffer. Follow with
    /// [`Sessions::urgent`](crate::Sessions::urgent).
    pub fn set_rx_oob(&self, position: u64) {
        self.set64(control::RX_OOB, position);
    }

    /// The urgent position that the application has taken last, as it says.
    #[must_use]
    pub fn oob_taken(&self) -> u64 {
        self.get64(control::OOB_TAKEN, Ordering::Acquire)
    }

    /// Whether the predecessor showed `PRI` is not known: it is shown again.
    pub fn forget_pri(&self) {
        self.set32(control::RX_PRI, 0);
    }

    /// Marks the out-of-band byte as possibly there; answers whether it was marked before.
    pub(crate) fn mark_pri(&self) -> bool {
        self.memory
            .u32(self.slot, control::RX_PRI)
            .is_none_or(|w| w.swap(1, Ordering::SeqCst) != 0)
    }

    /// Shows the capacities in use; at most the memory's.
    pub fn set_limits(&self, tx: u32, rx: u32) {
        let layout = self.memory.layout();
        self.set32(control::TX_LIMIT, tx.min(layout.tx_capacity));
        self.set32(control::RX_LIMIT, rx.min(layout.rx_capacity));
    }

    /// Shows how much may be in the send buffer; at most its capacity.
    pub fn set_tx_limit(&self, tx: u32) {
        let layout = self.memory.layout();
        self.set32(control::TX_LIMIT, tx.min(layout.tx_capacity));
    }

    /// Shows where the buffers lie, from the committed record and before the positions and limits
    /// that need it.
    pub fn set_rings(&self, rings: &Rings) {
        self.memory.set_rings(self.slot, rings);
    }

    /// Keeps the application from writing into its send buffer; false when it may be about to.
    /// See [`abi::session::busy`].
    pub(crate) fn begin_trim(&self) -> bool {
        self.memory
            .u32(self.slot, control::TX_BUSY)
            .is_some_and(|w| {
                w.compare_exchange(0, busy::TRIM, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
            })
    }

    /// Lets it write again. Follow with [`Sessions::writable`](crate::Sessions::writable).
    pub(crate) fn end_trim(&self) {
        if let Some(w) = self.memory.u32(self.slot, control::TX_BUSY) {
            w.fetch_and(!busy::TRIM, Ordering::SeqCst);
        }
    }

    /// Marks a token as possibly unread; answers whether it was marked before. A SeqCst fence
    /// comes before it, against the application's clearing and its look at RX_TAIL after that.
    pub(crate) fn mark_token(&self) -> bool {
        let Some(w) = self.memory.u32(self.slot, control::RX_TOKEN) else {
            return true;
        };
        if w.load(Ordering::Relaxed) != 0 {
            return true;
        }
        w.store(1, Ordering::SeqCst);
        false
    }

    /// Takes the mark back, of a token that was not written.
    pub(crate) fn forget_token(&self) {
        self.set32(control::RX_TOKEN, 0);
    }

    /// Whether the application has taken all that is shown of what was received.
    pub(crate) fn is_drained(&self) -> bool {
        let head = self.get64(control::RX_HEAD, Ordering::Acquire);
        head == self.get64(control::RX_TAIL, Ordering::Relaxed)
    }

    /// Takes the stuffed mark; answers whether it was set. A SeqCst fence comes before it,
    /// against the application's stuffing and its look at TX_HEAD after that.
    pub(crate) fn take_stuffed(&self) -> bool {
        let Some(w) = self.memory.u32(self.slot, control::TX_STUFFED) else {
            return false;
        };
        w.load(Ordering::Relaxed) != 0 && w.swap(0, Ordering::SeqCst) != 0
    }

    pub(crate) fn put_stuffed(&self) {
        if let Some(w) = self.memory.u32(self.slot, control::TX_STUFFED) {
            w.store(1, Ordering::SeqCst);
        }
    }
}

fn within(position: u64, from: u64, to: u64) -> Result<(), PeerFault> {
    if (from..=to).contains(&position) {
        Ok(())
    } else {
        Err(PeerFault::Position { position, from, to })
    }
}
