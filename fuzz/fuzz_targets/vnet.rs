//! The virtio header and the checksum completion it asks for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::gso::complete_checksum;
use wire::vnet::{HEADER_LEN, HEADER_LEN_MRG, VirtioNetHdr};

fuzz_target!(|data: &[u8]| {
    let Ok(header) = VirtioNetHdr::parse(data) else {
        return;
    };
    let len = if data.len() >= HEADER_LEN_MRG {
        HEADER_LEN_MRG
    } else {
        HEADER_LEN
    };
    let mut out = [0; HEADER_LEN_MRG];
    header.emit(&mut out[..len]).unwrap();
    assert_eq!(out[..len], data[..len]);

    let mut frame = data[len..].to_vec();
    let checked = header.check(frame.len());
    let completed = complete_checksum(&mut frame, header.csum_start, header.csum_offset);
    // What `check` lets pass can be completed.
    assert!(checked.is_err() || !header.needs_csum() || completed.is_ok());
});
