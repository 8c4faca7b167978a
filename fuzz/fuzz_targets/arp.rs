//! ARP packets: what is accepted is written back byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::arp::{PACKET_LEN, Repr};

fuzz_target!(|data: &[u8]| {
    if let Ok(repr) = Repr::parse(data) {
        let mut out = [0; PACKET_LEN];
        repr.emit(&mut out).unwrap();
        assert_eq!(out, data[..PACKET_LEN]);
    }
});
