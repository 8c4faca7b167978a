use proptest::prelude::*;

use super::{HEADER_LEN, Packet, Repr, ext};
use crate::{Error, fixtures, protocol};

fn syn() -> Vec<u8> {
    fixtures::bytes(fixtures::SYN_V6)[14..].to_vec()
}

#[test]
fn a_linux_header_is_read_and_written_back() {
    let bytes = syn();
    let repr = Repr::parse(&bytes).unwrap();
    assert_eq!(repr.src.to_string(), "fd77::1");
    assert_eq!(repr.dst.to_string(), "fd77::2");
    assert_eq!((repr.next_header, repr.hop_limit), (protocol::TCP, 64));
    assert_eq!(
        (repr.traffic_class, repr.flow_label, repr.payload_len),
        (0, 0x3e7ed, 40)
    );
    let mut out = [0; HEADER_LEN];
    repr.emit(&mut out).unwrap();
    assert_eq!(out, bytes[..HEADER_LEN]);
}

#[test]
fn impossible_headers_are_refused() {
    let mut bytes = syn();
    assert_eq!(Repr::parse(&bytes[..39]), Err(Error::Truncated));
    assert_eq!(Repr::parse(&bytes[..79]), Err(Error::BadLength));
    bytes.push(0);
    assert_eq!(Packet::new(&bytes).unwrap().payload.len(), 40);
    bytes[0] = 0x45;
    assert_eq!(Repr::parse(&bytes), Err(Error::BadVersion));
    let wide = Repr {
        flow_label: 1 << 20,
        ..Repr::default()
    };
    assert_eq!(wide.emit(&mut [0; 40]), Err(Error::Malformed));
    assert_eq!(
        Repr::default().emit(&mut [0; 39]),
        Err(Error::BufferTooSmall)
    );
}

proptest! {
    #[test]
    fn emit_then_parse_gives_it_back(
        src: [u8; 16], dst: [u8; 16], next_header: u8, hop_limit: u8, traffic_class: u8,
        flow_label in 0u32..1 << 20, payload_len in 0u16..1400,
    ) {
        let repr = Repr {
            src: src.into(), dst: dst.into(), next_header, hop_limit, traffic_class, flow_label,
            payload_len,
        };
        let mut bytes = vec![0xaa; HEADER_LEN + usize::from(payload_len)];
        repr.emit(&mut bytes).unwrap();
        prop_assert_eq!(Repr::parse(&bytes), Ok(repr));
    }

    #[test]
    fn no_bytes_panic(next_header in 0u8..64, bytes in prop::collection::vec(any::<u8>(), 0..160)) {
        let _ = Repr::parse(&bytes);
        if let Ok(upper) = ext::upper_layer(next_header, &bytes) {
            prop_assert!(upper.offset <= bytes.len());
        }
        prop_assert!(ext::Extensions::new(next_header, &bytes).count() <= ext::MAX_HEADERS + 1);
    }
}
