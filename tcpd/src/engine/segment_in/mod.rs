//! A segment arrives (RFC 9293 3.10.7).
//!
//! ```text
//!   demux --- none --> listen: SYN makes a child, anything else is reset
//!     |
//!     +-- SYN_SENT --> syn_sent
//!     +-- others ----> synchronized: PAWS, window, RST, SYN, ACK -> ack, data, fin
//! ```
//!
//! Everything is first turned into offsets ([`Segment`]); from then on comparisons are plain.

mod ack;
mod data;
mod fin;
mod report;
mod syn_sent;
mod synchronized;

pub(crate) use data::OPTION_SLACK;

use super::conn::Conn;
use super::demux::Flow;
use super::events::{Buffers, Payload, SegmentMeta};
use super::listen::Admission;
use super::seq::{Offset, SYN_OFFSET, extend, to_wire};
use super::state::State;
use super::tcb::Tcb;
use super::{ConnId, Engine, options};
use abi::{Endpoint, Nanos};
use wire::tcp::{Flags, Repr};

/// A segment in the terms of its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment<'a> {
    pub(crate) repr: &'a Repr,
    pub(crate) flags: Flags,
    /// First sequence number.
    pub(crate) start: Offset,
    /// First byte of payload: behind `start` if there is a SYN.
    pub(crate) data: Offset,
    /// Behind the last byte of payload.
    pub(crate) data_end: Offset,
    /// Behind everything, FIN included.
    pub(crate) end: Offset,
    /// Acknowledgement; meaningful with ACK.
    pub(crate) ack: Offset,
    /// Wire segments that the device merged into it.
    pub(crate) count: u32,
    /// Payload of one of them.
    pub(crate) size: u32,
    /// It was marked: congestion experienced (RFC 3168).
    pub(crate) ce: bool,
}

impl<'a> Segment<'a> {
    pub(crate) fn new(tcb: &Tcb, meta: &SegmentMeta<'a>) -> Self {
        let repr = meta.repr;
        let flags = repr.flags;
        // In SYN_SENT there is no receive space yet; offsets of received data do not matter.
        let start = extend(tcb.irs, tcb.rcv_nxt, repr.seq);
        let data = start + u64::from(flags.contains(Flags::SYN));
        let data_end = data + u64::from(meta.payload_len);
        let size = match meta.gso_size {
            0 => meta.payload_len,
            n => u32::from(n).min(meta.payload_len),
        };
        Self {
            repr,
            flags,
            start,
            data,
            data_end,
            end: data_end + u64::from(flags.contains(Flags::FIN)),
            ack: extend(tcb.iss, tcb.snd_una, repr.ack),
            count: meta.payload_len.div_ceil(size.max(1)).max(1),
            size,
            ce: meta.ce,
        }
    }

    pub(crate) fn has(&self, flag: Flags) -> bool {
        self.flags.contains(flag)
    }

    pub(crate) fn payload_len(&self) -> u64 {
        self.data_end - self.data
    }

    /// RFC 9293 3.4, SEG.LEN.
    fn len(&self) -> u64 {
        self.end - self.start
    }
}

/// What data is put with.
pub(crate) struct Sink<'a> {
    pub(crate) payload: &'a dyn Payload,
    pub(crate) buffers: &'a mut dyn Buffers,
}

impl Engine {
    /// Takes a received segment whose checksum is right. In-order and out-of-order payload
    /// inside the window goes to its place at once through `buffers`.
    pub fn on_segment(
        &mut self,
        now: Nanos,
        meta: &SegmentMeta<'_>,
        payload: &dyn Payload,
        buffers: &mut dyn Buffers,
    ) {
        let flow = Flow {
            local: Endpoint {
                port: meta.repr.dst_port,
                ..meta.dst
            },
            remote: Endpoint {
                port: meta.repr.src_port,
                ..meta.src
            },
        };
        let found = self.demux.lookup(&flow);
        self.stats.segs_in += match meta.gso_size {
            0 => 1,
            n => u64::from(meta.payload_len.div_ceil(u32::from(n)).max(1)),
        };
        let mut sink = Sink { payload, buffers };
        let Some(id) = found else {
            self.on_stray_segment(now, meta, &flow, None, &mut sink);
            return;
        };
        if let Some(floor) = self.successor_of_time_wait(id, meta) {
            self.step(id, now, |conn, ctx| conn.terminate(None, ctx));
            self.on_stray_segment(now, meta, &flow, Some(floor), &mut sink);
            return;
        }
        self.deliver(now, id, meta, &mut sink);
    }

    /// A segment of connection `id`.
    pub(super) fn deliver(
        &mut self,
        now: Nanos,
        id: ConnId,
        meta: &SegmentMeta<'_>,
        sink: &mut Sink<'_>,
    ) {
        let admission = self.admission(id);
        let connecting = self
            .record(id)
            .is_some_and(|tcb| tcb.state() == State::SynSent);
        self.step(id, now, |conn, ctx| {
            let segment = Segment::new(&conn.tcb, meta);
            let counters = &mut conn.tcb.counters;
            counters.segs_in = counters.segs_in.wrapping_add(segment.count);
            if meta.payload_len > 0 {
                counters.data_segs_in = counters.data_segs_in.wrapping_add(segment.count);
            }
            if conn.tcb.state() == State::SynSent {
                conn.on_segment_syn_sent(&segment, ctx);
            } else {
                conn.on_segment_synchronized(segment, sink, admission.as_ref(), ctx);
            }
        });
        if let Some(admission) = admission
            && self
                .record(id)
                .is_some_and(|tcb| tcb.accept_seq == admission.order)
        {
            self.next_accept += 1;
        }
        if connecting {
            self.learn_cookie(now, id, meta);
        }
    }

    /// RFC 9293 3.6.1 (MAY-2) and RFC 6191: a SYN that is newer than everything of a connection
    /// in TIME_WAIT opens a new one. Returns the sequence number to start from (as Linux).
    fn successor_of_time_wait(&self, id: ConnId, meta: &SegmentMeta<'_>) -> Option<u32> {
        let tcb = self.record(id)?;
        let flags = meta.repr.flags;
        // Whether an application still holds the descriptor makes no difference: it has had
        // everything that comes, and reads on from its buffer.
        if tcb.state() != State::TimeWait
            || !flags.contains(Flags::SYN)
            || flags.intersects(Flags::ACK | Flags::RST)
        {
            return None;
        }
        let n = &tcb.negotiated;
        let newer_stamp = meta.repr.options.timestamps.is_some_and(|ts| {
            n.has(options::flag::TIMESTAMPS) && ts.tsval.wrapping_sub(n.ts_recent).cast_signed() > 0
        });
        let newer = newer_stamp || extend(tcb.irs, tcb.rcv_nxt, meta.repr.seq) > tcb.rcv_nxt;
        let floor = to_wire(tcb.iss, tcb.snd_nxt).0.wrapping_add(65_537);
        newer.then_some(floor)
    }
}

impl Conn {
    /// Whether the segment is our own peer's SYN again.
    fn is_peers_syn(&self, segment: &Segment<'_>) -> bool {
        segment.has(Flags::SYN) && segment.start == SYN_OFFSET
    }
}

/// For [`synchronized`]: what may complete a handshake.
type Gate<'a> = Option<&'a Admission>;
