//! What a daemon shows of itself: progress, crash note, trace and counters.
//!
//! ```text
//!   0     progress u64, phase u32, incarnation u32           the heartbeat
//!   64    crash note: kind u32, seq u32, id u64, place u64   the packet that is being worked on
//!   96    crash note: socket u64                             the socket, likewise
//!   128   trace: budget u32, next u32
//!   4096  counters u64 [512]          8192  their names, 32 bytes each
//!   24576 trace entries, 32 bytes each [512]
//! ```
//!
//! The daemon writes, the supervisor reads; nothing here is trusted for more than display and
//! liveness.

use crate::crash;
use crate::error::ShmError;
use crate::mapped::mapping::{self, Mapping};
use crate::mapped::skbuff::SkBuff;
use crate::sync::{AtomicU64, Ordering};
use abi::{Handle, Nanos};
use std::os::fd::{AsFd, OwnedFd};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const NOTE: usize = 64;
const SOCKET: usize = 96;
const TRACE: usize = 128;
const COUNTERS: usize = 4096;
const NAMES: usize = 8192;
const NAME_LEN: usize = 32;
const TRACES: usize = 24_576;
/// Counters a daemon can have.
pub const MAX_COUNTERS: usize = 512;
/// Trace entries kept.
pub const MAX_TRACES: usize = 512;
const SIZE: usize = TRACES + MAX_TRACES * 32;

/// Makes the memory.
///
/// # Errors
/// When the kernel refuses.
pub fn create(name: &str) -> Result<OwnedFd, ShmError> {
    mapping::create(name, SIZE)
}

/// What a daemon is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// Attaching and restoring.
    Starting = 0,
    /// In its loop.
    Running = 1,
    /// Finishing for a planned restart.
    Draining = 2,
}

/// A stage of a packet's path, as traced.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TraceEntry {
    /// When.
    pub at: Nanos,
    /// Which packet ([`Handle::packet`]: the same at every stage).
    pub handle: u64,
    /// Where; see [`stage`].
    pub stage: u32,
    /// Bytes of the packet.
    pub len: u32,
    /// Free for the stage (protocol, port).
    pub detail: u64,
}

/// Stages of a packet's path.
pub mod stage {
    /// netdevd read it from the device.
    pub const DEVICE_IN: u32 = 1;
    /// ipd took it from the device's ring.
    pub const IP_IN: u32 = 2;
    /// A transport took it from ipd's ring.
    pub const TRANSPORT_IN: u32 = 3;
    /// A transport gave it to ipd.
    pub const TRANSPORT_OUT: u32 = 4;
    /// ipd gave it to the device.
    pub const IP_OUT: u32 = 5;
    /// netdevd wrote it to the device.
    pub const DEVICE_OUT: u32 = 6;
}

/// A daemon's vital signs, seen from either side.
#[derive(Debug)]
pub struct Vitals {
    map: Mapping,
}

impl Vitals {
    /// Attaches.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub fn attach(fd: &impl AsFd) -> Result<Self, ShmError> {
        Ok(Self {
            map: Mapping::map(fd, SIZE, true)?,
        })
    }

    fn add(&self, offset: usize, n: u64) {
        if let Some(w) = self.map.u64_at(offset) {
            // One writer: no read-modify-write is needed.
            w.store(w.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    /// Daemon: one more turn of the loop.
    pub fn progress(&self) {
        self.add(0, 1);
    }

    /// Supervisor: turns so far; a number that stands still after the bell was rung is a hang.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.map.u64_at(0).map_or(0, |w| w.load(Ordering::Relaxed))
    }

    /// Daemon: sets phase and incarnation.
    pub fn set_phase(&self, phase: Phase, incarnation: u32) {
        if let (Some(p), Some(i)) = (self.map.u32_at(8), self.map.u32_at(12)) {
            i.store(incarnation, Ordering::Relaxed);
            p.store(phase as u32, Ordering::Release);
        }
    }

    /// Supervisor: whether the last incarnation is past its start and not about to end.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.map
            .u32_at(8)
            .is_some_and(|w| w.load(Ordering::Acquire) == Phase::Running as u32)
    }

    /// Supervisor: the last incarnation that was started.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.map.u32_at(12).map_or(0, |w| w.load(Ordering::Relaxed))
    }

    /// Daemon: notes what it works on, before it does; kind 0 is nothing.
    pub fn note(&self, kind: u32, id: u64) {
        if let (Some(k), Some(i)) = (self.map.u32_at(NOTE), self.map.u64_at(NOTE + 8)) {
            // Nothing is noted while the two change, so that no death pairs an id with the kind
            // of another.
            k.store(0, Ordering::Relaxed);
            i.store(id, Ordering::Release);
            k.store(kind, Ordering::Release);
        }
    }

    /// Daemon: notes the packet that it works on, before it looks into it, and where in the slot
    /// its linear data is; `kind` is one of [`abi::suspect::note`].
    pub fn note_packet(&self, kind: u32, skb: &SkBuff) {
        let len = skb.linear_len() as u64;
        if let Some(place) = self.map.u64_at(NOTE + 16) {
            // Under a kind of nothing, as the number: see `note`.
            if let Some(k) = self.map.u32_at(NOTE) {
                k.store(0, Ordering::Relaxed);
            }
            place.store(u64::from(skb.data_offset()) << 32 | len, Ordering::Release);
        }
        self.note(kind, skb.handle().0);
        crash::inspect(skb.linear());
    }

    /// Supervisor: offset in the slot's buffer and length of the noted packet's linear data.
    #[must_use]
    pub fn noted_place(&self) -> (u32, u32) {
        let place = self.map.u64_at(NOTE + 16);
        let [a, b, c, d, e, f, g, h] = place.map_or(0, |w| w.load(Ordering::Acquire)).to_be_bytes();
        (
            u32::from_be_bytes([a, b, c, d]),
            u32::from_be_bytes([e, f, g, h]),
        )
    }

    /// Transport: notes the socket that it works on, by its record and which use of the record it
    /// is (not 0).
    pub fn note_socket(&self, index: u32, generation: u32) {
        if let Some(w) = self.map.u64_at(SOCKET) {
            w.store(
                u64::from(generation) << 32 | u64::from(index),
                Ordering::Release,
            );
        }
    }

    /// Transport: works on no socket.
    pub fn note_no_socket(&self) {
        if let Some(w) = self.map.u64_at(SOCKET) {
            w.store(0, Ordering::Release);
        }
    }

    /// Supervisor: the socket that was being worked on: its record and which use of it.
    #[must_use]
    pub fn noted_socket(&self) -> Option<(u32, u32)> {
        let word = self.map.u64_at(SOCKET)?.load(Ordering::Acquire);
        let [a, b, c, d, e, f, g, h] = word.to_be_bytes();
        (word != 0).then_some((
            u32::from_be_bytes([e, f, g, h]),
            u32::from_be_bytes([a, b, c, d]),
        ))
    }

    /// Supervisor and successor: what was being worked on.
    #[must_use]
    pub fn noted(&self) -> (u32, u64) {
        (
            self.map
                .u32_at(NOTE)
                .map_or(0, |w| w.load(Ordering::Acquire)),
            self.map
                .u64_at(NOTE + 8)
                .map_or(0, |w| w.load(Ordering::Relaxed)),
        )
    }

    /// Daemon: names its counters, in order.
    pub fn name_counters(&self, names: &[&str]) {
        for (i, name) in names.iter().take(MAX_COUNTERS).enumerate() {
            let mut field = [0u8; NAME_LEN];
            for (to, from) in field.iter_mut().take(NAME_LEN - 1).zip(name.bytes()) {
                *to = from;
            }
            let _ = self.map.copy_in(NAMES + i * NAME_LEN, &field);
        }
    }

    /// Daemon: adds to a counter. They go on counting across restarts.
    pub fn count(&self, index: usize, n: u64) {
        if index < MAX_COUNTERS {
            self.add(COUNTERS + index * 8, n);
        }
    }

    /// Daemon: sets a counter that is a level (a gauge).
    pub fn set(&self, index: usize, value: u64) {
        if let Some(w) = self.counter(index) {
            w.store(value, Ordering::Relaxed);
        }
    }

    fn counter(&self, index: usize) -> Option<&AtomicU64> {
        (index < MAX_COUNTERS)
            .then(|| self.map.u64_at(COUNTERS + index * 8))
            .flatten()
    }

    /// Reads one counter.
    #[must_use]
    pub fn value(&self, index: usize) -> u64 {
        self.counter(index).map_or(0, |w| w.load(Ordering::Relaxed))
    }

    /// All named counters with their values.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        for i in 0..MAX_COUNTERS {
            let mut field = [0u8; NAME_LEN];
            let _ = self.map.copy_out(NAMES + i * NAME_LEN, &mut field);
            let name: Vec<u8> = field.into_iter().take_while(|&b| b != 0).collect();
            if name.is_empty() {
                break;
            }
            all.push((String::from_utf8_lossy(&name).into_owned(), self.value(i)));
        }
        all
    }

    /// Supervisor: asks for the next `n` packets to be traced.
    pub fn request_trace(&self, n: u32) {
        if let Some(w) = self.map.u32_at(TRACE) {
            w.store(n, Ordering::Relaxed);
        }
    }

    /// Daemon: whether tracing is on; one load a packet.
    #[must_use]
    pub fn tracing(&self) -> bool {
        self.map
            .u32_at(TRACE)
            .is_some_and(|w| w.load(Ordering::Relaxed) != 0)
    }

    /// Daemon: traces a stage if asked to.
    pub fn trace(&self, at: Nanos, stage: u32, handle: Handle, len: usize, detail: u64) {
        let (Some(budget), Some(next)) = (self.map.u32_at(TRACE), self.map.u32_at(TRACE + 4))
        else {
            return;
        };
        let left = budget.load(Ordering::Relaxed);
        if left == 0 {
            return;
        }
        let n = next.load(Ordering::Relaxed);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let entry = TraceEntry {
            at,
            handle: handle.packet(),
            stage,
            len,
            detail,
        };
        let _ = self
            .map
            .copy_in(TRACES + (n as usize % MAX_TRACES) * 32, entry.as_bytes());
        next.store(n.wrapping_add(1), Ordering::Release);
        budget.store(left - 1, Ordering::Relaxed);
    }

    /// Supervisor: the entries so far, oldest first.
    #[must_use]
    pub fn traces(&self) -> Vec<TraceEntry> {
        let n = self
            .map
            .u32_at(TRACE + 4)
            .map_or(0, |w| w.load(Ordering::Acquire)) as usize;
        (n.saturating_sub(MAX_TRACES)..n)
            .filter_map(|i| {
                let mut entry = TraceEntry::default();
                self.map
                    .copy_out(TRACES + (i % MAX_TRACES) * 32, entry.as_mut_bytes())
                    .then_some(entry)
            })
            .collect()
    }
}
