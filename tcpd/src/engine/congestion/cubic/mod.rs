//! CUBIC (RFC 9438) with HyStart++ (RFC 9406): the default.
//!
//! ```text
//!   window        ______
//!      w_max --.-'      '-.   concave up to where it was lost, then convex: probing
//!            .'            |
//!     0.7 w_max            v  times 0.7 at each congestion event
//!          epoch ----> K
//! ```
//!
//! In the Reno-friendly region (RFC 9438 4.3) the window is what NewReno with the same decrease
//! would have. All of it is in the record: a restore goes on along the same curve, as the clock
//! that it is a function of goes on.
//!
//! An epoch is time in which the window was used: where the application, the peer's window or an
//! idle period kept it unused the epoch's start is shifted (RFC 9438 4.2, 5.8).

mod curve;
#[cfg(test)]
mod tests;

use super::hystart::{HyStart, Sample};
use super::{AckEvent, Congestion, CongestionControl, SSTHRESH_INFINITE};
use abi::Nanos;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The algorithm.
#[derive(Debug, Clone, Copy)]
pub struct Cubic;

/// What the curve is made of. 48 bytes.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Curve {
    /// Where the curve is flat, in bytes; 0: at the window that the next epoch begins with.
    w_max: u32,
    /// Window before the last reduction (`cwnd_prior`).
    cwnd_prior: u32,
    /// When the epoch began; 0: it begins with the next acknowledgement.
    epoch: Nanos,
    /// Time from there to `w_max`.
    k: Nanos,
    /// NewReno's window, in 1/65,536 byte.
    w_est: u64,
    /// Part of a byte that the window is to grow by, in units of 1/cwnd.
    credit: u64,
    /// When it was last brought up to date.
    updated_at: Nanos,
}

/// The area: 256 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Area {
    curve: Curve,
    /// The curve before the last reduction (RFC 9438 4.9).
    before: Curve,
    hystart: HyStart,
    reserved: [u64; 11],
}

/// Binary places of [`Curve::w_est`].
const FRACTION: u32 = 16;

fn area(cc: &mut Congestion) -> &mut Area {
    zerocopy::transmute_mut!(&mut cc.area)
}

impl Curve {
    /// RFC 9438 4.2: an epoch begins with the window `cwnd`.
    fn begin(&mut self, now: Nanos, cwnd: u32, mss: u32) {
        self.epoch = now.max(1);
        self.credit = 0;
        self.w_est = u64::from(cwnd) << FRACTION;
        if cwnd >= self.w_max {
            // RFC 9438 4.8, 4.10, and a window that was restored.
            self.w_max = cwnd;
            self.k = 0;
        } else {
            self.k = curve::inflection(self.w_max, cwnd, mss);
        }
    }

    /// RFC 9438 4.3: NewReno's window after `acked` bytes more.
    fn estimate(&mut self, acked: u32, cwnd: u32, mss: u32) -> u64 {
        // alpha = 3 (1 - 0.7) / (1 + 0.7) until the old window is reached, then 1.
        let reached = self.w_est >> FRACTION >= u64::from(self.cwnd_prior);
        let (n, d) = if reached { (1, 1) } else { (9, 17) };
        let grow =
            ((u128::from(acked) * u128::from(mss)) << FRACTION) * n / (d * u128::from(cwnd.max(1)));
        self.w_est = self
            .w_est
            .saturating_add(u64::try_from(grow).unwrap_or(u64::MAX));
        self.w_est >> FRACTION
    }

    /// Time in which the window was not used does not count.
    fn skip(&mut self, time: Nanos) {
        if self.epoch != 0 {
            self.epoch = self.epoch.saturating_add(time);
        }
    }

    /// One acknowledgement in congestion avoidance: the new window.
    fn grow(&mut self, cwnd: u32, acked: u32, event: &AckEvent) -> u32 {
        let mss = event.mss.max(1);
        if self.epoch == 0 {
            self.begin(event.now, cwnd, mss);
        }
        let t = event.now.saturating_sub(self.epoch);
        let friendly = self.estimate(acked, cwnd, mss);
        if curve::window(t, self.k, self.w_max, mss) < friendly {
            // RFC 9438 4.3: the Reno-friendly region.
            let friendly = u32::try_from(friendly).unwrap_or(u32::MAX);
            return cwnd.max(friendly);
        }
        // RFC 9438 4.4, 4.5: towards where the curve is a round-trip time from now, at most half
        // a window more.
        let size = u64::from(cwnd);
        let target = curve::window(t.saturating_add(event.srtt), self.k, self.w_max, mss);
        let target = target.clamp(size, size + size / 2);
        self.credit = self
            .credit
            .saturating_add(u64::from(acked).saturating_mul(target - size));
        let bytes = self.credit / size.max(1);
        self.credit %= size.max(1);
        cwnd.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX))
    }
}

impl CongestionControl for Cubic {
    fn name(&self) -> &'static str {
        "cubic"
    }

    fn init(&self, cc: &mut Congestion) {
        cc.area = Default::default();
    }

    fn on_ack(&self, cc: &mut Congestion, event: &AckEvent) {
        let mut acked = event.acked;
        let initial = cc.ssthresh == SSTHRESH_INFINITE;
        if initial {
            let sample = Sample {
                now: event.now,
                cwnd: cc.cwnd / event.mss.max(1),
                clocked: event.may_grow && cc.pacing_rate == 0,
                una: event.una,
                nxt: event.nxt,
                segments: acked / event.mss.max(1),
                rtt: event.rtt,
            };
            match area(cc).hystart.on_ack(&sample, acked) {
                Some(grow) if event.may_grow => cc.cwnd = cc.cwnd.saturating_add(grow),
                Some(_) => {}
                // RFC 9406 4.2: to congestion avoidance from here.
                None => cc.ssthresh = cc.cwnd,
            }
            area(cc).curve.updated_at = event.now;
            return;
        }
        let cwnd = cc.cwnd;
        let curve = &mut area(cc).curve;
        let since = event.now.saturating_sub(curve.updated_at);
        curve.updated_at = event.now;
        if !event.may_grow {
            curve.skip(since);
            return;
        }
        if cc.in_slow_start() {
            let grow = acked.min(cc.ssthresh - cwnd);
            cc.cwnd = cwnd.saturating_add(grow);
            acked -= grow;
            if acked == 0 {
                return;
            }
        }
        let cwnd = cc.cwnd;
        cc.cwnd = area(cc).curve.grow(cwnd, acked, event);
    }

    fn on_loss(&self, cc: &mut Congestion, _now: Nanos, in_flight: u32, mss: u32) -> u32 {
        let used = cc.used(in_flight);
        let cwnd = cc.cwnd;
        let area = area(cc);
        area.before = area.curve;
        let curve = &mut area.curve;
        // RFC 9438 4.7: a window that did not get where it was makes room for others.
        curve.w_max = if used < curve.w_max {
            curve::converged(used)
        } else {
            used
        };
        curve.cwnd_prior = cwnd.min(used);
        curve.epoch = 0;
        curve.credit = 0;
        // RFC 9438 4.6.
        curve::reduced(used).max(2 * mss)
    }

    fn on_recovered(&self, cc: &mut Congestion, _now: Nanos) {
        area(cc).curve.epoch = 0;
    }

    fn on_timeout(&self, cc: &mut Congestion, _now: Nanos) {
        // RFC 9438 4.8: K is 0 and w_max the window with which congestion avoidance begins.
        let curve = &mut area(cc).curve;
        curve.w_max = 0;
        curve.epoch = 0;
    }

    fn on_undo(&self, cc: &mut Congestion, now: Nanos) {
        // RFC 9438 4.9: all as it was, and the time in between does not count.
        let area = area(cc);
        let gone = now.saturating_sub(area.before.updated_at);
        area.curve = area.before;
        area.curve.updated_at = now;
        area.curve.skip(gone);
    }

    fn on_idle(&self, cc: &mut Congestion, now: Nanos) {
        // RFC 9438 5.8.
        let curve = &mut area(cc).curve;
        if curve.updated_at != 0 {
            curve.skip(now.saturating_sub(curve.updated_at));
            curve.updated_at = now;
        }
    }
}
