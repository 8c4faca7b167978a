//! How much goes down in one unit: large units are cheap, but each is a burst on the wire.
//!
//! As Linux's `tcp_tso_autosize`: about a millisecond of what the connection sends, so that a
//! short queue on the way is not overrun by what one acknowledgement set free; never less than
//! two segments, which is what one acknowledgement of a receiver that delays them is for; and
//! as much as the device takes where the round trip is too short for bursts to matter.

use crate::engine::config::{Config, MILLISECOND};
use crate::engine::conn::Conn;
use crate::engine::seq::clamp;

/// Each time the round trip is longer by this, half as much is added for its shortness. Linux's
/// `tcp_tso_rtt_log` of 9, in microseconds.
const SHORT: u64 = 512_000;

/// Payload of the largest unit, in whole segments.
pub(super) fn unit_size(conn: &Conn, config: &Config, mss: u32) -> u32 {
    if conn.tcb.is_urgent() {
        // The urgent pointer counts from its segment's beginning: no merged ones.
        return mss;
    }
    let full = config.max_gso / mss * mss;
    if full < 2 * mss {
        return mss;
    }
    let tcb = &conn.tcb;
    let rtt = &tcb.rtt;
    if rtt.srtt == 0 {
        return full;
    }
    // Twice the rate while the window doubles, a fifth more afterwards (Linux's pacing ratios).
    let slow_start = tcb.cc.cwnd < tcb.cc.ssthresh / 2;
    let cwnd = u64::from(tcb.cc.cwnd) * if slow_start { 10 } else { 6 } / 5;
    let millisecond = match tcb.pacing_rate() {
        0 => cwnd.saturating_mul(MILLISECOND) / rtt.srtt,
        rate => rate / 1_000,
    };
    let halvings = u32::try_from(rtt.min_rtt / SHORT).unwrap_or(u32::MAX);
    let for_shortness = full.checked_shr(halvings).unwrap_or(0);
    let bytes = clamp(millisecond).saturating_add(for_shortness);
    (bytes / mss * mss).clamp(2 * mss, full)
}
