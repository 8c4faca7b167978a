//! ICMP errors about segments of ours (RFC 9293 3.9.2.2, RFC 5927, RFC 1191).

use super::Engine;
use super::conn::{Conn, Ctx};
use super::demux::Flow;
use super::error::Errno;
use super::events::{IcmpError, IcmpKind};
use super::seq::{Offset, extend};
use super::state::State;
use super::tcb::flag;
use abi::Nanos;

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
            (tcb.snd_una <= seq && seq < tcb.snd_nxt).then_some((id, seq))
        });
        let Some((id, seq)) = believed else {
            self.stats.icmp_ignored += 1;
            return;
        };
        self.step(id, now, |conn, ctx| conn.on_icmp(error.kind, seq, ctx));
    }
}

impl Conn {
    fn on_icmp(&mut self, kind: IcmpKind, seq: Offset, ctx: &mut Ctx<'_>) {
        if let IcmpKind::FragmentationNeeded { mtu } = kind {
            self.on_too_big(mtu, seq, ctx);
            return;
        }
        let errno = kind.errno();
        match self.tcb.state() {
            // As Linux: an attempt that cannot succeed ends at once.
            State::SynSent => self.terminate(Some(errno), ctx),
            State::SynReceived if self.tcb.is_early() => self.tcb.soft_error = errno.0,
            State::SynReceived if self.tcb.has(flag::PASSIVE) => self.terminate(None, ctx),
            State::SynReceived => self.terminate(Some(errno), ctx),
            // RFC 9293 3.9.2.2: an established connection is not aborted (RFC 5927 5).
            _ => self.tcb.soft_error = errno.0,
        }
    }
}
