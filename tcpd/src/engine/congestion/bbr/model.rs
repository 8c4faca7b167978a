//! What BBR knows: the record's area, the states and their gains.

use super::super::Congestion;
use super::window::{DRAIN_PACING_GAIN, STARTUP_PACING_GAIN, UNIT};
use crate::engine::recovery::Phase;
use abi::Nanos;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A bound in bytes that is not set.
pub(super) const NO_BOUND: u32 = u32::MAX;

/// The states (draft 5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum State {
    Startup = 0,
    Drain = 1,
    Down = 2,
    Cruise = 3,
    Refill = 4,
    Up = 5,
    ProbeRtt = 6,
}

impl State {
    /// Draft 5.3.3.6, IsInAProbeBWState.
    pub(super) const fn is_probe_bw(self) -> bool {
        matches!(self, Self::Down | Self::Cruise | Self::Refill | Self::Up)
    }

    /// Draft 5.3.3.6, IsProbingBW.
    pub(super) const fn is_probing(self) -> bool {
        matches!(self, Self::Startup | Self::Refill | Self::Up)
    }
}

/// What acknowledgements say about the last probe (draft 2.14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum AckPhase {
    Init = 0,
    Refilling = 1,
    ProbeStarting = 2,
    ProbeFeedback = 3,
    ProbeStopping = 4,
}

/// Bits of [`Model::flags`]; the draft's names.
pub(super) mod flag {
    pub(in super::super) const FULL_BW_REACHED: u32 = 1;
    pub(in super::super) const FULL_BW_NOW: u32 = 2;
    pub(in super::super) const IDLE_RESTART: u32 = 4;
    pub(in super::super) const ROUND_START: u32 = 8;
    pub(in super::super) const LOSS_ROUND_START: u32 = 16;
    pub(in super::super) const LOSS_IN_ROUND: u32 = 32;
    pub(in super::super) const BW_PROBE_SAMPLE: u32 = 64;
    pub(in super::super) const PREV_PROBE_TOO_HIGH: u32 = 128;
    pub(in super::super) const PREV_PROBE_PRECAUTIONARY: u32 = 256;
    pub(in super::super) const PROBE_RTT_EXPIRED: u32 = 512;
    pub(in super::super) const PROBE_RTT_ROUND_DONE: u32 = 1024;
}

/// The area: 256 bytes. Rates are bytes a second, amounts bytes; the draft's names, `_at` for its
/// stamps. Of times, 0 is never.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Model {
    /// The largest rate of the present and of the previous cycle.
    pub(super) max_bw_filter: [u64; 2],
    /// `u64::MAX`: not set.
    pub(super) bw_shortterm: u64,
    pub(super) bw_latest: u64,
    pub(super) bw: u64,
    pub(super) full_bw: u64,
    pub(super) undo_bw_shortterm: u64,
    /// 0: none measured.
    pub(super) min_rtt: Nanos,
    pub(super) min_rtt_at: Nanos,
    /// 0: none measured.
    pub(super) probe_rtt_min_delay: Nanos,
    pub(super) probe_rtt_min_at: Nanos,
    /// 0: its window is not reached.
    pub(super) probe_rtt_done_at: Nanos,
    pub(super) next_round_delivered: u64,
    pub(super) loss_round_delivered: u64,
    /// Delivered in all at the last acknowledgement.
    pub(super) delivered: u64,
    pub(super) cycle_at: Nanos,
    pub(super) bw_probe_wait: Nanos,
    pub(super) extra_at: Nanos,
    pub(super) extra_delivered: u64,
    /// Largest of the last five rounds and of the five before.
    pub(super) extra_filter: [u32; 2],
    /// Rounds in its first entry.
    pub(super) extra_rounds: u32,
    pub(super) inflight_longterm: u32,
    pub(super) inflight_shortterm: u32,
    pub(super) inflight_latest: u32,
    pub(super) undo_inflight_longterm: u32,
    pub(super) undo_inflight_shortterm: u32,
    /// A [`State`]; `u32::MAX`: none.
    pub(super) undo_state: u32,
    pub(super) bw_probe_up_acked: u32,
    pub(super) probe_up_acked_per_inc: u32,
    pub(super) bw_probe_up_rounds: u32,
    pub(super) rounds_since_probe_up: u32,
    pub(super) round_count: u32,
    pub(super) drain_start_round: u32,
    pub(super) full_bw_count: u32,
    /// Ranges lost apart from each other in this round.
    pub(super) loss_ranges: u32,
    /// Window, as no other part of the engine may change it; 0: the engine's.
    pub(super) cwnd: u32,
    /// The last that was not made smaller by recovery or ProbeRtt.
    pub(super) prior_cwnd: u32,
    /// The first window; 0: not seen yet.
    pub(super) initial_cwnd: u32,
    /// Delivered since the beginning, up to the initial window.
    pub(super) delivered_first: u32,
    /// [`State`].
    pub(super) state: u32,
    /// [`AckPhase`].
    pub(super) ack_phase: u32,
    /// See [`flag`].
    pub(super) flags: u32,
    /// [`Phase`] at the last acknowledgement.
    pub(super) phase: u32,
    /// Payload of a full segment then.
    pub(super) mss: u32,
}

pub(super) fn model(cc: &mut Congestion) -> &mut Model {
    zerocopy::transmute_mut!(&mut cc.area)
}

impl Model {
    /// Draft 5.2.1, OnInit.
    pub(super) fn init(&mut self) {
        self.bw_shortterm = u64::MAX;
        self.inflight_longterm = NO_BOUND;
        self.inflight_shortterm = NO_BOUND;
        self.probe_up_acked_per_inc = u32::MAX;
        self.undo_state = u32::MAX;
        self.undo_bw_shortterm = 0;
    }

    pub(super) const fn state(&self) -> State {
        match self.state {
            1 => State::Drain,
            2 => State::Down,
            3 => State::Cruise,
            4 => State::Refill,
            5 => State::Up,
            6 => State::ProbeRtt,
            _ => State::Startup,
        }
    }

    pub(super) fn enter(&mut self, state: State) {
        self.state = state as u32;
    }

    pub(super) fn is_phase(&self, phase: AckPhase) -> bool {
        self.ack_phase == phase as u32
    }

    pub(super) const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn set(&mut self, flag: u32, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    /// Draft 5.6.1.
    pub(super) fn pacing_gain(&self) -> u64 {
        match self.state() {
            State::Startup => STARTUP_PACING_GAIN,
            State::Drain => DRAIN_PACING_GAIN,
            State::Down => UNIT * 9 / 10,
            State::Up => UNIT * 5 / 4,
            State::Cruise | State::Refill | State::ProbeRtt => UNIT,
        }
    }

    /// Draft 5.6.1.
    pub(super) fn cwnd_gain(&self) -> u64 {
        match self.state() {
            State::Up => UNIT * 9 / 4,
            State::ProbeRtt => UNIT / 2,
            _ => UNIT * 2,
        }
    }

    /// Draft 5.6.4.4, SaveCwnd.
    pub(super) fn save_window(&mut self) {
        let untouched = self.phase == Phase::Open as u32 && self.state() != State::ProbeRtt;
        self.prior_cwnd = if untouched {
            self.cwnd
        } else {
            self.prior_cwnd.max(self.cwnd)
        };
    }

    /// Draft 5.6.4.4, RestoreCwnd.
    pub(super) fn restore_window(&mut self) {
        self.cwnd = self.cwnd.max(self.prior_cwnd);
    }
}
