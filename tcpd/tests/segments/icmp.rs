//! ICMP errors: RFC 9293 3.9.2.2, RFC 5927, RFC 1191.

use crate::bench::*;
use tcpd::engine::{Errno, IcmpError, IcmpKind, Notice, State};
use wire::SeqNumber;

impl Bench {
    fn icmp(&mut self, seq: u32, kind: IcmpKind) -> Vec<Sent> {
        let error = IcmpError {
            local: self.local,
            remote: self.remote,
            seq: SeqNumber(self.iss().wrapping_add(seq)),
            kind,
        };
        self.engine.on_icmp_error(self.now, &error);
        self.output()
    }
}

// As Linux: an attempt that cannot succeed ends at once.
#[test]
fn unreachable_while_connecting() {
    let mut b = Bench::new(plain());
    b.connect();
    b.icmp(0, IcmpKind::HostUnreachable);
    assert_eq!(b.news(), [Notice::ConnectFailed(b.id)]);
    assert_eq!(b.tcb().error, Errno::EHOSTUNREACH.0);
}

// RFC 5927 4.1: only about what is in flight.
#[test]
fn of_what_is_not_in_flight() {
    let mut b = Bench::new(plain());
    b.connect();
    b.icmp(1, IcmpKind::PortUnreachable);
    b.icmp(77, IcmpKind::PortUnreachable);
    assert_eq!(b.state(), State::SynSent);
    assert_eq!(b.engine.stats().icmp_ignored, 2);
}

// RFC 9293 3.9.2.2 (MUST-56): soft errors do not abort, but explain.
#[test]
fn unreachable_while_connected() {
    let mut b = Bench::established(plain());
    b.write(10);
    b.icmp(1, IcmpKind::PortUnreachable);
    assert_eq!(b.state(), State::Established);
    b.wait(3_000 * S);
    assert_eq!(b.tcb().error, Errno::ECONNREFUSED.0);
}

// RFC 1191 6.3: smaller segments at once, and no sign of congestion.
#[test]
fn path_mtu() {
    let mut b = Bench::established(plain());
    b.write(5_000);
    let cwnd = b.tcb().cc.cwnd;
    let out = b.icmp(1, IcmpKind::FragmentationNeeded { mtu: 1_000 });
    assert_eq!(out[0].brief(), (ACK, 1, 1, 960));
    assert!(out.iter().all(|s| s.len <= 960));
    assert_eq!(b.tcb().cc.cwnd, cwnd);
    // Larger than now, or absurdly small: not believed.
    b.icmp(1, IcmpKind::FragmentationNeeded { mtu: 1_400 });
    assert_eq!(b.tcb().negotiated.path_mss, 960);
    b.icmp(1, IcmpKind::FragmentationNeeded { mtu: 68 });
    assert_eq!(b.tcb().negotiated.path_mss, 512);
}

// RFC 1191 7.1: old routers do not say what fits.
#[test]
fn plateaus() {
    let mut b = Bench::established(plain());
    b.write(5_000);
    b.icmp(1, IcmpKind::FragmentationNeeded { mtu: 0 });
    assert_eq!(b.tcb().negotiated.path_mss, 1_492 - 40);
}

// RFC 1122 4.2.3.9; RFC 6633: source quench is ignored.
#[test]
fn types_and_codes() {
    assert_eq!(IcmpKind::from_v4(3, 0, 0), Some(IcmpKind::NetUnreachable));
    assert_eq!(IcmpKind::from_v4(3, 3, 0), Some(IcmpKind::PortUnreachable));
    assert_eq!(IcmpKind::from_v4(11, 0, 0), Some(IcmpKind::HostUnreachable));
    assert_eq!(IcmpKind::from_v4(4, 0, 0), None);
    assert_eq!(IcmpKind::from_v4(8, 0, 0), None);
}
