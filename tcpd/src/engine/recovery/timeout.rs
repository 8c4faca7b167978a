//! The retransmission timer went off (RFC 6298 5.4 to 5.7, RFC 8985 6.3), and peers that renege.

use super::{Phase, frto};
use crate::engine::sent::{Fate, SendLog};
use crate::engine::seq::clamp;
use crate::engine::tcb::Tcb;
use crate::engine::timers::Timer;
use abi::Nanos;

impl Tcb {
    /// RFC 5681 3.1: one segment, and slow start from there.
    pub(crate) fn enter_loss(&mut self, log: &mut SendLog, now: Nanos) {
        let mss = self.mss();
        let control = self.cc.control();
        let flight = clamp(self.flight());
        let first = self.recovery.phase() != Phase::Loss || self.snd_una >= self.recovery.point;
        if first {
            self.remember_window(now);
            self.cc.ssthresh = control.on_loss(&mut self.cc, now, flight, mss);
        }
        control.on_timeout(&mut self.cc, now);
        if self.is_reneging(log) {
            // RFC 2018 8: believe nothing.
            self.sacked.clear();
            log.forget_sacks();
        }
        self.mark_timed_out(log, now);
        self.deadlines.stop(Timer::Reorder);
        self.counters.timeouts = self.counters.timeouts.saturating_add(1);
        let r = &mut self.recovery;
        r.phase = Phase::Loss as u32;
        r.point = self.snd_nxt;
        r.high_rxt = self.snd_una;
        r.dupacks = 0;
        r.reno_sacked = 0;
        r.probe_end = 0;
        r.rack.probes = 0;
        r.frto = if first { frto::STARTED } else { frto::OFF };
        self.sync(log);
        // What is not lost is in the network, and does not take the segment's place.
        self.cc.cwnd = self.pipe().saturating_add(mss);
    }

    /// RFC 8985 6.3: the first segment, and whatever left so long ago that it is lost for
    /// certain. What left a moment ago, or is of unknown age (after a restore), is given time.
    fn mark_timed_out(&mut self, log: &mut SendLog, now: Nanos) {
        let head = (self.snd_una + u64::from(self.mss())).min(self.snd_nxt);
        log.mark_lost(self.snd_una, head);
        // What counted as lost before does so still, and a successor must hear of it: the search
        // below passes it over.
        let mut end = head.max(self.recovery.loss_point.min(self.snd_nxt));
        let rtt = match self.recovery.rack.rtt {
            0 => self.rtt.srtt,
            rtt => rtt,
        };
        let patience = rtt.saturating_add(self.reordering_window());
        log.find_lost(|unit| {
            let lost = unit.sent_at.saturating_add(patience) <= now;
            if lost {
                end = end.max(unit.end);
            }
            Some(lost)
        });
        self.recovery.loss_point = end;
    }

    /// RFC 2018 8: the first byte that is not acknowledged is one that the peer said it has.
    pub(crate) fn is_reneging(&self, log: &SendLog) -> bool {
        log.iter()
            .next()
            .is_some_and(|unit| unit.fate == Fate::Sacked)
    }
}
