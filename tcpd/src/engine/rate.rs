//! Delivery-rate sampling (draft-cheng-iccrg-delivery-rate-estimation) and pacing.
//!
//! Each unit in the send log carries what was delivered when it left; the acknowledgement of the
//! newest one then tells how much arrived in how long. "Delivered" is `snd_una` plus what is
//! selectively acknowledged above it, so that a restore knows it.
//!
//! Pacing: after a unit the next one waits until the first has left at the pacing rate. The
//! engine's own timer ([`super::timers::Timer::Pace`]) wakes it; there is no queue below that paces.
//!
//! All here is volatile ([`Pacer`] in `Conn.rt`): after a restore, samples begin with what is sent
//! from then on, and one unit may leave at once.

use super::congestion::Sample;
use super::conn::Conn;
use super::recovery::Acked;
use super::sent::Delivery;
use super::seq::clamp;
use super::tcb::Tcb;
use super::timers::Timer;
use abi::Nanos;

/// One second.
const SECOND: u128 = 1_000_000_000;

/// What of it is kept with a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pacer {
    /// What leaves before so much is delivered was held back by the application; 0: nothing.
    limited_until: u64,
    /// When the next unit may leave.
    next_at: Nanos,
}

/// What an acknowledgement says about the path.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateSample {
    /// Bytes a second; 0: no sample.
    pub rate: u64,
    /// What was delivered in all when the newest unit that it covers left.
    pub prior_delivered: Option<u64>,
    /// The sample was taken while the application had nothing to send: the path may do more.
    pub app_limited: bool,
    /// Delivered in all now.
    pub delivered: u64,
    /// In flight when the newest unit that it covers left, that included; 0: not known.
    pub in_flight: u32,
    /// Lost since then.
    pub lost: u64,
}

/// Bytes that `rate` bytes a second are in `time`.
pub(crate) fn bytes_in(rate: u64, time: Nanos) -> u64 {
    u64::try_from(u128::from(rate) * u128::from(time) / SECOND).unwrap_or(u64::MAX)
}

/// Bytes a second that `bytes` in `time` are.
pub(crate) fn rate_of(bytes: u64, time: Nanos) -> u64 {
    u64::try_from(u128::from(bytes) * SECOND / u128::from(time.max(1))).unwrap_or(u64::MAX)
}

impl Tcb {
    /// Bytes a second at which data leaves: what congestion control says, and at most what the
    /// application allows (`SO_MAX_PACING_RATE`), with or without a model; 0: as the windows allow.
    pub(crate) fn pacing_rate(&self) -> u64 {
        match (self.cc.pacing_rate, self.opts.max_pacing_rate) {
            (0, most) => most,
            (rate, 0) => rate,
            (rate, most) => rate.min(most),
        }
    }
}

impl Conn {
    /// Before `len` bytes leave. Draft 3.2: with nothing in flight the sampling interval begins now.
    pub(crate) fn stamp_sending(&mut self, now: Nanos, len: u64) {
        let lost = self.rt.sent.lost_ever();
        let sacked = self.rt.sent.sacked();
        self.rt.sent.watch_losses(self.tcb.cc.control().has_model());
        let stamp = &mut self.rt.sent.stamp;
        stamp.in_flight = self.tcb.pipe().saturating_add(clamp(len));
        stamp.lost = lost;
        if self.tcb.flight() == 0 || stamp.delivered_at == 0 {
            stamp.delivered = stamp.delivered.max(self.tcb.snd_una + sacked);
            stamp.delivered_at = now.max(1);
            stamp.first_sent_at = now.max(1);
            // What came before was the application's pause.
            let pacer = &mut self.rt.pacer;
            pacer.limited_until = pacer.limited_until.max(stamp.delivered);
        }
        stamp.app_limited = self.rt.pacer.limited_until != 0;
    }

    /// Draft 3.4: there was room for more than the application had.
    pub(crate) fn mark_app_limited(&mut self) {
        let out = u64::from(self.tcb.pipe());
        self.rt.pacer.limited_until = (self.rt.sent.stamp.delivered + out).max(1);
    }

    /// Draft 3.3, for one acknowledgement; `snd_una` and the log are already moved.
    pub(crate) fn sample_rate(&mut self, delivery: &Delivery, now: Nanos) -> RateSample {
        let sacked = self.rt.sent.sacked();
        let stamp = &mut self.rt.sent.stamp;
        let mut sample = RateSample::default();
        if delivery.bytes == 0 {
            sample.delivered = stamp.delivered.max(self.tcb.snd_una);
            return sample;
        }
        let delivered = self.tcb.snd_una + sacked;
        stamp.delivered = stamp.delivered.max(delivered);
        stamp.delivered_at = now.max(1);
        sample.delivered = stamp.delivered;
        if stamp.delivered > self.rt.pacer.limited_until {
            self.rt.pacer.limited_until = 0;
        }
        let Some(unit) = delivery.newest else {
            return sample;
        };
        let then = unit.stamp;
        if then.delivered_at == 0 {
            // From before a restore.
            return sample;
        }
        stamp.first_sent_at = unit.sent_at.max(1);
        sample.prior_delivered = Some(then.delivered);
        sample.in_flight = then.in_flight;
        // Until it is known what this acknowledgement shows to be lost.
        sample.lost = then.lost;
        sample.app_limited = then.app_limited;
        // The slower of the two is the bottleneck: acknowledgements that come in bunches, or
        // bursts that are sent, show no rate.
        let sending = unit.sent_at.saturating_sub(then.first_sent_at);
        let arriving = now.saturating_sub(then.delivered_at);
        let interval = sending.max(arriving);
        if interval < self.tcb.rtt.min_rtt.max(1) {
            return sample;
        }
        sample.rate = rate_of(stamp.delivered.saturating_sub(then.delivered), interval);
        let cc = &mut self.tcb.cc;
        if sample.rate > 0 && (!sample.app_limited || sample.rate >= cc.delivery_rate) {
            cc.delivery_rate = sample.rate;
            cc.rate_app_limited = u32::from(sample.app_limited);
        }
        sample
    }

    /// Lets a model of the path see an acknowledgement, if the algorithm has one.
    pub(crate) fn follow_model(
        &mut self,
        acked: &Acked,
        mut rate: RateSample,
        lost: u32,
        now: Nanos,
    ) {
        if !self.tell_losses(now) {
            return;
        }
        rate.lost = match rate.prior_delivered {
            Some(_) => self.rt.sent.lost_ever().saturating_sub(rate.lost),
            None => 0,
        };
        let tcb = &mut self.tcb;
        let control = tcb.cc.control();
        let sample = Sample {
            now,
            rate,
            acked: clamp(acked.delivered),
            lost,
            in_flight: (acked.prior_pipe, tcb.pipe()),
            rtt: acked.rtt_of_original(now),
            srtt: tcb.rtt.srtt,
            mss: tcb.mss(),
            phase: tcb.recovery.phase(),
            cwnd_limited: tcb.cc.cwnd_limited != 0,
            sack: tcb.negotiated.has(super::options::flag::SACK),
        };
        if control.on_sample(&mut tcb.cc, &sample) {
            self.mark_app_limited();
        }
    }

    /// Tells a model what was found to be lost. Returns whether the algorithm has one.
    pub(crate) fn tell_losses(&mut self, now: Nanos) -> bool {
        let cc = &mut self.tcb.cc;
        let control = cc.control();
        self.rt
            .sent
            .tell_losses(|loss| control.on_lost(cc, now, loss));
        control.has_model()
    }

    /// What left last was all that the application had (draft 3.4).
    pub(crate) fn is_app_limited(&self) -> bool {
        self.rt.pacer.limited_until != 0
    }

    /// Whether pacing lets the next unit leave; if not, the timer is set.
    pub(crate) fn is_paced_out(&mut self, now: Nanos) -> bool {
        if self.tcb.pacing_rate() == 0 || self.rt.pacer.next_at <= now {
            return false;
        }
        self.tcb.deadlines.arm(Timer::Pace, self.rt.pacer.next_at);
        true
    }

    /// A unit of `len` bytes left. As Linux: being late is made good, by up to half a unit.
    pub(crate) fn note_paced(&mut self, now: Nanos, len: u64) {
        let rate = self.tcb.pacing_rate();
        if rate == 0 {
            return;
        }
        let time = u128::from(len) * SECOND / u128::from(rate);
        let time = u64::try_from(time).unwrap_or(u64::MAX);
        let late = now.saturating_sub(self.rt.pacer.next_at);
        self.rt.pacer.next_at = now.saturating_add(time - late.min(time / 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_amounts_are_inverse() {
        assert_eq!(rate_of(12_500, 1_000_000), 12_500_000);
        assert_eq!(bytes_in(12_500_000, 1_000_000), 12_500);
        assert_eq!(rate_of(u64::MAX, 0), u64::MAX);
        assert_eq!(bytes_in(u64::MAX, u64::MAX), u64::MAX);
    }
}
