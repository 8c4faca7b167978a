//! NewReno's window (RFC 5681 3.1), counting bytes so that an acknowledgement of a whole 64 KiB
//! unit is worth what its segments are.

use super::{AckEvent, Congestion, CongestionControl};
use abi::Nanos;

/// The algorithm. `area[0]`: bytes acknowledged towards the next increase.
#[derive(Debug, Clone, Copy)]
pub struct NewReno;

/// The counter in the area.
fn counter(cc: &mut Congestion) -> &mut u64 {
    let [counter, ..] = &mut cc.area;
    counter
}

impl CongestionControl for NewReno {
    fn name(&self) -> &'static str {
        "newreno"
    }

    fn init(&self, cc: &mut Congestion) {
        *counter(cc) = 0;
    }

    fn on_ack(&self, cc: &mut Congestion, event: &AckEvent) {
        if !event.may_grow {
            return;
        }
        let mut acked = event.acked;
        // RFC 5681 3.1, slow start: up to the threshold, what was acknowledged is added.
        if cc.in_slow_start() {
            let grow = acked.min(cc.ssthresh - cc.cwnd);
            cc.cwnd = cc.cwnd.saturating_add(grow);
            acked -= grow;
        }
        if acked == 0 {
            return;
        }
        // Congestion avoidance: one segment for each window acknowledged.
        let cwnd = u64::from(cc.cwnd);
        let counter = counter(cc);
        *counter += u64::from(acked);
        if cwnd > 0 && *counter >= cwnd {
            let segments = u32::try_from(*counter / cwnd).unwrap_or(1);
            *counter %= cwnd;
            cc.cwnd = cc.cwnd.saturating_add(segments.saturating_mul(event.mss));
        }
    }

    fn on_loss(&self, cc: &mut Congestion, _now: Nanos, in_flight: u32, mss: u32) -> u32 {
        *counter(cc) = 0;
        // RFC 5681 equation 4.
        (cc.used(in_flight) / 2).max(2 * mss)
    }

    fn on_recovered(&self, cc: &mut Congestion, _now: Nanos) {
        *counter(cc) = 0;
    }

    fn on_timeout(&self, cc: &mut Congestion, _now: Nanos) {
        *counter(cc) = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(cc: &mut Congestion, acked: u32) {
        let event = AckEvent {
            now: 0,
            acked,
            rtt: None,
            srtt: 0,
            mss: 1000,
            in_flight: cc.cwnd,
            una: 1,
            nxt: 1,
            may_grow: true,
        };
        NewReno.on_ack(cc, &event);
    }

    // RFC 5681 3.1.
    #[test]
    fn slow_start_doubles_and_avoidance_adds_one_segment_a_window() {
        let mut cc = Congestion::default();
        cc.start(1000, 10);
        ack(&mut cc, 10_000);
        assert_eq!(cc.cwnd, 20_000);
        cc.ssthresh = NewReno.on_loss(&mut cc, 0, 20_000, 1000);
        assert_eq!(cc.ssthresh, 10_000);
        cc.cwnd = 10_000;
        for _ in 0..9 {
            ack(&mut cc, 1000);
        }
        assert_eq!(cc.cwnd, 10_000);
        ack(&mut cc, 1000);
        assert_eq!(cc.cwnd, 11_000);
    }

    #[test]
    fn crossing_the_threshold_counts_the_rest_as_avoidance() {
        let mut cc = Congestion::default();
        cc.start(1000, 10);
        cc.ssthresh = 12_000;
        ack(&mut cc, 14_000);
        assert_eq!(cc.cwnd, 13_000);
    }
}
