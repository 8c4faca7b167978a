//! The window (draft 4.2.3).

use super::{LEAST_WINDOW, Mode, Model, Phase, Sample, flag};
use crate::engine::rate::bytes_in;

/// Most that aggregation is allowed for: what the path carries in 100 ms (Linux).
const MOST_EXTRA: abi::Nanos = 100_000_000;
/// Units on their way through hosts that merge: sender, network, receiver.
const UNITS: u64 = 3;
const MILLISECOND: abi::Nanos = 1_000_000;
/// Largest unit.
const LARGEST_UNIT: u64 = 65_000;

impl Model {
    /// Draft 4.2.3.2 to 4.2.3.5, with the pace for the units' size.
    pub(super) fn set_window(&mut self, sample: &Sample, pace: u64) {
        let least = LEAST_WINDOW * sample.mss;
        if sample.acked > 0 && !self.conserve(sample) {
            let target = self.target(sample, pace);
            let grown = self.cwnd.saturating_add(sample.acked);
            if self.has(flag::FULL) {
                self.cwnd = grown.min(target);
            } else if self.cwnd < target {
                self.cwnd = grown;
            }
            self.cwnd = self.cwnd.max(least);
        }
        self.phase = sample.phase as u32;
        if self.mode() == Mode::ProbeRtt {
            self.cwnd = self.cwnd.min(least);
        }
    }

    /// Draft 4.2.3.4: in the first round of recovery no more leaves than arrives; afterwards the
    /// window from before comes back. Returns whether that is all for this acknowledgement.
    fn conserve(&mut self, sample: &Sample) -> bool {
        let (_, in_flight) = sample.in_flight;
        if sample.lost > 0 {
            self.cwnd = self.cwnd.saturating_sub(sample.lost).max(sample.mss);
        }
        let was_open = self.phase == Phase::Open as u32;
        let arrived = in_flight.saturating_add(sample.acked);
        if sample.phase == Phase::Recovery && self.phase != Phase::Recovery as u32 {
            self.set(flag::CONSERVE, true);
            self.next_round = sample.rate.delivered;
            self.cwnd = arrived;
        } else if sample.phase == Phase::Open && !was_open {
            self.set(flag::CONSERVE, false);
            self.cwnd = self.cwnd.max(self.prior_cwnd);
        }
        if self.has(flag::CONSERVE) {
            self.cwnd = self.cwnd.max(arrived);
            return true;
        }
        false
    }

    /// Draft 4.2.3.2: the model's window.
    fn target(&self, sample: &Sample, pace: u64) -> u32 {
        let product = self.product(self.cwnd_gain());
        let unit = bytes_in(pace, MILLISECOND).clamp(u64::from(2 * sample.mss), LARGEST_UNIT);
        let extra = if self.has(flag::FULL) {
            let most = bytes_in(self.bw.max(), MOST_EXTRA);
            self.extra.iter().copied().max().unwrap_or(0).min(most)
        } else {
            0
        };
        let target = product.saturating_add(UNITS * unit).saturating_add(extra);
        u32::try_from(target).unwrap_or(u32::MAX)
    }
}
