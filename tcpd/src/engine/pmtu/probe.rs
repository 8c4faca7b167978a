//! The search for the largest size that fits, by probes (RFC 4821 7, and RFC 8899's idea that
//! one lost probe is not yet an answer).
//!
//! A probe is new data in one segment that is larger than the others, with enough of ordinary
//! size behind it that its loss shows by duplicate acknowledgements. It arrived: the size fits.
//! It alone is missing: it was too big (or unlucky, so a second one is sent), the data goes
//! again in ordinary pieces, and the congestion window stays (RFC 4821 7.6.2). Anything else
//! says nothing.

use super::flag;
use crate::engine::congestion::Congestion;
use crate::engine::conn::{Conn, Ctx};
use crate::engine::recovery::Phase;
use crate::engine::seq::{Offset, clamp};
use crate::engine::tcb::Tcb;

/// Sizes closer than this are not told apart (Linux's `tcp_probe_threshold`).
const RESOLUTION: u16 = 8;
/// Lost probes of one size that make it too large.
const ENOUGH_LOST: u8 = 2;
/// Segments behind a probe that show its loss.
const BEHIND: u32 = 3;
/// Least congestion window, in segments, to risk a probe in.
const LEAST_WINDOW: u32 = 6;

/// What the search has to say before new data leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Nothing.
    None,
    /// The next segment is a probe with so much payload.
    Send(u32),
    /// One is due as soon as the congestion window has room for it.
    Wait,
}

impl Tcb {
    /// The size to try next.
    fn candidate(&self) -> Option<u16> {
        let p = &self.pmtu;
        let high = p.search_high.min(self.mtu_ceiling());
        if !p.has(flag::SEARCHING) || p.probe_mtu != 0 || high < p.search_low + RESOLUTION {
            return None;
        }
        Some(if p.has(flag::TOP_FIRST) {
            high
        } else {
            p.search_low + (high - p.search_low).div_ceil(2)
        })
    }

    /// Whether the next segment of new data, of `mss` bytes now, is to be a probe.
    pub(crate) fn next_probe(&self, mss: u32) -> Probe {
        let Some(mtu) = self.candidate() else {
            return Probe::None;
        };
        let r = &self.recovery;
        if r.phase() != Phase::Open
            || !self.sacked.is_empty()
            || r.dupacks > 0
            || r.retries > 0
            || self.snd_up > self.snd_nxt
            || self.cc.cwnd < LEAST_WINDOW * mss
        {
            return Probe::None;
        }
        let more = u32::from(mtu).saturating_sub(u32::from(self.path_mtu()));
        let len = mss + more;
        let needed = u64::from(len + BEHIND * mss);
        let there = self
            .data_end()
            .min(self.snd_limit())
            .saturating_sub(self.snd_nxt);
        if there < needed || more == 0 {
            return Probe::None;
        }
        let pipe = self.pipe();
        if self.cc.cwnd.saturating_sub(pipe) >= len {
            Probe::Send(len)
        } else if pipe > 0 && self.cc.cwnd >= len {
            Probe::Wait
        } else {
            Probe::None
        }
    }

    /// The probe left as `[start, end)`.
    pub(crate) fn note_probe(&mut self, start: Offset, end: Offset, mss: u32, ctx: &Ctx<'_>) {
        let more = clamp(end - start).saturating_sub(mss);
        let mtu = u32::from(self.path_mtu()) + more;
        let p = &mut self.pmtu;
        p.probe_mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        p.probe_start = start;
        p.probe_end = end;
        p.searched_at = ctx.now;
    }

    /// `[start, ..)` is sent again: nothing can be said any more about a probe behind `start`.
    pub(crate) fn spoil_probe(&mut self, start: Offset) {
        if self.pmtu.probe_mtu != 0 && start < self.pmtu.probe_end {
            self.pmtu.probe_mtu = 0;
        }
    }

    fn probe_arrived(&mut self) {
        let p = &mut self.pmtu;
        let mtu = p.probe_mtu;
        p.probe_mtu = 0;
        p.probes_lost = 0;
        p.flags &= !flag::TOP_FIRST;
        p.search_low = p.search_low.max(mtu);
        let fits = mtu > self.path_mtu();
        if fits {
            self.set_path_mtu(mtu);
        }
    }

    fn probe_lost(&mut self) {
        let p = &mut self.pmtu;
        p.probes_lost = p.probes_lost.saturating_add(1);
        if p.probes_lost >= ENOUGH_LOST {
            p.search_high = p.probe_mtu - 1;
            p.probes_lost = 0;
            p.flags &= !flag::TOP_FIRST;
        }
        p.probe_mtu = 0;
    }

    /// The probe is the only thing that is missing.
    fn is_only_probe_missing(&self) -> bool {
        let p = &self.pmtu;
        if self.has_sack() {
            self.sacked.len() == 1 && self.first_hole() == Some((p.probe_start, p.probe_end))
        } else {
            self.snd_una == p.probe_start
        }
    }
}

/// What has to be known of the time before an acknowledgement to judge a probe by it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch(Option<(Phase, Congestion)>);

impl Watch {
    /// Before it is taken into account.
    pub(crate) fn begin(tcb: &Tcb) -> Self {
        Self((tcb.pmtu.probe_mtu != 0).then(|| (tcb.recovery.phase(), tcb.cc)))
    }

    /// After that, and before anything is sent.
    pub(crate) fn end(self, conn: &mut Conn, ctx: &mut Ctx<'_>) {
        let Some((phase, cc)) = self.0 else {
            return;
        };
        let tcb = &mut conn.tcb;
        let una = tcb.snd_una;
        let (start, end) = (tcb.pmtu.probe_start, tcb.pmtu.probe_end);
        if una >= end || tcb.sacked.first_hole(una, start.max(una), end).is_none() {
            tcb.probe_arrived();
            ctx.stats.probes_arrived += 1;
        } else if phase == Phase::Open && tcb.recovery.phase() != Phase::Open {
            if tcb.is_only_probe_missing() {
                // RFC 4821 7.6.2: no congestion control response. Slow start ends here, because
                // recovery leaves with the threshold as its window.
                tcb.cc = cc;
                tcb.cc.ssthresh = cc.ssthresh.min(cc.cwnd);
                tcb.probe_lost();
                ctx.stats.probes_lost += 1;
            } else {
                tcb.pmtu.probe_mtu = 0;
            }
        }
    }
}
