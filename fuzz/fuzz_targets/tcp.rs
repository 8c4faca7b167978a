//! TCP headers and options: what was understood is written back and understood the same.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use wire::tcp::{MAX_HEADER_LEN, Options, Repr, fill_checksum, options, verify_checksum};

fuzz_target!(|data: &[u8]| {
    for syn in [false, true] {
        let found = Options::parse(data, syn);
        assert!(found.wire_len() <= options::MAX_LEN);
        let limited = found
            .window_scale
            .is_none_or(|shift| shift <= options::MAX_WINDOW_SCALE);
        assert!(limited && found.mss != Some(0));
    }
    let Ok((repr, len)) = Repr::parse(data) else {
        return;
    };
    assert!(len <= data.len() && len <= MAX_HEADER_LEN);
    let mut out = [0; MAX_HEADER_LEN];
    repr.emit(&mut out).unwrap();
    let header = &mut out[..repr.header_len()];
    let (again, again_len) = Repr::parse(header).unwrap();
    assert_eq!(again_len, header.len());
    // Our padding may leave less room than the sender's: of what came in, only a user timeout
    // and the last SACK blocks may go.
    let mut expected = repr.clone();
    expected.options.sack.truncate(again.options.sack.len());
    if again.options.user_timeout.is_none() {
        expected.options.user_timeout = None;
    }
    assert_eq!(again, expected);

    for addr in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let _ = verify_checksum(data, addr, addr);
        fill_checksum(header, addr, addr).unwrap();
        assert!(verify_checksum(header, addr, addr));
    }
});
