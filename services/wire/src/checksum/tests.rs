use core::net::IpAddr;

use proptest::prelude::*;

use super::{Checksum, of, partial_seed, pseudo_header, update16, update32};
use crate::protocol;

/// As RFC 1071 4.1 writes it in C: one big-endian word after the other.
fn naive(data: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in data.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

// RFC 1071 3: the example sums to ddf2.
#[test]
fn rfc1071_example() {
    let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(of(&data), !0xddf2);
    let mut sum = Checksum::new();
    sum.add(&data);
    assert_eq!(sum.fold(), 0xddf2);
}

// RFC 1624 4: with equation 3 the update that equation 2 got wrong comes out as 0.
#[test]
fn rfc1624_example() {
    assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn nothing_sums_to_zero() {
    assert_eq!(of(&[]), 0xffff);
    assert_eq!(Checksum::new().fold(), 0);
}

#[test]
fn largest_sums_do_not_lose_a_carry() {
    let data = vec![0xff; 70_001];
    assert_eq!(of(&data), naive(&data));
    let mut sum = Checksum::new();
    for piece in data.chunks(7) {
        sum.add(piece);
    }
    assert_eq!(sum.finish(), naive(&data));
}

#[test]
fn pseudo_headers_are_those_of_the_rfcs() {
    let (a4, b4): (IpAddr, IpAddr) = ("10.77.0.1".parse().unwrap(), "10.77.0.2".parse().unwrap());
    // RFC 9293 3.1: addresses, zero, protocol, length.
    let bytes = [10, 77, 0, 1, 10, 77, 0, 2, 0, 6, 0x12, 0x34];
    assert_eq!(
        pseudo_header(a4, b4, protocol::TCP, 0x1234).finish(),
        naive(&bytes)
    );
    assert_eq!(partial_seed(a4, b4, protocol::TCP, 0x1234), !naive(&bytes));

    let (a6, b6): (IpAddr, IpAddr) = ("fd77::1".parse().unwrap(), "fd77::2".parse().unwrap());
    let (IpAddr::V6(a), IpAddr::V6(b)) = (a6, b6) else {
        unreachable!()
    };
    // RFC 8200 8.1: addresses, 32-bit length, zeros, next header.
    let bytes = [
        &a.octets()[..],
        &b.octets()[..],
        &[0, 1, 0x12, 0x34],
        &[0, 0, 0, 17],
    ]
    .concat();
    assert_eq!(
        pseudo_header(a6, b6, protocol::UDP, 0x1_1234).finish(),
        naive(&bytes)
    );
}

proptest! {
    #[test]
    fn same_as_the_naive_sum(data in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(of(&data), naive(&data));
    }

    #[test]
    fn pieces_of_any_size_combine(
        data in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(0usize..300, 0..6),
    ) {
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(data.len())).collect();
        cuts.sort_unstable();
        cuts.push(data.len());
        let mut sum = Checksum::new();
        let mut start = 0;
        for cut in cuts {
            sum.add(&data[start..cut]);
            start = cut;
        }
        prop_assert_eq!(sum.finish(), naive(&data));
    }

    #[test]
    fn fields_count_as_their_bytes_even_at_odd_offsets(
        front in prop::collection::vec(any::<u8>(), 0..5), a: u16, b: u32,
    ) {
        let mut sum = Checksum::new();
        sum.add(&front);
        sum.add_u16(a);
        sum.add_u32(b);
        let mut bytes = front;
        bytes.extend(a.to_be_bytes());
        bytes.extend(b.to_be_bytes());
        prop_assert_eq!(sum.finish(), naive(&bytes));
    }

    // RFC 1624: the update equals a fresh computation. A header is never all zero, so neither
    // form meets the other zero.
    #[test]
    fn updates_equal_recomputation(mut header: [u8; 20], at in 0usize..5, new: u32) {
        header[0] = 0x45;
        let check = of(&header);
        let field = at * 4;
        let old = u32::from_be_bytes(*header[field..].first_chunk().unwrap());
        let mut changed = header;
        changed[field..field + 4].copy_from_slice(&new.to_be_bytes());
        prop_assume!(changed != [0; 20]);
        prop_assert_eq!(update32(check, old, new), of(&changed));

        let old = u16::from_be_bytes([header[field], header[field + 1]]);
        let new = u16::from_be_bytes([changed[field], changed[field + 1]]);
        let mut changed = header;
        changed[field..field + 2].copy_from_slice(&new.to_be_bytes());
        prop_assume!(changed != [0; 20]);
        prop_assert_eq!(update16(check, old, new), of(&changed));
    }
}
