//! What the two ends agreed on in their SYNs: segment sizes, window scales, SACK, timestamps.
//!
//! An option counts only if both SYNs carried it (RFC 7323 1.3, RFC 2018 2); the segment sizes
//! are each direction's own.

use super::config::{Config, MILLISECOND};
use abi::Nanos;
use abi::endpoint::FAMILY_V6;
use arrayvec::ArrayVec;
use wire::tcp::{Options, Timestamps};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of [`Negotiated::flags`].
pub mod flag {
    /// Timestamps on every segment.
    pub const TIMESTAMPS: u8 = 1;
    /// Windows are scaled.
    pub const SCALING: u8 = 2;
    /// SACK blocks may be sent and understood.
    pub const SACK: u8 = 4;
}

/// Sender's assumption when the peer names no MSS (RFC 9293 3.7.1).
pub const DEFAULT_MSS_V4: u16 = 536;
/// The same for IPv6.
pub const DEFAULT_MSS_V6: u16 = 1220;
/// Smaller segments than this are not made, whatever the peer or ICMP says (as Linux's
/// `TCP_MIN_SND_MSS` and `min_pmtu`: a tiny MSS is an attack on this side's cycles).
pub const MIN_MSS: u16 = 88;
/// Bytes that timestamps take of each segment.
pub const TIMESTAMPS_LEN: u16 = 12;
/// RFC 7323 5.5: `ts_recent` older than this says nothing any more.
pub const PAWS_MAX_AGE: Nanos = 24 * 24 * 3_600 * 1_000 * MILLISECOND;

/// The outcome of the handshake. 32 bytes of a record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Negotiated {
    /// When `ts_recent` was taken.
    pub ts_recent_at: Nanos,
    /// Latest timestamp of the peer that counts (RFC 7323 4.3).
    pub ts_recent: u32,
    /// What is added to the clock to make the own timestamps.
    pub ts_offset: u32,
    /// MSS announced to the peer.
    pub advertised_mss: u16,
    /// MSS the peer announced (options not counted).
    pub peer_mss: u16,
    /// Largest segment that the path takes, options included: from the route, less after ICMP.
    pub path_mss: u16,
    /// Shift of the windows sent.
    pub rcv_scale: u8,
    /// Shift of the windows received.
    pub snd_scale: u8,
    /// See [`flag`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// Bytes of IP and TCP header without options.
#[must_use]
pub const fn headers(family: u16) -> u16 {
    if family == FAMILY_V6 { 60 } else { 40 }
}

/// The shift that lets a window of `buffer` bytes be written in 16 bits (RFC 7323 2.3).
#[must_use]
pub fn scale_for(buffer: u32) -> u8 {
    (0..14).find(|&s| buffer >> s <= 0xffff).unwrap_or(14)
}

impl Negotiated {
    /// Whether `flag` was agreed on.
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sets what this side offers, before the peer's SYN is known. `user_mss` of 0 means none.
    pub fn offer(&mut self, config: &Config, family: u16, mtu: u16, user_mss: u16, buffer: u32) {
        let mtu = if mtu == 0 { config.mtu } else { mtu };
        self.path_mss = mtu.saturating_sub(headers(family)).max(MIN_MSS);
        self.advertised_mss = match user_mss {
            0 => self.path_mss,
            n => n.clamp(MIN_MSS, self.path_mss.max(MIN_MSS)),
        };
        self.rcv_scale = scale_for(buffer);
        self.peer_mss = if family == FAMILY_V6 {
            DEFAULT_MSS_V6
        } else {
            DEFAULT_MSS_V4
        };
        self.flags = (u8::from(config.timestamps) * flag::TIMESTAMPS)
            | (u8::from(config.window_scaling) * flag::SCALING)
            | (u8::from(config.sack) * flag::SACK);
    }

    /// Takes the options of the peer's SYN.
    pub fn agree(&mut self, options: &Options, now: Nanos) {
        if let Some(mss) = options.mss {
            self.peer_mss = mss.max(MIN_MSS);
        }
        match options.window_scale {
            Some(scale) if self.has(flag::SCALING) => self.snd_scale = scale.min(14),
            _ => {
                self.flags &= !flag::SCALING;
                self.rcv_scale = 0;
                self.snd_scale = 0;
            }
        }
        if !options.sack_permitted {
            self.flags &= !flag::SACK;
        }
        match options.timestamps {
            Some(ts) if self.has(flag::TIMESTAMPS) => {
                self.ts_recent = ts.tsval;
                self.ts_recent_at = now;
            }
            _ => self.flags &= !flag::TIMESTAMPS,
        }
    }

    /// Payload bytes of a full segment without SACK blocks.
    #[must_use]
    pub fn mss(&self) -> u16 {
        let whole = self.peer_mss.min(self.path_mss).max(MIN_MSS);
        if self.has(flag::TIMESTAMPS) {
            whole - TIMESTAMPS_LEN
        } else {
            whole
        }
    }

    /// The own timestamp clock: milliseconds (RFC 7323 5.4), shifted per connection.
    #[must_use]
    pub const fn clock(&self, now: Nanos) -> u32 {
        ((now / MILLISECOND) as u32).wrapping_add(self.ts_offset)
    }

    /// The options of a SYN (`reply` false) or SYN,ACK.
    #[must_use]
    pub fn syn_options(&self, now: Nanos, reply: bool) -> Options {
        Options {
            mss: Some(self.advertised_mss),
            window_scale: self.has(flag::SCALING).then_some(self.rcv_scale),
            sack_permitted: self.has(flag::SACK),
            timestamps: self.timestamps(now, reply),
            ..Options::default()
        }
    }

    /// The timestamps option of a segment.
    #[must_use]
    pub fn timestamps(&self, now: Nanos, echo: bool) -> Option<Timestamps> {
        self.has(flag::TIMESTAMPS).then(|| Timestamps {
            tsval: self.clock(now),
            tsecr: if echo { self.ts_recent } else { 0 },
        })
    }

    /// RFC 7323 5.3 R1: whether a segment with this timestamp is an old duplicate.
    #[must_use]
    pub fn is_paws_old(&self, tsval: u32, now: Nanos) -> bool {
        tsval.wrapping_sub(self.ts_recent).cast_signed() < 0
            && now.saturating_sub(self.ts_recent_at) < PAWS_MAX_AGE
    }

    /// Round-trip time that an echoed timestamp shows, at the clock's coarse grain.
    #[must_use]
    pub fn echoed_rtt(&self, tsecr: u32, now: Nanos) -> Option<Nanos> {
        let elapsed = self.clock(now).wrapping_sub(tsecr);
        // An echo from the future, or older than any timeout, is not an echo of ours.
        (tsecr != 0 && elapsed < 300_000)
            .then(|| (Nanos::from(elapsed) * MILLISECOND).max(MILLISECOND / 2))
    }
}

/// SACK blocks of one segment.
pub(crate) type SackBlocks = ArrayVec<(wire::SeqNumber, wire::SeqNumber), 4>;

#[cfg(test)]
mod tests {
    use super::*;
    use abi::endpoint::FAMILY_V4;

    fn offered() -> Negotiated {
        let mut n = Negotiated::default();
        n.offer(&Config::default(), FAMILY_V4, 1500, 0, 1 << 20);
        n
    }

    // RFC 7323 1.3, RFC 2018 2.
    #[test]
    fn an_option_needs_both_ends() {
        let mut n = offered();
        n.agree(&Options::default(), 1);
        assert_eq!(n.flags, 0);
        assert_eq!((n.rcv_scale, n.snd_scale), (0, 0));
        assert_eq!(n.mss(), 536);
        let mut n = offered();
        let peer = offered().syn_options(5, false);
        n.agree(&peer, 1);
        assert_eq!(n.flags, 7);
        assert_eq!((n.rcv_scale, n.snd_scale), (5, 5));
        assert_eq!(n.mss(), 1448);
    }

    #[test]
    fn the_scale_is_the_smallest_that_fits() {
        assert_eq!(scale_for(65_535), 0);
        assert_eq!(scale_for(65_536), 1);
        assert_eq!(scale_for(1 << 20), 5);
        assert_eq!(scale_for(u32::MAX), 14);
    }

    // RFC 7323 5.3, 5.5.
    #[test]
    fn paws_forgets_after_24_days() {
        let mut n = offered();
        n.ts_recent = 5;
        n.ts_recent_at = 1;
        assert!(n.is_paws_old(4, 2) && !n.is_paws_old(5, 2) && !n.is_paws_old(6, 2));
        assert!(n.is_paws_old(u32::MAX, 2));
        assert!(!n.is_paws_old(4, 1 + PAWS_MAX_AGE));
    }
}
