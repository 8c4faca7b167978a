//! ICMPv4 messages, the quotation in errors, and errors about arbitrary datagrams.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::icmpv4::{
    Embedded, HEADER_LEN, MAX_ERROR_LEN, Message, Repr, build_error, exceeded, fill_checksum,
    reply_in_place,
};

fuzz_target!(|data: &[u8]| {
    if let Ok(repr) = Repr::parse_unchecked(data) {
        let mut out = data.to_vec();
        repr.emit(&mut out).unwrap();
        fill_checksum(&mut out).unwrap();
        assert_eq!(Repr::parse(&out), Ok(repr));
        if reply_in_place(&mut out).is_ok() {
            assert!(matches!(Repr::parse(&out), Ok(Repr::EchoReply { .. })));
        }
        if let Ok(embedded) = Embedded::parse(Message::new(data).unwrap().payload) {
            assert_eq!(embedded.ports().is_none(), embedded.frag_offset != 0);
            let _ = embedded.tcp_seq();
        }
    }
    let error = Repr::TimeExceeded {
        code: exceeded::TTL,
    };
    let mut out = [0; 1500];
    if let Ok(len) = build_error(&error, data, &mut out) {
        assert!(len <= MAX_ERROR_LEN);
        assert_eq!(Repr::parse(&out[..len]), Ok(error));
        assert!(data.starts_with(&out[HEADER_LEN..len]));
    }
});
