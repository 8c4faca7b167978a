//! UDP datagrams: lengths and checksums over both families.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use wire::udp::{Datagram, Repr, fill_checksum, verify_checksum};

fuzz_target!(|data: &[u8]| {
    let Ok(repr) = Repr::parse(data) else { return };
    assert_eq!(
        Datagram::new(data).unwrap().payload.len(),
        repr.payload_len()
    );
    for addr in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let _ = verify_checksum(data, addr, addr);
        let mut out = data.to_vec();
        repr.emit(&mut out).unwrap();
        fill_checksum(&mut out, addr, addr).unwrap();
        assert!(verify_checksum(&out, addr, addr));
        assert_ne!(out[6..8], [0, 0]);
        assert_eq!(Repr::parse(&out), Ok(repr));
    }
});
