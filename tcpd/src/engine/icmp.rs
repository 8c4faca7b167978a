//! ICMP errors about segments of ours (RFC 9293 3.9.2.2, RFC 5927, RFC 1191).

use super::Engine;
use super::conn::{Conn, Ctx};
use super::demux::Flow;
use super::error::Errno;
use super::events::{IcmpError, IcmpKind};
use super::options::{MIN_MSS, headers};
use super::recovery::Phase;
use super::seq::extend;
use super::state::State;
use super::tcb::flag;
use abi::Nanos;

/// Smaller path MTUs than this are not believed (Linux's `min_pmtu`).
const MIN_PATH_MTU: u16 = 552;

/// RFC 1191 7.1: what to try when a router does not say what fits.
const PLATEAUS: [u16; 9] = [
    65_535, 32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 552,
];

impl IcmpKind {
    fn errno(self) -> Errno {
        match self {
            Self::NetUnreachable => Errno::ENETUNREACH,
            Self::HostUnreachable => Errno::EHOSTUNREACH,
            Self::ProtocolUnreachable => Errno::ENOPROTOOPT,
            Self::PortUnreachable => Errno::ECONNREFUSED,
            Self::ParameterProblem => Errno::EPROTO,
            // EMSGSIZE
            Self::FragmentationNeeded { .. } => Errno(90),
        }
    }
}

impl Engine {
    /// Takes an ICMP error. It counts only if the segment it quotes is in flight.
    pub fn on_icmp_error(&mut self, now: Nanos, error: &IcmpError) {
        let flow = Flow {
            local: error.local,
            remote: error.remote,
        };
        let believed = self.demux.lookup(&flow).and_then(|id| {
            let tcb = self.record(id)?;
            // RFC 5927 4.1: a stranger does not know what is in flight.
            let seq = extend(tcb.iss, tcb.snd_una, error.seq);
            (tcb.snd_una <= seq && seq < tcb.snd_nxt).then_some(id)
        });
        let Some(id) = believed else {
            self.stats.icmp_ignored += 1;
            return;
        };
        self.step(id, now, |conn, ctx| conn.on_icmp(error.kind, ctx));
    }
}

impl Conn {
    fn on_icmp(&mut self, kind: IcmpKind, ctx: &mut Ctx<'_>) {
        if let IcmpKind::FragmentationNeeded { mtu } = kind {
            self.on_path_mtu(mtu);
            return;
        }
        let errno = kind.errno();
        match self.tcb.state() {
            // As Linux: an attempt that cannot succeed ends at once.
            State::SynSent => self.terminate(Some(errno), ctx),
            State::SynReceived if self.tcb.has(flag::PASSIVE) => self.terminate(None, ctx),
            State::SynReceived => self.terminate(Some(errno), ctx),
            // RFC 9293 3.9.2.2: an established connection is not aborted (RFC 5927 5).
            _ => self.tcb.soft_error = errno.0,
        }
    }

    /// RFC 1191 3, 6.3: smaller segments from now on, and what was too big is sent again at
    /// once, which is no sign of congestion.
    fn on_path_mtu(&mut self, mtu: u16) {
        let tcb = &mut self.tcb;
        let overhead = headers(tcb.local.family);
        let present = tcb.negotiated.path_mss.saturating_add(overhead);
        let mtu = match mtu {
            0 => PLATEAUS
                .into_iter()
                .find(|&plateau| plateau < present)
                .unwrap_or(MIN_PATH_MTU),
            n => n,
        };
        let mtu = mtu.max(MIN_PATH_MTU);
        if mtu >= present {
            return;
        }
        tcb.negotiated.path_mss = (mtu - overhead).max(MIN_MSS);
        if !tcb.state().can_transmit() || tcb.flight() == 0 {
            return;
        }
        if tcb.recovery.phase() == Phase::Open {
            tcb.cc.ssthresh = tcb.cc.ssthresh.min(tcb.cc.cwnd);
        }
        tcb.recovery.phase = Phase::Loss as u32;
        tcb.recovery.point = tcb.snd_nxt;
        tcb.recovery.loss_point = tcb.snd_nxt;
        tcb.recovery.high_rxt = tcb.snd_una;
        tcb.rtt.timed_end = 0;
    }
}
