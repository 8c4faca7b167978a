//! The session memory behind the engine's buffers: windows for those that grow, pages back from
//! those that are idle and, when memory is short, from all; and what applications are shown of
//! sizes.

use super::Tcpd;
use super::socket;
use crate::engine::ConnId;
use crate::engine::memory::{Limits, MemoryConfig, RING_BASE};
use abi::Nanos;
use abi::config::{TCP_BUFFER_BASE, TcpConfig, TcpMemory};
use session::{Empty, Held};

/// What the configuration says of memory. A share is of this machine's; where that cannot be read,
/// of a machine of 8 GiB.
pub(super) fn memory_config(tcp: &TcpConfig) -> MemoryConfig {
    let pressure = match tcp.memory {
        TcpMemory::Bytes(bytes) => bytes,
        TcpMemory::Share(share) => {
            let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
            total_ram(&text).unwrap_or(8 << 30) / 10_000 * u64::from(share)
        }
    };
    let usual = MemoryConfig::default();
    let sizes = |least, [start, most]: [u32; 2]| [least, start, most];
    MemoryConfig {
        rmem: sizes(usual.rmem[0], tcp.receive_buffer),
        wmem: sizes(usual.wmem[0], tcp.send_buffer),
        limits: Limits::around(pressure),
        session: pressure / 2,
        ..usual
    }
}

const _: () = assert!(TCP_BUFFER_BASE == RING_BASE);

/// `MemTotal` of `/proc/meminfo` in bytes.
fn total_ram(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|l| l.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

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

    /// After the commit, when memory is short: what a socket's buffers do not hold goes back.
    pub(super) fn give_back(&mut self, id: ConnId) {
        let mut done = (false, false);
        if let Some((tcb, socket)) = self.engine.record(id).zip(self.sockets.get(id)) {
            let held = Held {
                tx: tcb.acked_upto()..tcb.written,
                rx: tcb.consumed..tcb.placed_upto(),
                room: socket::has_room(tcb),
            };
            let rings = tcb.memory.rings;
            done = self.sessions.give_back(socket.place, &rings, &held);
        }
        self.engine.gave_back(id, done.0, done.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_shares_of_the_memory() {
        let text = "MemTotal:       16777216 kB\nMemFree:  5 kB\n";
        assert_eq!(total_ram(text), Some(16 << 30));
        assert_eq!(total_ram("MemFree: 5 kB"), None);
        let limits = Limits::of_ram(16 << 30);
        assert_eq!(limits.pressure, 1 << 30);
        assert!(limits.low < limits.pressure && limits.pressure < limits.high);
    }

    #[test]
    fn the_configuration_says_sizes_and_limits() {
        let config = memory_config(&TcpConfig {
            receive_buffer: [16 << 10, 1 << 20],
            send_buffer: [32 << 10, 2 << 20],
            memory: TcpMemory::Bytes(64 << 20),
            ..TcpConfig::default()
        });
        assert_eq!(config.rmem, [4_096, 16 << 10, 1 << 20]);
        assert_eq!(config.wmem, [4_096, 32 << 10, 2 << 20]);
        assert_eq!(config.limits, Limits::around(64 << 20));
        assert_eq!(config.session, 32 << 20);
        let usual = memory_config(&TcpConfig::default());
        assert_eq!(usual.rmem, MemoryConfig::default().rmem);
        assert!(usual.limits.pressure > 0);
    }
}
