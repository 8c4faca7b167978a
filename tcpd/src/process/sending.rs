//! After the commit: segments go to ipd.
//!
//! What finds no buffer or no place in the ring waits, in order, for the next turn: the engine
//! counts it as sent, and losing it here would cost a retransmission.

use super::transmit::{self, Unsent};
use super::{Tcpd, counters};
use crate::engine::SegmentOut;
use abi::Nanos;
use runtime::Context;
use shm::vitals::stage;

/// Segments kept waiting at the most; older ones are lost like packets.
const MAX_DEFERRED: usize = 4096;
/// How long to wait for place below.
const RETRY: Nanos = 200_000;

impl Tcpd {
    /// Sends what waits, then what is new.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) {
        let mut dropped = 0;
        self.retry_at = None;
        while let Some(segment) = self.deferred.pop_front() {
            if !self.send_one(&segment, cx) {
                self.deferred.push_front(segment);
                break;
            }
        }
        let mut segments = std::mem::take(&mut self.actions.segments);
        let mut sent = 0;
        if self.deferred.is_empty() {
            for segment in &segments {
                if !self.send_one(segment, cx) {
                    break;
                }
                sent += 1;
            }
        }
        if sent < segments.len() {
            cx.count(counters::OUT_DEFERRED, (segments.len() - sent) as u64);
            self.deferred.extend(segments.drain(sent..));
            while self.deferred.len() > MAX_DEFERRED {
                self.deferred.pop_front();
                dropped += 1;
            }
        }
        segments.clear();
        self.actions.segments = segments;
        if !self.deferred.is_empty() {
            self.retry_at = Some(cx.now + RETRY);
        }
        if dropped > 0 {
            cx.count(counters::OUT_DROPPED, dropped);
        }
    }

    /// False when there was no place; a segment that cannot be built is dropped and counts as
    /// lost.
    fn send_one(&mut self, segment: &SegmentOut, cx: &mut Context<'_>) -> bool {
        let Some(alloc) = cx.plumbing.alloc.as_mut() else {
            return true;
        };
        let rings = segment
            .id
            .and_then(|id| self.engine.record(id))
            .map(|tcb| &tcb.memory.rings);
        let built = match transmit::build(segment, alloc, &self.sessions, rings) {
            Ok(built) => built,
            Err(Unsent::NoBuffer) => return false,
            Err(Unsent::Malformed) => {
                cx.count(counters::OUT_DROPPED, 1);
                return true;
            }
        };
        let (handle, len) = (built.skb.handle(), built.skb.len());
        let Some(link) = cx.plumbing.links.first_mut() else {
            return true;
        };
        if link.send(built.skb).is_err() {
            return false;
        }
        cx.trace(
            stage::TRANSPORT_OUT,
            handle,
            len,
            u64::from(transmit::PROTOCOL_TCP),
        );
        cx.count(counters::OUT_SEGS, 1);
        cx.count(counters::TX_PAYLOAD, built.payload as u64);
        cx.count(counters::TX_COPIED, built.copied as u64);
        true
    }
}
