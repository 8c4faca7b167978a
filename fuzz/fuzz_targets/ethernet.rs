//! Ethernet headers and textual MAC addresses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::MacAddr;
use wire::ethernet::{HEADER_LEN, Header};

fuzz_target!(|data: &[u8]| {
    if let Ok((header, len)) = Header::parse(data) {
        let mut out = [0; HEADER_LEN];
        header.emit(&mut out).unwrap();
        assert_eq!(out, data[..len]);
    }
    if let Ok(mac) = String::from_utf8_lossy(data).parse::<MacAddr>() {
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }
});
