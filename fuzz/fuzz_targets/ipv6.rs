//! IPv6 headers and the walk over extension headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::ipv6::ext::{Extensions, MAX_HEADERS, upper_layer};
use wire::ipv6::{HEADER_LEN, Packet, Repr};

fuzz_target!(|data: &[u8]| {
    let Ok(repr) = Repr::parse(data) else { return };
    let mut out = [0; HEADER_LEN];
    repr.emit(&mut out).unwrap();
    assert_eq!(out, data[..HEADER_LEN]);

    let payload = Packet::new(data).unwrap().payload;
    let mut end = 0;
    let mut count = 0;
    for extension in Extensions::new(repr.next_header, payload).map_while(Result::ok) {
        assert_eq!(extension.offset, end);
        end += extension.bytes.len();
        count += 1;
    }
    assert!(count <= MAX_HEADERS && end <= payload.len());
    if let Ok(upper) = upper_layer(repr.next_header, payload) {
        assert_eq!(upper.offset, end);
    }
});
