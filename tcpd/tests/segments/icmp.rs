//! ICMP errors: RFC 9293 3.9.2.2, RFC 5927, RFC 1191.

use crate::bench::*;
use tcpd::engine::{IcmpError, IcmpKind};
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
