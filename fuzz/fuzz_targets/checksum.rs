//! The checksum in pieces against the checksum word by word.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::checksum::Checksum;

fuzz_target!(|data: &[u8]| {
    let Some((&cut, data)) = data.split_first() else {
        return;
    };
    let mut naive = 0u32;
    for pair in data.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        naive += u32::from(u16::from_be_bytes([pair[0], low]));
        naive = (naive & 0xffff) + (naive >> 16);
    }
    let mut sum = Checksum::new();
    for piece in data.chunks(usize::from(cut).max(1)) {
        sum.add(piece);
    }
    assert_eq!(u32::from(sum.fold()), naive);
});
