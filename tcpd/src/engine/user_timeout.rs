//! How long data may go unacknowledged: `TCP_USER_TIMEOUT`, and the option by which ends tell
//! each other (RFC 5482).
//!
//! The option is off unless configured, as RFC 5482 3.1 wants ("ENABLED ... defaults to false").
//! Then the application's timeout is told to the peer, in the SYN or with the next segment after
//! it was set; and what the peer tells is adopted, within limits, where the application set none
//! (CHANGEABLE).

use super::config::{MILLISECOND, SECOND};
use super::conn::{Conn, Ctx};
use super::segment_in::Segment;
use super::tcb::Tcb;
use abi::Nanos;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// RFC 5482 3.1: L_LIMIT and U_LIMIT, the least and the most that is adopted. A hundred seconds
/// is the least that RFC 1122 4.2.3.5 allows for giving up.
const LIMITS: core::ops::RangeInclusive<Nanos> = 100 * SECOND..=3_600 * SECOND;

/// The option's granularity bit: minutes.
const MINUTES: u16 = 0x8000;

/// A connection's part. 8 bytes of a record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UserTimeout {
    /// What the peer told last, as on the wire; 0 for nothing.
    pub peer: u16,
    /// 1 if the peer is to be told with the next segment.
    pub tell: u16,
    /// Zero.
    pub reserved: u32,
}

/// The option's value for a time, rounded up.
fn to_wire(ms: u32) -> u16 {
    let seconds = ms.div_ceil(1_000);
    match u16::try_from(seconds) {
        Ok(seconds) if seconds < MINUTES => seconds,
        _ => u16::try_from(seconds.div_ceil(60).min(u32::from(MINUTES - 1))).unwrap_or(0) | MINUTES,
    }
}

fn from_wire(value: u16) -> Nanos {
    let unit = if value & MINUTES == 0 { 1 } else { 60 };
    Nanos::from(value & !MINUTES) * unit * SECOND
}

impl Tcb {
    /// The time after which the connection is given up if nothing is acknowledged; `None`: it
    /// goes by the number of retransmissions.
    #[must_use]
    pub fn user_timeout(&self) -> Option<Nanos> {
        match (self.opts.user_timeout_ms, self.uto.peer) {
            (0, 0) => None,
            // RFC 5482 3.1: USER_TIMEOUT = min(U_LIMIT, max(ADV_UTO, REMOTE_UTO, L_LIMIT)).
            (0, peer) => Some(from_wire(peer).clamp(*LIMITS.start(), *LIMITS.end())),
            (own, _) => Some(Nanos::from(own) * MILLISECOND),
        }
    }

    /// The option for a SYN: only what the application has set.
    pub(crate) fn user_timeout_in_syn(&self, enabled: bool) -> Option<u16> {
        (enabled && self.opts.user_timeout_ms != 0).then(|| to_wire(self.opts.user_timeout_ms))
    }

    /// The option for the next segment, if it has to be told.
    pub(crate) fn take_user_timeout(&mut self) -> Option<u16> {
        (core::mem::take(&mut self.uto.tell) != 0).then(|| to_wire(self.opts.user_timeout_ms))
    }
}

impl Conn {
    /// The application set its timeout: RFC 5482 3.3, an established connection tells it with the
    /// next segment.
    pub(super) fn on_user_timeout_set(&mut self, ctx: &Ctx<'_>) {
        let tcb = &mut self.tcb;
        let tell = ctx.config.user_timeout_option
            && tcb.state().is_synchronized()
            && tcb.opts.user_timeout_ms != 0;
        tcb.uto.tell = u16::from(tell);
    }

    /// RFC 5482 3.2: the peer's. A time of zero is no time (3.1).
    pub(super) fn note_user_timeout(&mut self, segment: &Segment<'_>, ctx: &Ctx<'_>) {
        if let Some(value) = segment.repr.options.user_timeout
            && ctx.config.user_timeout_option
            && value & !MINUTES != 0
        {
            self.tcb.uto.peer = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 5482 3.1 and figure 1.
    #[test]
    fn seconds_or_minutes() {
        assert_eq!(to_wire(1), 1);
        assert_eq!(to_wire(32_767_000), 32_767);
        assert_eq!(to_wire(32_768_000), MINUTES | 547);
        assert_eq!(to_wire(u32::MAX) & MINUTES, MINUTES);
        assert_eq!(from_wire(30), 30 * SECOND);
        assert_eq!(from_wire(MINUTES | 2), 120 * SECOND);
        assert_eq!(size_of::<UserTimeout>(), 8);
    }
}
