//! netdevd's counters. The layers of a device count into [`Stats`]; the service adds them to
//! the shared counters once a turn.

use runtime::Plumbing;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter {
            $($(#[$doc])* $name,)*
        }

        /// Names, in order.
        pub const NAMES: &[&str] = &[$($text),*];
    };
}

counters! {
    /// Frames delivered upwards.
    RxPackets = "rx_packets",
    /// Their bytes, Ethernet header included.
    RxBytes = "rx_bytes",
    /// Of them super-frames.
    RxSuperFrames = "rx_superframes",
    /// Bytes copied on the way in: by the device's read, and by software where it had to.
    RxCopied = "rx_copied_bytes",
    /// Frames for another station.
    RxOtherHost = "rx_other_host",
    /// Frames of an EtherType nobody registered.
    RxUnregistered = "rx_unregistered",
    /// Frames too short, or with impossible offload words.
    RxMalformed = "rx_malformed",
    /// Frames that found the ring upwards full.
    RxRingFull = "rx_ring_full",
    /// Looks at the device put off because the pool was used up.
    RxNoBuffer = "rx_no_buffer",
    /// Reads that failed.
    RxErrors = "rx_errors",
    /// Frames given to the device (a super-frame that software cut counts once).
    TxPackets = "tx_packets",
    /// Their bytes, Ethernet header included.
    TxBytes = "tx_bytes",
    /// Of them super-frames.
    TxSuperFrames = "tx_superframes",
    /// Bytes copied on the way out: by the device's write, and by software where it had to.
    TxCopied = "tx_copied_bytes",
    /// Times the device took no more for now.
    TxBusy = "tx_busy",
    /// Frames the device refused.
    TxErrors = "tx_errors",
    /// Frames whose offload words or headers make no sense.
    TxMalformed = "tx_malformed",
    /// Frames with payload in a session memory that was not known here, and did not come.
    TxUnknownRegion = "tx_unknown_region",
    /// Super-frames cut in software.
    SwSegmented = "sw_segmented",
    /// Checksums completed in software.
    SwChecksums = "sw_checksums",
    /// Switches from polling to interrupts: the device is waited for.
    IrqArmed = "irq_to_interrupt",
    /// Switches from interrupts to polling.
    IrqMasked = "irq_to_polling",
    /// Interrupts: times the device woke the loop.
    IrqFired = "irq_fired",
    /// Frames lost by the impairment.
    ImpairLost = "impair_lost",
    /// Frames it marked as congestion experienced instead.
    ImpairMarked = "impair_marked",
    /// Frames it doubled.
    ImpairDuplicated = "impair_duplicated",
    /// Frames it held back behind later ones.
    ImpairReordered = "impair_reordered",
    /// Frames it flipped a bit of.
    ImpairCorrupted = "impair_corrupted",
    /// Frames that found its queue full.
    ImpairOverflow = "impair_overflow",
}

/// Counts since they were last added to the shared ones.
#[derive(Debug, Clone)]
pub struct Stats([u64; NAMES.len()]);

impl Default for Stats {
    fn default() -> Self {
        Self([0; NAMES.len()])
    }
}

impl Stats {
    /// Adds `n`.
    #[inline]
    pub fn add(&mut self, counter: Counter, n: u64) {
        if let Some(c) = self.0.get_mut(counter as usize) {
            *c = c.wrapping_add(n);
        }
    }

    /// What has been counted.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).copied().unwrap_or(0)
    }

    /// Adds everything to the shared counters and begins again.
    pub fn publish(&mut self, plumbing: &Plumbing) {
        for (index, n) in self.0.iter_mut().enumerate() {
            if *n != 0 {
                plumbing.count(index, std::mem::take(n));
            }
        }
    }
}
