//! Counters that every daemon has; the service's own follow behind them.

/// Index of each counter in [`NAMES`].
pub mod index {
    /// Turns of the loop that handled something.
    pub const BUSY_TURNS: usize = 0;
    /// Packets and events handled.
    pub const HANDLED: usize = 1;
    /// Switches from polling to interrupts: it armed and went to sleep.
    pub const TO_INTERRUPT: usize = 2;
    /// Switches from interrupts to polling: it was woken.
    pub const TO_POLLING: usize = 3;
    /// Looks that found input after arming, which saved a sleep.
    pub const RECHECK_HITS: usize = 4;
    /// Times the core was given away before sleeping.
    pub const YIELDS: usize = 5;
    /// Impossible indices, forged handles, malformed descriptors.
    pub const PEER_FAULTS: usize = 6;
    /// Stale handles.
    pub const STALE_HANDLES: usize = 7;
    /// Packets that found a neighbour's ring full.
    pub const RING_FULL: usize = 8;
    /// Slots taken back from predecessors.
    pub const SWEPT: usize = 9;
    /// Packets dropped unseen because they are quarantined.
    pub const QUARANTINED: usize = 10;
    /// Slots taken back that nobody had: something wrote over shared memory.
    pub const LOST: usize = 11;
}

/// Names, in order.
pub const NAMES: &[&str] = &[
    "rt_busy_turns",
    "rt_handled",
    "rt_to_interrupt",
    "rt_to_polling",
    "rt_recheck_hits",
    "rt_yields",
    "rt_peer_faults",
    "rt_stale_handles",
    "rt_ring_full",
    "rt_swept",
    "rt_quarantined",
    "rt_lost",
];
