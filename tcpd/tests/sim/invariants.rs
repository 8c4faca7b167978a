//! What must hold of every committed record (the engine's E2 to E4).

use std::collections::HashMap;
use tcpd::engine::reassembly::Reassembly;
use tcpd::engine::recovery::Phase;
use tcpd::engine::seq::DATA_OFFSET;
use tcpd::engine::timers::Timer;
use tcpd::engine::{ConnId, SocketRef, State, Tcb};

/// Right edges of earlier commits, by use of a record.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Nothing on the path gives reason to send anything again.
    clean: bool,
    seen: HashMap<(ConnId, u32), Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    rcv_adv: u64,
    rcv_nxt: u64,
    snd_una: u64,
    snd_nxt: u64,
    /// Highest right edge that the peer offered.
    edge: u64,
    /// Largest congestion window, and the last one.
    cwnd: u64,
    last_cwnd: u64,
    timeouts: u32,
    probe_end: u64,
    probes: u32,
    fin_sent: bool,
    /// What is here out of order, and must stay.
    reassembly: Reassembly,
}

impl History {
    pub(crate) fn new(clean: bool) -> Self {
        Self {
            clean,
            ..Self::default()
        }
    }

    /// Checks one record. `queued`: the engine still has output to make.
    /// `sent`: bytes of payload that leave after this commit.
    pub(crate) fn check(&mut self, id: ConnId, tcb: &Tcb, queued: bool, sent: u64) {
        assert!(tcb.is_valid(), "E1 {tcb:?}");
        assert!(tcb.snd_una <= tcb.snd_nxt, "E2");
        assert!(tcb.snd_nxt <= tcb.data_end() + 1, "E2");
        if self.clean {
            assert_eq!(tcb.counters.recoveries, 0, "recovery on a clean link");
        }
        let state = tcb.state();
        if state.is_synchronized() {
            let fin = u64::from(tcb.peer_finished());
            assert!(tcb.rcv_nxt <= tcb.rcv_adv, "E3");
            let capacity = u64::from(tcb.opts.rcv_capacity);
            assert!(
                tcb.rcv_adv <= DATA_OFFSET + tcb.consumed + capacity + fin,
                "E3: {} beyond",
                tcb.rcv_adv - (DATA_OFFSET + tcb.consumed + capacity)
            );
            for (start, end) in tcb.reassembly.iter(tcb.rcv_nxt) {
                assert!(
                    tcb.rcv_nxt < start && start < end && end <= tcb.rcv_adv,
                    "E3"
                );
            }
            for (start, end) in tcb.sacked.iter(tcb.snd_una) {
                assert!(
                    tcb.snd_una <= start && start < end && end <= tcb.snd_nxt,
                    "E2"
                );
            }
            assert!(tcb.cc.cwnd > 0);
        }
        self.check_timers(tcb, queued);
        let mut seen = Seen {
            rcv_adv: tcb.rcv_adv,
            rcv_nxt: tcb.rcv_nxt,
            snd_una: tcb.snd_una,
            snd_nxt: tcb.snd_nxt,
            edge: tcb.snd_limit(),
            cwnd: u64::from(tcb.cc.cwnd),
            last_cwnd: u64::from(tcb.cc.cwnd),
            timeouts: tcb.counters.timeouts,
            probe_end: tcb.recovery.probe_end,
            probes: tcb.recovery.rack.probes,
            fin_sent: tcb.fin_sent(),
            reassembly: tcb.reassembly,
        };
        if let Some(before) = self.seen.get(&(id, tcb.generation)) {
            seen.edge = seen.edge.max(before.edge);
            seen.cwnd = seen.cwnd.max(before.cwnd);
        }
        if state.is_synchronized() {
            // A unit of the scale for rounding, one number for the FIN of a closing peer.
            let unit = 1 << tcb.negotiated.snd_scale;
            assert!(tcb.snd_nxt <= seen.edge + unit, "beyond the peer's window");
            // Without SACK, duplicate acknowledgements stand for what has left the network, and
            // more may be in flight when recovery ends (RFC 6582 3.2 step 3).
            let sack = tcb.negotiated.has(tcpd::engine::options::flag::SACK);
            if sack && tcb.recovery.phase() == Phase::Open && tcb.sacked.is_empty() {
                // A probe of the tail, or of the path MTU, may come on top.
                let most = seen.cwnd + 2 * 1_500;
                assert!(
                    tcb.flight() <= most,
                    "beyond the congestion window: {} > {most}, {tcb:?}",
                    tcb.flight()
                );
            }
        }
        let lingers = tcb.is_orphan() && tcb.linger_ms() > 0;
        if lingers
            && matches!(
                tcb.state(),
                State::FinWait1 | State::Closing | State::LastAck
            )
        {
            assert!(tcb.owner != SocketRef::NONE, "let go while closing waits");
        }
        if let Some(before) = self.seen.insert((id, tcb.generation), seen) {
            assert_kept(&before, tcb);
            assert_restrained(&before, tcb);
            if sent > 0 {
                assert_allowed(&before, tcb, sent);
            }
            assert!(before.rcv_adv <= seen.rcv_adv, "E3: the window shrank");
            assert!(before.rcv_nxt <= seen.rcv_nxt);
            assert!(
                before.snd_una <= seen.snd_una && before.snd_nxt <= seen.snd_nxt,
                "E2"
            );
        }
    }

    /// A socket that is over needs no history.
    pub(crate) fn forget(&mut self, id: ConnId) {
        self.seen.retain(|&(seen, _), _| seen != id);
    }

    /// E4.
    fn check_timers(&self, tcb: &Tcb, queued: bool) {
        if queued {
            return;
        }
        let d = &tcb.deadlines;
        match tcb.state() {
            State::SynSent | State::SynReceived => assert!(d.is_armed(Timer::Retransmit), "E4"),
            State::TimeWait => assert!(d.is_armed(Timer::Expiry), "E4"),
            state if state.is_synchronized() => {
                if tcb.flight() > 0 {
                    assert!(d.is_armed(Timer::Retransmit), "E4: in flight, no timer");
                } else if state.can_transmit() && !tcb.fin_acked() {
                    let unsent = tcb.data_end() > tcb.snd_nxt
                        || (tcb.has(tcpd::engine::tcb::flag::FIN_QUEUED) && !tcb.fin_sent());
                    if unsent {
                        let armed = d.is_armed(Timer::Persist) || d.is_armed(Timer::Pace);
                        assert!(armed, "E4: held back, no timer");
                    }
                }
                if tcb.rcv_nxt > tcb.last_ack_sent {
                    assert!(d.is_armed(Timer::DelayedAck), "E4: ack owed, no timer");
                }
                if state == State::FinWait2 && tcb.is_orphan() {
                    assert!(d.is_armed(Timer::Expiry), "E4");
                }
            }
            _ => {}
        }
    }
}

/// What was selectively acknowledged is not taken back (ARCHITECTURE.md, invariant 5).
fn assert_kept(before: &Seen, tcb: &Tcb) {
    if tcb.state() == State::Closed {
        return;
    }
    for (start, end) in before.reassembly.iter(before.rcv_nxt) {
        let kept = end <= tcb.rcv_nxt
            || tcb
                .reassembly
                .covers(tcb.rcv_nxt, start.max(tcb.rcv_nxt), end);
        assert!(kept, "reneged on {start}..{end}");
    }
}

/// New data leaves only as far as the congestion window allows. A tail probe may exceed it by a
/// segment (RFC 8985 7.3), limited transmit by two (RFC 3042), and rounding by one.
fn assert_restrained(before: &Seen, tcb: &Tcb) {
    if tcb.snd_nxt == before.snd_nxt || !tcb.state().is_synchronized() {
        return;
    }
    let window = before.last_cwnd.max(u64::from(tcb.cc.cwnd));
    let most = window + 4 * 1_500;
    let new = tcb.snd_nxt - before.snd_nxt;
    assert!(new <= most, "{new} bytes at once with a window of {window}");
    let sack = tcb.negotiated.has(tcpd::engine::options::flag::SACK);
    if sack && tcb.recovery.phase() == Phase::Open && tcb.snd_una > DATA_OFFSET {
        let out = tcb.flight() - tcb.sacked.bytes(tcb.snd_una);
        assert!(out <= most, "{out} bytes out with a window of {window}");
    }
}

/// What leaves, be it new or again, leaves only while there is room in the present window: the
/// algorithm's own (RFC 5681 3.1), proportional rate reduction's in recovery (RFC 9937 5: `cwnd` is
/// what is out and what it allows), one segment after a timeout (RFC 5681 3.1, RFC 6298 5.4). With
/// SACK and without, where duplicate acknowledgements stand for what has left the network (RFC 6582
/// 3.2). A probe of the tail is of two segments at the most, whatever the window (RFC 8985 7.3;
/// the head of the engine says why two).
fn assert_allowed(before: &Seen, tcb: &Tcb, sent: u64) {
    if !tcb.state().is_synchronized() {
        return;
    }
    let r = &tcb.recovery;
    let mss = u64::from(tcb.negotiated.mss());
    let probed = r.probe_end != before.probe_end || r.rack.probes > before.probes;
    let sack = tcb.negotiated.has(tcpd::engine::options::flag::SACK);
    let arrived = if sack { r.sacked } else { r.reno_sacked };
    let out = tcb
        .flight()
        .saturating_sub(u64::from(arrived) + u64::from(r.lost));
    // A FIN has a number, and takes no room.
    let fin = u64::from(tcb.fin_sent() && !before.fin_sent);
    let most = u64::from(tcb.cc.cwnd) + fin;
    assert!(
        out <= most || probed && sent <= 2 * mss,
        "cwnd: {out} out, {most} allowed, {sent} sent: {tcb:?}"
    );
    if sack {
        let known = tcb.sacked.bytes(tcb.snd_una);
        assert!(
            u64::from(arrived) <= known,
            "more has arrived than was said"
        );
    }
    if tcb.counters.timeouts > before.timeouts {
        assert!(sent <= mss, "{sent} bytes after a timeout");
    }
}
