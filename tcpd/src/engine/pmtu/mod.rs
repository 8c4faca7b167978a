//! The path MTU: what size of IP packet a connection sends (RFC 1191, RFC 8201, RFC 4821).
//!
//! ```text
//!   ICMP says what fits --------> smaller at once; after ten minutes the old size again
//!   timeouts of full segments --> a black hole: the base size, and from there ...
//!   search [probe] -------------> ... up again by probes of real data, to what fits
//! ```
//!
//! Everything is in the record, so that a restart neither forgets what a path takes nor takes
//! the loss of a probe for congestion.
//!
//! The size in use is [`super::options::Negotiated::path_mss`]; here is what it follows from.

mod blackhole;
mod probe;

pub(crate) use probe::{Probe, Watch};

use super::Engine;
use super::conn::{Conn, Ctx};
use super::events::Route;
use super::options::{MIN_MSS, headers};
use super::recovery::Phase;
use super::seq::Offset;
use super::tcb::Tcb;
use abi::config::MtuProbing;
use abi::endpoint::FAMILY_V6;
use abi::{Endpoint, Nanos};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// RFC 1191 7.1: what to try when a router does not say what fits.
const PLATEAUS: [u16; 9] = [
    65_535, 32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 552,
];

/// RFC 1191 6.3 and RFC 8201 4: a size that ICMP gave is forgotten after ten minutes, and the
/// search for a larger one begins again after as long.
pub const FORGET: Nanos = 600 * super::config::SECOND;

/// Smaller path MTUs are not believed: Linux's `min_pmtu`, and IPv6's least (RFC 8200 5).
#[must_use]
pub const fn floor(family: u16) -> u16 {
    if family == FAMILY_V6 { 1_280 } else { 552 }
}

/// A size that nearly all paths take (RFC 4821 7.2; Linux's `tcp_base_mss` of 1,024).
#[must_use]
pub const fn base(family: u16) -> u16 {
    if family == FAMILY_V6 { 1_280 } else { 1_064 }
}

/// Bits of [`PathMtu::flags`].
pub mod flag {
    /// Larger sizes are searched for.
    pub const SEARCHING: u8 = 1;
    /// The next size to try is the largest: it is what was in use before.
    pub const TOP_FIRST: u8 = 2;
}

/// A connection's knowledge of its path. 48 bytes of a record; sizes are of IP packets.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PathMtu {
    /// What the route's device takes.
    pub route_mtu: u16,
    /// Largest size known to fit, while searching.
    pub search_low: u16,
    /// Largest size that may fit.
    pub search_high: u16,
    /// Size of the probe in flight; 0 for none.
    pub probe_mtu: u16,
    /// Probes of the present size that were lost.
    pub probes_lost: u8,
    /// See [`flag`].
    pub flags: u8,
    /// Times that a black hole was suspected.
    pub black_holes: u16,
    /// Zero.
    pub reserved: u32,
    /// First offset of the probe in flight.
    pub probe_start: Offset,
    /// Behind its last.
    pub probe_end: Offset,
    /// When what ICMP said is forgotten; 0: nothing to forget.
    pub expires_at: Nanos,
    /// When the search last moved.
    pub searched_at: Nanos,
}

impl PathMtu {
    /// Whether `flag` is set.
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl Tcb {
    /// IP packet size in use.
    #[must_use]
    pub fn path_mtu(&self) -> u16 {
        self.negotiated
            .path_mss
            .saturating_add(headers(self.local.family))
    }

    fn set_path_mtu(&mut self, mtu: u16) {
        self.negotiated.path_mss = mtu.saturating_sub(headers(self.local.family)).max(MIN_MSS);
    }

    /// The largest size that can be of use: the route's, and what the peer takes.
    fn mtu_ceiling(&self) -> u16 {
        let peer = self
            .negotiated
            .peer_mss
            .saturating_add(headers(self.local.family));
        self.pmtu.route_mtu.min(peer)
    }

    /// The handshake begins; the route's MTU is in `negotiated`.
    pub(crate) fn start_path_mtu(&mut self, mode: MtuProbing, now: Nanos) {
        let route_mtu = self.path_mtu();
        self.pmtu = PathMtu {
            route_mtu,
            search_low: route_mtu,
            search_high: route_mtu,
            searched_at: now,
            ..PathMtu::default()
        };
        let base = base(self.local.family);
        if mode == MtuProbing::Always && base < route_mtu {
            self.pmtu.search_low = base;
            self.pmtu.flags = flag::SEARCHING;
            self.set_path_mtu(base);
        }
    }

    /// Before new data leaves: what was learned long ago may not hold any more.
    pub(crate) fn refresh_path_mtu(&mut self, now: Nanos) {
        let ceiling = self.mtu_ceiling();
        let p = &mut self.pmtu;
        if p.has(flag::SEARCHING) {
            if !p.has(flag::TOP_FIRST)
                && p.probe_mtu == 0
                && p.search_high < ceiling
                && now.saturating_sub(p.searched_at) >= FORGET
            {
                p.search_high = ceiling;
                p.searched_at = now;
                p.expires_at = 0;
            }
        } else if p.expires_at != 0 && now >= p.expires_at {
            p.expires_at = 0;
            p.search_low = p.route_mtu;
            p.search_high = p.route_mtu;
            let mtu = p.route_mtu;
            self.set_path_mtu(mtu);
        }
    }

    /// RFC 1191 6.3: what is in flight was too big. It is sent again at once in smaller pieces,
    /// as far as the window allows, which is no sign of congestion.
    fn resend_smaller(&mut self) {
        self.pmtu.probe_mtu = 0;
        if !self.state().can_transmit() || self.flight() == 0 {
            return;
        }
        if self.recovery.phase() == Phase::Open {
            self.cc.ssthresh = self.cc.ssthresh.min(self.cc.cwnd);
        }
        self.recovery.phase = Phase::Loss as u32;
        self.recovery.point = self.snd_nxt;
        self.recovery.presume_lost(self.snd_una, self.snd_nxt);
    }
}

impl Conn {
    /// RFC 1191 3, RFC 8201 4: ICMP says that the segment at `seq`, which is in flight, did not
    /// fit `mtu` bytes (0: an old router that does not say).
    pub(crate) fn on_too_big(&mut self, mtu: u16, seq: Offset, ctx: &mut Ctx<'_>) {
        let tcb = &mut self.tcb;
        let present = tcb.path_mtu();
        let p = &tcb.pmtu;
        let probing = p.probe_mtu != 0 && (p.probe_start..p.probe_end).contains(&seq);
        let sent = if probing { p.probe_mtu } else { present };
        let mtu = match mtu {
            0 => PLATEAUS.into_iter().find(|&p| p < sent).unwrap_or(0),
            n => n,
        }
        .max(floor(tcb.local.family));
        // RFC 5927 7.2, RFC 8201 4: it cannot be about what was sent.
        if mtu >= sent {
            ctx.stats.icmp_ignored += 1;
            return;
        }
        let p = &mut tcb.pmtu;
        p.search_high = mtu;
        p.probes_lost = 0;
        p.flags &= !flag::TOP_FIRST;
        p.expires_at = ctx.now + FORGET;
        p.searched_at = ctx.now;
        if mtu < present {
            p.search_low = p.search_low.min(mtu);
            tcb.set_path_mtu(mtu);
        }
        tcb.resend_smaller();
    }

    /// The route changed: its device takes another size, or it is another device.
    fn on_route_mtu(&mut self, mtu: u16, ctx: &Ctx<'_>) {
        let tcb = &mut self.tcb;
        let mtu = mtu.max(headers(tcb.local.family) + MIN_MSS);
        if mtu == tcb.pmtu.route_mtu || !tcb.state().has_peer() {
            return;
        }
        let present = tcb.path_mtu();
        let p = &mut tcb.pmtu;
        let narrowed = present < p.route_mtu;
        p.route_mtu = mtu;
        p.search_high = mtu;
        if mtu < present {
            p.search_low = p.search_low.min(mtu);
            tcb.set_path_mtu(mtu);
            tcb.resend_smaller();
        } else if !narrowed {
            p.search_low = mtu;
            tcb.set_path_mtu(mtu);
        } else if !p.has(flag::SEARCHING) && p.expires_at == 0 {
            p.expires_at = ctx.now;
        }
    }
}

impl Engine {
    /// Routes or devices changed. `lookup` says what the route between two ends is now; where
    /// there is none, or its source is not the connection's, the connection goes on as it is:
    /// the route may come back, and if not, retransmission gives up in time (RFC 1122 4.2.3.9).
    pub fn routes_changed(
        &mut self,
        now: Nanos,
        lookup: impl Fn(&Endpoint, &Endpoint) -> Option<Route>,
    ) {
        let changed: Vec<(super::ConnId, u16)> = self
            .records()
            .filter(|(_, tcb)| tcb.state().has_peer())
            .filter_map(|(id, tcb)| {
                let mtu = match lookup(&tcb.local, &tcb.remote)?.mtu {
                    0 => self.config.mtu,
                    mtu => mtu,
                };
                (mtu != tcb.pmtu.route_mtu).then_some((id, mtu))
            })
            .collect();
        for (id, mtu) in changed {
            self.step(id, now, |conn, ctx| conn.on_route_mtu(mtu, ctx));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_fixed() {
        assert_eq!(size_of::<PathMtu>(), 48);
    }
}
