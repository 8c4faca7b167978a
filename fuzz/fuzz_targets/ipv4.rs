//! IPv4 headers: round trip, and the TTL's incremental checksum.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::ipv4::{Packet, Repr, decrement_ttl};

fuzz_target!(|data: &[u8]| {
    let Ok(repr) = Repr::parse_unchecked(data) else {
        return;
    };
    let view = Packet::new(data).unwrap();
    assert_eq!(view.header.len(), repr.header_len());
    assert_eq!(view.payload.len(), repr.payload_len());
    assert_eq!(Repr::parse(data).is_ok(), view.verify_checksum());

    let mut out = data.to_vec();
    repr.emit(&mut out).unwrap();
    assert_eq!(Repr::parse(&out).as_ref(), Ok(&repr));
    let ttl = decrement_ttl(&mut out).unwrap();
    assert_eq!(Repr::parse(&out), Ok(Repr { ttl, ..repr }));
});
