//! SYN cookies (RFC 4987 3.6): a listener whose SYN queue is full keeps nothing of a SYN but
//! answers it with an initial sequence number from which the acknowledgement of it, should it
//! come, makes the connection.
//!
//! ```text
//!   cookie = H(ends) + peer's ISN + minute << 24 + (H(ends, minute, peer's ISN) + MSS index) mod 2^24
//! ```
//!
//! Both hashes are SipHash with the stack's secret, so a successor of this process knows the
//! cookies of its predecessor. As the peer's ISN is added, cookies grow with it and with the
//! minute, as sequence numbers should (RFC 6528). One made in the minute before is still taken:
//! of 2^32 acknowledgements that somebody guesses blindly, eight are believed.
//!
//! What does not fit rides in the low six bits of the own timestamp, which the peer echoes:
//!
//! ```text
//!   bit 5: ECN   bit 4: SACK permitted   bits 3..0: the peer's window scale, 15 for none
//! ```
//!
//! A peer without timestamps gets none of these options.

use super::config::{MILLISECOND, SECOND};
use super::demux::Flow;
use super::isn;
use abi::Nanos;
use abi::endpoint::FAMILY_V6;
use wire::tcp::Options;

/// Bits below the minute.
const DATA_BITS: u32 = 24;
const DATA_MASK: u32 = (1 << DATA_BITS) - 1;
/// How often cookies change.
const PERIOD: Nanos = 60 * SECOND;
/// Periods for which a cookie is good.
const MAX_AGE: u32 = 2;
/// How long after the last cookie an acknowledgement may still bring one.
pub(crate) const VALIDITY: Nanos = MAX_AGE as Nanos * PERIOD;

/// MSS values that a cookie can say, ascending: what is common on the Internet.
const MSS_V4: [u16; 4] = [536, 1300, 1440, 1460];
const MSS_V6: [u16; 4] = [1220, 1420, 1440, 8940];

/// Bits of the timestamp that carry options.
const STAMP_BITS: u32 = 6;
const STAMP_MASK: u32 = (1 << STAMP_BITS) - 1;
const NO_SCALE: u32 = 15;
const SACK_BIT: u32 = 1 << 4;
const ECN_BIT: u32 = 1 << 5;

fn table(family: u16) -> &'static [u16; 4] {
    if family == FAMILY_V6 {
        &MSS_V6
    } else {
        &MSS_V4
    }
}

fn period(now: Nanos) -> u32 {
    (now / PERIOD) as u32
}

/// The initial sequence number of the answer to a SYN, and the MSS that its acknowledgement will
/// tell: the largest known one that is not above `mss`.
pub(crate) fn make(
    secret: &[u8; 16],
    flow: &Flow,
    peer_isn: u32,
    mss: u16,
    now: Nanos,
) -> (u32, u16) {
    let table = table(flow.local.family);
    let index = table.iter().rposition(|&m| m <= mss).unwrap_or(0);
    let count = period(now);
    let data = isn::cookie_hash(secret, flow, Some((count, peer_isn))).wrapping_add(index as u32)
        & DATA_MASK;
    let cookie = isn::cookie_hash(secret, flow, None)
        .wrapping_add(peer_isn)
        .wrapping_add(count << DATA_BITS)
        .wrapping_add(data);
    (cookie, table.get(index).copied().unwrap_or(mss))
}

/// The MSS that `cookie` tells, if it is one of ours and not too old.
pub(crate) fn check(
    secret: &[u8; 16],
    flow: &Flow,
    peer_isn: u32,
    cookie: u32,
    now: Nanos,
) -> Option<u16> {
    let rest = cookie
        .wrapping_sub(isn::cookie_hash(secret, flow, None))
        .wrapping_sub(peer_isn);
    let count = period(now);
    let age = count.wrapping_sub(rest >> DATA_BITS) & (u32::MAX >> DATA_BITS);
    if age >= MAX_AGE {
        return None;
    }
    let made = count.wrapping_sub(age);
    let index =
        rest.wrapping_sub(isn::cookie_hash(secret, flow, Some((made, peer_isn)))) & DATA_MASK;
    table(flow.local.family).get(index as usize).copied()
}

/// What the peer's SYN said, as the acknowledgement will bring it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carried {
    /// The peer's shift, if both scale.
    pub(crate) scale: Option<u8>,
    /// SACK was agreed on.
    pub(crate) sack: bool,
    /// ECN was agreed on.
    pub(crate) ecn: bool,
}

/// The own clock (milliseconds, no offset) to put into the timestamp of the SYN,ACK: the latest
/// not after now whose low bits say `carried`.
pub(crate) fn stamp(carried: Carried, now: Nanos) -> u32 {
    let clock = (now / MILLISECOND) as u32;
    let bits = carried
        .scale
        .map_or(NO_SCALE, |s| u32::from(s).min(NO_SCALE - 1))
        | if carried.sack { SACK_BIT } else { 0 }
        | if carried.ecn { ECN_BIT } else { 0 };
    let stamp = (clock & !STAMP_MASK) | bits;
    if stamp & STAMP_MASK > clock & STAMP_MASK {
        stamp.wrapping_sub(1 << STAMP_BITS)
    } else {
        stamp
    }
}

/// What an echoed clock carries.
pub(crate) fn carried(stamp: u32) -> Carried {
    let scale = stamp & NO_SCALE;
    Carried {
        scale: (scale != NO_SCALE).then_some(scale as u8),
        sack: stamp & SACK_BIT != 0,
        ecn: stamp & ECN_BIT != 0,
    }
}

/// The options that the peer's SYN must have had. `offset` is that of the own timestamps.
pub(crate) fn options_of_syn(mss: u16, ack: &Options, offset: u32) -> (Options, bool) {
    let mut options = Options {
        mss: Some(mss),
        timestamps: ack.timestamps,
        ..Options::default()
    };
    let mut ecn = false;
    if let Some(ts) = ack.timestamps {
        let carried = carried(ts.tsecr.wrapping_sub(offset));
        options.window_scale = carried.scale;
        options.sack_permitted = carried.sack;
        ecn = carried.ecn;
    }
    (options, ecn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::Endpoint;

    const SECRET: [u8; 16] = [9; 16];

    fn flow(port: u16) -> Flow {
        Flow {
            local: Endpoint::new("10.0.0.1".parse().unwrap(), 80),
            remote: Endpoint::new("10.0.0.2".parse().unwrap(), port),
        }
    }

    // RFC 4987 3.6.
    #[test]
    fn a_cookie_tells_the_mss_for_a_minute_or_two() {
        for (mss, told) in [
            (100, 536),
            (536, 536),
            (1_299, 536),
            (1_459, 1440),
            (9_000, 1460),
        ] {
            let now = 59 * SECOND;
            let (cookie, said) = make(&SECRET, &flow(1), 77, mss, now);
            assert_eq!(said, told);
            assert_eq!(check(&SECRET, &flow(1), 77, cookie, now), Some(told));
            assert_eq!(
                check(&SECRET, &flow(1), 77, cookie, 119 * SECOND),
                Some(told)
            );
            assert_eq!(check(&SECRET, &flow(1), 77, cookie, 121 * SECOND), None);
            assert_eq!(check(&SECRET, &flow(2), 77, cookie, now), None);
            assert_eq!(check(&SECRET, &flow(1), 78, cookie, now), None);
            assert_eq!(check(&[8; 16], &flow(1), 77, cookie, now), None);
        }
    }

    #[test]
    fn guesses_are_rarely_right() {
        let hits = (0..2_000_000u32)
            .filter(|i| {
                check(
                    &SECRET,
                    &flow(1),
                    5,
                    i.wrapping_mul(0x9e37_79b9),
                    90 * SECOND,
                )
                .is_some()
            })
            .count();
        // Eight of 2^32 are right, so of so few most likely none.
        assert!(hits <= 1, "{hits}");
    }

    #[test]
    fn the_stamp_carries_options_and_is_never_ahead() {
        for ms in 0..200u64 {
            for bits in 0..64u32 {
                let c = carried(bits);
                let at = (10_000 + ms) * MILLISECOND;
                let s = stamp(c, at);
                assert_eq!(carried(s), c);
                let behind = ((10_000 + ms) as u32).wrapping_sub(s);
                assert!(behind < 128, "{behind}");
            }
        }
    }
}
