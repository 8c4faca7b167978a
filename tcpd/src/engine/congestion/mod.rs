//! Congestion control: how much may be in flight, behind one trait.
//!
//! The state lies in the record ([`Congestion`]): window, threshold and an area whose meaning is
//! each algorithm's own. An algorithm is therefore a unit struct, and choosing one is a number.
//! What is lost and what is in flight is not decided here but in [`super::recovery`].

pub mod bbr;
pub mod cubic;
pub mod hystart;
pub mod newreno;

use super::rate::RateSample;
use super::recovery::Phase;
use super::sent::Loss;
use super::seq::Offset;
use abi::Nanos;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `ssthresh` before the first loss: no limit.
pub const SSTHRESH_INFINITE: u32 = u32::MAX;

/// The algorithms, by the number in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Algorithm {
    /// RFC 5681 with byte counting.
    NewReno = 0,
    /// RFC 9438 with HyStart++ (RFC 9406).
    Cubic = 1,
    /// BBR version 3 (draft-ietf-ccwg-bbr).
    Bbr = 2,
}

impl Algorithm {
    /// From a record's number; anything unknown is NewReno.
    #[must_use]
    pub const fn from_word(word: u32) -> Self {
        match word {
            1 => Self::Cubic,
            2 => Self::Bbr,
            _ => Self::NewReno,
        }
    }

    /// By the name that `TCP_CONGESTION` takes; "reno" is Linux's name for NewReno.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "newreno" | "reno" => Some(Self::NewReno),
            "cubic" => Some(Self::Cubic),
            "bbr" => Some(Self::Bbr),
            _ => None,
        }
    }

    /// The implementation.
    #[must_use]
    pub fn control(self) -> &'static dyn CongestionControl {
        match self {
            Self::NewReno => &newreno::NewReno,
            Self::Cubic => &cubic::Cubic,
            Self::Bbr => &bbr::Bbr,
        }
    }
}

/// An acknowledgement of new data outside of fast recovery. What counts is bytes, not
/// acknowledgements, so that splitting them gains a peer nothing (RFC 3465 3.1).
#[derive(Debug, Clone, Copy)]
pub struct AckEvent {
    /// Now.
    pub now: Nanos,
    /// Bytes that it newly delivered.
    pub acked: u32,
    /// A measurement, if the acknowledgement gave one.
    pub rtt: Option<Nanos>,
    /// Smoothed round-trip time.
    pub srtt: Nanos,
    /// Payload of a full segment.
    pub mss: u32,
    /// Bytes in flight before the acknowledgement.
    pub in_flight: u32,
    /// Oldest offset not acknowledged now.
    pub una: Offset,
    /// Next offset to send.
    pub nxt: Offset,
    /// The window was made use of ([`Congestion::may_grow`]): if not, it must not grow.
    pub may_grow: bool,
}

/// An acknowledgement as a model sees it. Bytes and bytes a second.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Now.
    pub now: Nanos,
    /// The delivery rate.
    pub rate: RateSample,
    /// Newly delivered.
    pub acked: u32,
    /// Newly found lost.
    pub lost: u32,
    /// In flight before and after.
    pub in_flight: (u32, u32),
    /// Round-trip time measured, if there is one.
    pub rtt: Option<Nanos>,
    /// Smoothed round-trip time.
    pub srtt: Nanos,
    /// Payload of a full segment.
    pub mss: u32,
    /// Where loss recovery is.
    pub phase: Phase,
    /// The window held something back in this round.
    pub cwnd_limited: bool,
    /// Selective acknowledgements show more than one loss a round.
    pub sack: bool,
}

/// An algorithm. It may change `cwnd`, `ssthresh` and its area, nothing else.
pub trait CongestionControl: Sync {
    /// The name that `TCP_CONGESTION` shows.
    fn name(&self) -> &'static str;

    /// A connection begins, or changes to this algorithm: sets up the area.
    fn init(&self, cc: &mut Congestion);

    /// New data was acknowledged.
    fn on_ack(&self, cc: &mut Congestion, event: &AckEvent);

    /// Loss: the threshold to go on from (RFC 5681 equation 4), with `in_flight` bytes out.
    fn on_loss(&self, cc: &mut Congestion, now: Nanos, in_flight: u32, mss: u32) -> u32;

    /// The peer echoes congestion that the network marked (RFC 3168 6.1.2), at most once for each
    /// window of data, and nothing was lost. As for a loss unless the algorithm knows better
    /// (RFC 9438 4.6: CUBIC does the same).
    fn on_ecn(&self, cc: &mut Congestion, now: Nanos, in_flight: u32, mss: u32) {
        cc.ssthresh = self.on_loss(cc, now, in_flight, mss);
        cc.cwnd = cc.cwnd.min(cc.ssthresh);
        self.on_recovered(cc, now);
    }

    /// Recovery is over; `cwnd` is at `ssthresh`.
    fn on_recovered(&self, cc: &mut Congestion, now: Nanos);

    /// A retransmission timeout; `cwnd` is about to be one segment.
    fn on_timeout(&self, cc: &mut Congestion, now: Nanos);

    /// The last [`Self::on_loss`], and the timeout after it if there was one, were a mistake
    /// (RFC 4015): `cwnd` and `ssthresh` are restored by the caller.
    fn on_undo(&self, _cc: &mut Congestion, _now: Nanos) {}

    /// A piece was found to be lost, of an algorithm with a model: after [`Self::on_loss`] or
    /// [`Self::on_timeout`], if it began an episode.
    fn on_lost(&self, _cc: &mut Congestion, _now: Nanos, _loss: &Loss) {}

    /// Data leaves again after nothing was in flight; of an algorithm with a model, only if the
    /// application had nothing to send meanwhile.
    fn on_idle(&self, _cc: &mut Congestion, _now: Nanos) {}

    /// Whether the window follows from a model of the path rather than from losses: then
    /// [`Self::on_sample`] sets it after each acknowledgement, in whatever phase.
    fn has_model(&self) -> bool {
        false
    }

    /// An acknowledgement, of an algorithm with a model. Returns true if what is sent now says
    /// nothing about the path, as little as what an application holds back.
    fn on_sample(&self, _cc: &mut Congestion, _sample: &Sample) -> bool {
        false
    }
}

/// A connection's congestion state. 304 bytes of a record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Congestion {
    /// See [`Algorithm`].
    pub algorithm: u32,
    /// Congestion window in bytes.
    pub cwnd: u32,
    /// Slow-start threshold in bytes.
    pub ssthresh: u32,
    /// Most bytes in flight during the present round.
    pub max_in_flight: u32,
    /// 1 if the congestion window held something back during the present round.
    pub cwnd_limited: u32,
    /// 1 if [`Self::delivery_rate`] was measured while the application had nothing to send.
    pub rate_app_limited: u32,
    /// Bytes a second at which data leaves; 0: as the windows allow.
    pub pacing_rate: u64,
    /// Latest delivery rate measured, in bytes a second; 0: none.
    pub delivery_rate: u64,
    /// The present round ends when this offset is acknowledged.
    pub round_end: Offset,
    /// The algorithm's own.
    pub area: [u64; 32],
}

impl Congestion {
    /// The algorithm.
    #[must_use]
    pub fn control(&self) -> &'static dyn CongestionControl {
        Algorithm::from_word(self.algorithm).control()
    }

    /// Chooses `algorithm`; window and threshold stay.
    pub fn choose(&mut self, algorithm: Algorithm) {
        self.algorithm = algorithm as u32;
        self.area = [0; 32];
        self.pacing_rate = 0;
        algorithm.control().init(self);
    }

    /// The handshake is over: the initial window (RFC 6928: ten segments, at most 14,600 bytes
    /// or two segments).
    pub fn start(&mut self, mss: u32, segments: u32) {
        self.cwnd = initial_window(mss, segments);
        self.ssthresh = SSTHRESH_INFINITE;
        self.round_end = 0;
    }

    /// Whether `cwnd` is below the threshold.
    #[must_use]
    pub const fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Output notes what is in flight, and whether the window held more back.
    pub fn note_output(&mut self, una: Offset, next: Offset, in_flight: u32, limited: bool) {
        if una >= self.round_end {
            self.round_end = next;
            self.max_in_flight = in_flight;
            self.cwnd_limited = u32::from(limited);
        } else {
            self.max_in_flight = self.max_in_flight.max(in_flight);
            self.cwnd_limited |= u32::from(limited);
        }
    }

    /// RFC 7661 1: a window that was not used must not grow. In slow start twice what was in
    /// flight is allowed, as the next flight may use it.
    #[must_use]
    pub const fn may_grow(&self) -> bool {
        self.cwnd_limited != 0
            || (self.in_slow_start() && self.cwnd < self.max_in_flight.saturating_mul(2))
    }

    /// What of the window was in use when a loss of `in_flight` bytes' flight was noticed: all of
    /// it if it held something back, and else the most of this round. RFC 7661 4.4.1; the flight
    /// alone (RFC 5681 equation 4) may be the rest of a burst, and `cwnd` alone was never tried.
    #[must_use]
    pub fn used(&self, in_flight: u32) -> u32 {
        if self.cwnd_limited != 0 {
            self.cwnd
        } else {
            in_flight.max(self.max_in_flight).min(self.cwnd)
        }
    }

    /// RFC 5681 4.1: after an idle period the window restarts, halved for each of the `timeouts`
    /// that passed and not below the initial window; slow start brings it back to three quarters
    /// of what it was (RFC 2861 3.1, as Linux).
    pub fn restart_after_idle(&mut self, mss: u32, segments: u32, timeouts: u64) {
        let least = initial_window(mss, segments);
        if self.cwnd <= least {
            return;
        }
        self.ssthresh = self.ssthresh.max(self.cwnd / 4 * 3);
        let halvings = u32::try_from(timeouts).unwrap_or(u32::MAX);
        self.cwnd = self.cwnd.checked_shr(halvings).unwrap_or(0).max(least);
    }
}

/// RFC 6928 2.
fn initial_window(mss: u32, segments: u32) -> u32 {
    (segments * mss).min((1_460 * segments).max(2 * mss))
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 6928 2.
    #[test]
    fn the_initial_window_is_ten_segments() {
        assert_eq!(initial_window(1448, 10), 14_480);
        assert_eq!(initial_window(9000, 10), 18_000);
        assert_eq!(initial_window(536, 10), 5_360);
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut cc = Congestion::default();
        cc.start(1000, 10);
        cc.note_output(10, 3010, 3000, false);
        assert!(!cc.may_grow());
        cc.note_output(10, 9010, 9000, false);
        assert!(cc.may_grow());
        cc.note_output(9010, 10_010, 1000, true);
        assert!(cc.may_grow());
    }
}
