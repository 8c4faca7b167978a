//! BBR version 1 (draft-cardwell-iccrg-bbr-congestion-control-00): the window and the pace follow
//! from a model of the path, the largest delivery rate and the least round-trip time seen lately.
//!
//! ```text
//!   STARTUP --- the rate grows no more ---> DRAIN --- queue gone ---> PROBE_BW  5/4, 3/4, 1 ...
//!      ^                                                                 |  ^
//!      +------------------------------- PROBE_RTT <--- 10 s without -----+  |
//!                                           +----- a new least RTT ---------+
//! ```
//!
//! Losses change nothing but the first round of recovery (packet conservation, draft 4.2.3.4);
//! marks (ECN) are not looked at, which is why version 1 does not answer them. What the later
//! drafts add (bounds learned from loss and marks) is not here.
//!
//! All of the model is in the record, so a restore goes on with the same rate, round-trip time and
//! phase. `delivered` goes on too ([`crate::engine::rate`]); the first samples after a restore are
//! missing, which ends no round early.

mod filter;
mod phases;
#[cfg(test)]
mod tests;
mod window;

use super::{AckEvent, Congestion, CongestionControl, SSTHRESH_INFINITE, Sample};
use crate::engine::recovery::Phase;
use abi::Nanos;
use filter::RoundMax;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The algorithm.
#[derive(Debug, Clone, Copy)]
pub struct Bbr;

/// Gains are in units of 1/256.
const UNIT: u64 = 256;
/// Draft 4.3.2.1: 2/ln 2, the least that doubles what is delivered each round.
const HIGH_GAIN: u64 = 739;
/// Its inverse empties within a round what that has built up.
const DRAIN_GAIN: u64 = 88;
/// Twice the bandwidth-delay product: the peer may hold acknowledgements back.
const CWND_GAIN: u64 = 2 * UNIT;
/// Draft 4.3.4.2, with the cycle's phases each about a round-trip time long.
const CYCLE: [u64; 8] = [320, 192, UNIT, UNIT, UNIT, UNIT, UNIT, UNIT];
/// Draft 4.1.2.3: how long a least round-trip time is believed.
const MIN_RTT_WINDOW: Nanos = 10_000_000_000;
/// How long PROBE_RTT lasts.
const PROBE_RTT_TIME: Nanos = 200_000_000;
/// Window during it, and least of all, in segments.
const LEAST_WINDOW: u32 = 4;
/// What is sent at less than the estimate, in percent, so that a queue empties (Linux).
const MARGIN: u64 = 1;

/// Where in the picture above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Mode {
    Startup = 0,
    Drain = 1,
    ProbeBw = 2,
    ProbeRtt = 3,
}

/// Bits of [`Model::flags`].
mod flag {
    /// The rate has stopped to grow once: the pipe is full.
    pub(super) const FULL: u32 = 1;
    /// Data leaves after a pause.
    pub(super) const IDLE: u32 = 2;
    /// The first round of recovery.
    pub(super) const CONSERVE: u32 = 4;
    /// A round has passed with PROBE_RTT's window.
    pub(super) const ROUND_DONE: u32 = 8;
    /// This acknowledgement begins a round.
    pub(super) const ROUND_START: u32 = 16;
}

/// The area: 192 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Model {
    /// Largest delivery rates.
    bw: RoundMax,
    /// Least round-trip time; 0: none.
    min_rtt: Nanos,
    /// When it was measured.
    min_rtt_at: Nanos,
    /// When PROBE_RTT may end; 0: its window is not reached.
    probe_rtt_end: Nanos,
    /// The round ends when something is acknowledged that left after so much was delivered.
    next_round: u64,
    /// Rounds since the beginning.
    round: u64,
    /// The rate that must grow by a quarter for STARTUP to go on.
    full_bw: u64,
    /// When the phase of the cycle began.
    cycle_at: Nanos,
    /// Most that was acknowledged beyond the estimate, in the last five rounds and those before.
    extra: [u64; 2],
    /// Acknowledgements are compared with the estimate since then ...
    extra_at: Nanos,
    /// ... and so much was acknowledged.
    extra_acked: u64,
    /// Window, as no other part of the engine may change it.
    cwnd: u32,
    /// Window before recovery or PROBE_RTT.
    prior_cwnd: u32,
    /// [`Mode`].
    mode: u32,
    /// Index into [`CYCLE`].
    cycle: u32,
    /// Rounds without growth.
    full_rounds: u32,
    /// See [`flag`].
    flags: u32,
    /// Rounds in `extra`'s first entry.
    extra_rounds: u32,
    /// [`Phase`] at the last acknowledgement.
    phase: u32,
    reserved: [u64; 3],
}

fn model(cc: &mut Congestion) -> &mut Model {
    zerocopy::transmute_mut!(&mut cc.area)
}

impl Model {
    const fn mode(&self) -> Mode {
        match self.mode {
            1 => Mode::Drain,
            2 => Mode::ProbeBw,
            3 => Mode::ProbeRtt,
            _ => Mode::Startup,
        }
    }

    const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn set(&mut self, flag: u32, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    /// The pace's gain.
    fn pacing_gain(&self) -> u64 {
        match self.mode() {
            Mode::Startup => HIGH_GAIN,
            Mode::Drain => DRAIN_GAIN,
            Mode::ProbeBw => CYCLE.get(self.cycle as usize).copied().unwrap_or(UNIT),
            Mode::ProbeRtt => UNIT,
        }
    }

    /// The window's gain.
    fn cwnd_gain(&self) -> u64 {
        match self.mode() {
            Mode::Startup | Mode::Drain => HIGH_GAIN,
            Mode::ProbeBw => CWND_GAIN,
            Mode::ProbeRtt => UNIT,
        }
    }

    /// The window before something makes it smaller for a while.
    fn save_window(&mut self) {
        let open = self.phase == Phase::Open as u32 && self.mode() != Mode::ProbeRtt;
        self.prior_cwnd = if open {
            self.cwnd
        } else {
            self.prior_cwnd.max(self.cwnd)
        };
    }
}

impl CongestionControl for Bbr {
    fn name(&self) -> &'static str {
        "bbr"
    }

    fn init(&self, cc: &mut Congestion) {
        cc.area = Default::default();
        // Losses are no limit.
        cc.ssthresh = SSTHRESH_INFINITE;
    }

    fn on_ack(&self, _cc: &mut Congestion, _event: &AckEvent) {}

    fn on_loss(&self, cc: &mut Congestion, _now: Nanos, _in_flight: u32, _mss: u32) -> u32 {
        model(cc).save_window();
        SSTHRESH_INFINITE
    }

    fn on_ecn(&self, _cc: &mut Congestion, _now: Nanos, _in_flight: u32, _mss: u32) {}

    fn on_recovered(&self, _cc: &mut Congestion, _now: Nanos) {}

    fn on_timeout(&self, cc: &mut Congestion, _now: Nanos) {
        let m = model(cc);
        m.save_window();
        // The caller's window, until acknowledgements come.
        m.cwnd = 0;
        m.full_bw = 0;
        m.phase = Phase::Loss as u32;
    }

    fn on_undo(&self, cc: &mut Congestion, _now: Nanos) {
        let m = model(cc);
        m.cwnd = m.cwnd.max(m.prior_cwnd);
        m.full_bw = 0;
        m.full_rounds = 0;
    }

    fn on_idle(&self, cc: &mut Congestion, _now: Nanos) {
        // Draft 4.2.1: after a pause at the estimated rate, whatever the phase.
        let m = model(cc);
        m.set(flag::IDLE, true);
        if m.mode() == Mode::ProbeBw {
            let rate = m.bw.max();
            cc.set_pace(rate, UNIT);
        }
    }

    fn has_model(&self) -> bool {
        true
    }

    fn on_sample(&self, cc: &mut Congestion, sample: &Sample) -> bool {
        let before = cc.cwnd;
        let m = model(cc);
        if m.cwnd == 0 {
            m.cwnd = before;
        }
        m.on_rate(sample);
        m.on_aggregation(sample);
        m.advance_cycle(sample);
        m.check_full_pipe(sample);
        m.check_drain(sample);
        let quiet = m.check_probe_rtt(sample);
        let (rate, gain, full) = (m.bw.max(), m.pacing_gain(), m.has(flag::FULL));
        if rate > 0 {
            let pace = paced(rate, gain);
            if full || pace > cc.pacing_rate {
                cc.set_pace(rate, gain);
            }
        }
        if cc.pacing_rate == 0 && sample.srtt > 0 {
            // Draft 4.2.1: the initial window in a round-trip time.
            let rate = crate::engine::rate::rate_of(u64::from(before), sample.srtt);
            cc.set_pace(rate, HIGH_GAIN);
        }
        let pace = cc.pacing_rate;
        let m = model(cc);
        m.set_window(sample, pace);
        cc.cwnd = m.cwnd;
        quiet
    }
}

/// `rate` times `gain`, less the margin.
fn paced(rate: u64, gain: u64) -> u64 {
    let pace = u128::from(rate) * u128::from(gain * (100 - MARGIN)) / u128::from(UNIT * 100);
    u64::try_from(pace).unwrap_or(u64::MAX).max(1)
}

impl Congestion {
    fn set_pace(&mut self, rate: u64, gain: u64) {
        if rate > 0 {
            self.pacing_rate = paced(rate, gain);
        }
    }
}
