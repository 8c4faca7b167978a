//! The table: opening, closing, taking up what a predecessor left.

use super::Errno;
use super::demux::Demux;
use super::ports::Ports;
use super::record::{Kind, Record, flag};
use super::socket::Socket;
use abi::session::SocketId;
use session::SocketRef;

/// Linux's default for `IP_MTU_DISCOVER`: path MTU discovery as the route says.
pub const MTU_DISCOVER_WANT: u8 = 1;

/// All sockets.
#[derive(Debug)]
pub struct Engine {
    sockets: Vec<Option<Box<Socket>>>,
    free: Vec<u32>,
    dirty: Vec<u32>,
    pub(crate) demux: Demux,
    pub(crate) ports: Ports,
    /// Bytes of a send and a receive buffer.
    capacity: (u32, u32),
    raw: [u16; 256],
}

impl Engine {
    /// An empty table for `count` sockets with buffers of `capacity` (send, receive) bytes;
    /// `secret` keys the flow hash and stays the same across restarts, `entropy` makes ports
    /// unpredictable and must be new with each start.
    #[must_use]
    pub fn new(count: u32, capacity: (u32, u32), secret: [u8; 16], entropy: [u8; 16]) -> Self {
        Self {
            sockets: std::iter::repeat_with(|| None)
                .take(count as usize)
                .collect(),
            free: (0..count).rev().collect(),
            dirty: Vec::new(),
            demux: Demux::new(secret),
            ports: Ports::new(entropy),
            capacity,
            raw: [0; 256],
        }
    }

    /// A socket.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&Socket> {
        self.sockets.get(index as usize)?.as_deref()
    }

    /// A socket, to work on what is not durable.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Socket> {
        self.sockets.get_mut(index as usize)?.as_deref_mut()
    }

    /// All sockets with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Socket)> {
        (0u32..)
            .zip(&self.sockets)
            .filter_map(|(i, s)| Some((i, s.as_deref()?)))
    }

    /// Capacity of send and receive buffers.
    #[must_use]
    pub fn capacity(&self) -> (u32, u32) {
        self.capacity
    }

    /// Makes a socket whose buffers are at `place`.
    ///
    /// # Errors
    /// `ENFILE` when the table is full.
    pub fn open(
        &mut self,
        kind: Kind,
        v6: bool,
        place: SocketRef,
        incarnation: u32,
        request: u64,
    ) -> Result<u32, Errno> {
        let index = self.free.pop().ok_or(libc::ENFILE)?;
        let mut record = Record {
            region: place.region.0,
            slot: place.slot,
            incarnation,
            last_request: request,
            v6: v6.into(),
            tx_limit: self.capacity.0,
            rx_limit: self.capacity.1,
            mtu_discover: MTU_DISCOVER_WANT,
            ..Record::default()
        };
        record.set_kind(kind);
        self.insert(index, Socket::new(record, kind));
        self.mark(index);
        Ok(index)
    }

    /// Takes up a socket of a predecessor; false when its record makes no sense.
    pub fn restore(&mut self, index: u32, record: Record) -> bool {
        let sound = record.kind().filter(|_| {
            record.tx_limit <= self.capacity.0
                && record.rx_limit <= self.capacity.1
                && self
                    .sockets
                    .get(index as usize)
                    .is_some_and(Option::is_none)
        });
        let Some(kind) = sound else { return false };
        // The lowest are last, and taken up first.
        if let Some(at) = self.free.iter().rposition(|&f| f == index) {
            self.free.remove(at);
        }
        self.insert(index, Socket::new(record, kind));
        true
    }

    fn insert(&mut self, index: u32, socket: Socket) {
        if let Kind::Raw(protocol) = socket.kind
            && let Some(n) = self.raw.get_mut(usize::from(protocol))
        {
            *n = n.saturating_add(1);
        }
        self.demux.insert(index, &socket);
        if let Some(place) = self.sockets.get_mut(index as usize) {
            *place = Some(Box::new(socket));
        }
    }

    /// Takes a socket out of the table; its record is to be cleared.
    pub fn close(&mut self, index: u32) -> Option<SocketRef> {
        let mut socket = self.sockets.get_mut(index as usize)?.take()?;
        self.demux.remove(index, &socket);
        if let Kind::Raw(protocol) = socket.kind
            && let Some(n) = self.raw.get_mut(usize::from(protocol))
        {
            *n = n.saturating_sub(1);
        }
        self.free.push(index);
        if !std::mem::replace(&mut socket.dirty, true) {
            self.dirty.push(index);
        }
        Some(socket.place())
    }

    /// Notes that a record is to be committed.
    pub fn mark(&mut self, index: u32) {
        if let Some(socket) = self.get_mut(index)
            && !std::mem::replace(&mut socket.dirty, true)
        {
            self.dirty.push(index);
        }
    }

    /// Gives each changed socket's index to `commit`, with the record (none: to be cleared).
    pub fn commit(&mut self, mut commit: impl FnMut(u32, Option<&Record>)) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let socket = self.get_mut(index);
            if let Some(socket) = &socket
                && !socket.dirty
            {
                continue;
            }
            commit(index, socket.as_ref().map(|s| &s.record));
            if let Some(socket) = socket {
                socket.dirty = false;
            }
        }
        self.dirty = dirty;
    }

    /// Whether a socket's record has not been committed yet.
    #[must_use]
    pub fn is_dirty(&self, index: u32) -> bool {
        self.get(index).is_some_and(|s| s.dirty)
    }

    /// Whether the request was done by a predecessor and only needs its answer again.
    #[must_use]
    pub fn done_before(&self, index: u32, request: u64) -> bool {
        self.get(index)
            .is_some_and(|s| s.record.last_request == request)
    }

    /// Notes the request that changed a socket.
    pub fn note_request(&mut self, index: u32, request: u64) {
        if let Some(s) = self.get_mut(index) {
            s.record.last_request = request;
        }
        self.mark(index);
    }

    /// Changes a socket's name: takes it out of the lookup tables around `f`.
    pub(crate) fn rename<T>(&mut self, index: u32, f: impl FnOnce(&mut Record) -> T) -> Option<T> {
        let socket = self.sockets.get_mut(index as usize)?.as_deref_mut()?;
        self.demux.remove(index, socket);
        let result = f(&mut socket.record);
        self.demux.insert(index, socket);
        self.mark(index);
        Some(result)
    }

    /// Protocols that raw sockets ask for.
    pub fn raw_protocols(&self) -> impl Iterator<Item = u8> + '_ {
        (0u8..=255)
            .zip(&self.raw)
            .filter(|(_, n)| **n > 0)
            .map(|(p, _)| p)
    }

    /// Whether there is a raw socket of a protocol.
    #[must_use]
    pub fn has_raw(&self, protocol: u8) -> bool {
        self.raw.get(usize::from(protocol)).is_some_and(|&n| n > 0)
    }

    /// The socket's name in its session.
    #[must_use]
    pub fn id(&self, index: u32) -> Option<SocketId> {
        let r = &self.get(index)?.record;
        Some(SocketId {
            slot: r.slot,
            incarnation: r.incarnation,
        })
    }

    /// Whether a socket may send to broadcast addresses.
    #[must_use]
    pub fn may_broadcast(&self, index: u32) -> bool {
        self.get(index)
            .is_some_and(|s| s.record.has(flag::BROADCAST))
    }
}
