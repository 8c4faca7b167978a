//! Datagrams: records in the socket's two buffers.
//!
//! ```text
//!   | header 64 | payload | pad to 16 | header | payload | ... | filler to the buffer's end |
//! ```
//!
//! A record that is sent lies in one piece: if it does not fit before the buffer's end, a filler
//! takes the rest. One that is received may lie however the transport put it.

use crate::error::os;
use crate::recv::{Look, Unread};
use crate::send::Room;
use crate::socket::{Rx, Shared, Socket};
use crate::stack::want_family;
use abi::session::{DATAGRAM_ALIGN, DATAGRAM_SKIP, DatagramHeader, SocketKind, SocketState, shut};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use zerocopy::{FromBytes, IntoBytes};

const HEADER: usize = size_of::<DatagramHeader>();

/// A datagram that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes that were copied.
    pub len: usize,
    /// Bytes that the datagram has; more than `len` if it was cut.
    pub full_len: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// What else is known of it.
    pub header: DatagramHeader,
}

impl Shared {
    /// Longest payload that can be sent.
    fn largest(&self) -> usize {
        // RFC 791 3.1: total length at most 65,535; RFC 8200 3 does not count its header.
        let ip = if self.v6 { 65_535 } else { 65_535 - 20 };
        match self.kind {
            SocketKind::Datagram => ip - 8,
            _ => ip,
        }
    }

    /// Room for a record: bytes of filler in front of it, if it fits now.
    fn place(room: Room, size: usize) -> Option<usize> {
        let mask = room.capacity as u64 - 1;
        let to_end = room.capacity - usize::try_from(room.tail & mask).unwrap_or(0);
        let filler = if size > to_end { to_end } else { 0 };
        let used = room.used.checked_add(filler)?.checked_add(size)?;
        (used <= room.limit).then_some(filler)
    }

    /// Reads the record at the head of `unread`: its header and the bytes it takes, the filler in
    /// front of it included. `None`: only a filler.
    fn record(&self, unread: Unread) -> Option<Option<(DatagramHeader, usize, usize)>> {
        let capacity = u64::from(self.session.memory().layout().rx_capacity);
        let mut skipped = 0;
        loop {
            let head = unread.head.wrapping_add(skipped as u64);
            let rest = unread.len.checked_sub(skipped)?;
            if rest == 0 {
                return Some(None);
            }
            let mut len = [0; 4];
            if rest < len.len() || !self.copy_rx(head, &mut len) {
                return None;
            }
            if u32::from_ne_bytes(len) == DATAGRAM_SKIP {
                if skipped > 0 {
                    return None;
                }
                skipped = usize::try_from(capacity - (head & (capacity - 1))).ok()?;
                continue;
            }
            let mut bytes = [0; HEADER];
            if rest < HEADER || !self.copy_rx(head, &mut bytes) {
                return None;
            }
            let header = DatagramHeader::read_from_bytes(&bytes).ok()?;
            let len = usize::try_from(header.len).ok()?;
            let size = HEADER
                .checked_add(len)?
                .checked_next_multiple_of(DATAGRAM_ALIGN)?;
            return (size <= rest).then_some(Some((header, skipped, size)));
        }
    }
}

impl Socket {
    /// Sends one datagram to `to`, or to the connected peer.
    ///
    /// # Errors
    /// As `sendmsg(2)`; among them the error that an earlier datagram met.
    pub fn send_datagram(
        &self,
        bufs: &[IoSlice<'_>],
        to: Option<SocketAddr>,
        dont_wait: bool,
    ) -> io::Result<usize> {
        if let Some(to) = to {
            want_family(self.shared.v6, to.ip())?;
            if to.port() == 0 && self.shared.kind == SocketKind::Datagram {
                return Err(os(libc::EINVAL));
            }
        }
        let peer = to.map_or(abi::Endpoint::NONE, Into::into);
        self.send_record(
            bufs,
            DatagramHeader {
                peer,
                ..DatagramHeader::default()
            },
            dont_wait,
        )
    }

    /// Sends one datagram as `header` says (destination, source, device, TTL, TOS; its lengths
    /// are filled in).
    ///
    /// # Errors
    /// As [`Socket::send_datagram`].
    pub fn send_record(
        &self,
        bufs: &[IoSlice<'_>],
        mut header: DatagramHeader,
        dont_wait: bool,
    ) -> io::Result<usize> {
        let shared = &*self.shared;
        let len: usize = bufs.iter().map(|b| b.len()).sum();
        if len > shared.largest() {
            return Err(os(libc::EMSGSIZE));
        }
        header.len = u32::try_from(len).map_err(|_| os(libc::EMSGSIZE))?;
        header.wire_len = header.len;
        let size = (HEADER + len).next_multiple_of(DATAGRAM_ALIGN);
        let mut deadline = None;
        loop {
            let tx = shared.lock_tx();
            if shared.is_stale() {
                return Err(os(libc::ECONNRESET));
            }
            shared.check_error()?;
            if shared.is_shut(shut::WR) {
                return Err(os(libc::EPIPE));
            }
            if !header.peer.is_some() && shared.state() != SocketState::Connected {
                return Err(os(libc::EDESTADDRREQ));
            }
            let room = shared.room()?;
            // Alone in the buffer, and behind the longest filler, it has to fit.
            if 2 * size > room.limit {
                return Err(os(libc::EMSGSIZE));
            }
            if let Some(filler) = Shared::place(room, size) {
                return shared
                    .put_record(room, filler, size, &header, bufs)
                    .map(|()| len);
            }
            self.await_room(tx, dont_wait, &mut deadline, || {
                Ok(shared.is_stale()
                    || shared.pending_error().is_some()
                    || shared.is_shut(shut::WR)
                    || Shared::place(shared.room()?, size).is_some())
            })?;
        }
    }

    /// Receives one datagram into `bufs`; what does not fit is lost. With `peek`, it stays.
    ///
    /// # Errors
    /// As `recvmsg(2)`; among them the error that an earlier datagram met.
    pub fn recv_datagram(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        peek: bool,
        dont_wait: bool,
    ) -> io::Result<Option<Received>> {
        let shared = &*self.shared;
        let mut rx = shared.lock_rx();
        loop {
            let (guard, look) = self.await_data(rx, true, !dont_wait)?;
            rx = guard;
            let Look::Data(unread) = look else {
                return Ok(None);
            };
            let Some(record) = shared.record(unread) else {
                // Nothing in the queue can be believed.
                shared.take_datagram(self, &mut rx, unread, unread.len);
                return Err(shared.session.fault());
            };
            let Some((header, skipped, size)) = record else {
                shared.take_datagram(self, &mut rx, unread, unread.len);
                continue;
            };
            let at = unread.head.wrapping_add((skipped + HEADER) as u64);
            let len = usize::try_from(header.len).unwrap_or(0);
            let copied = len.min(bufs.iter().map(|b| b.len()).sum());
            let whole = shared.copy_rx_into(at, copied, bufs, 0);
            if !peek {
                shared.take_datagram(self, &mut rx, unread, skipped + size);
            }
            let Some(from) = header.peer.socket_addr().filter(|_| whole) else {
                return Err(shared.session.fault());
            };
            let full_len = len.max(usize::try_from(header.wire_len).unwrap_or(0));
            return Ok(Some(Received {
                len: copied,
                full_len,
                from,
                header,
            }));
        }
    }
}

impl Shared {
    /// Gives the first `size` bytes of `unread` back.
    fn take_datagram(&self, socket: &Socket, rx: &mut Rx, unread: Unread, size: usize) {
        self.release(rx, unread, size);
        if size == unread.len {
            self.settle(socket, false);
        }
    }

    fn put_record(
        &self,
        room: Room,
        filler: usize,
        size: usize,
        header: &DatagramHeader,
        bufs: &[IoSlice<'_>],
    ) -> io::Result<()> {
        let mut whole = filler == 0 || self.copy_tx(room.tail, &DATAGRAM_SKIP.to_ne_bytes());
        let start = room.tail.wrapping_add(filler as u64);
        whole &= self.copy_tx(start, header.as_bytes());
        let mut at = start.wrapping_add(HEADER as u64);
        for buf in bufs {
            whole &= self.copy_tx(at, buf);
            at = at.wrapping_add(buf.len() as u64);
        }
        if !whole {
            return Err(self.session.fault());
        }
        self.publish(start.wrapping_add(size as u64));
        Ok(())
    }
}
