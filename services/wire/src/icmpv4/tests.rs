use proptest::prelude::*;

use super::{
    Embedded, HEADER_LEN, MAX_ERROR_LEN, Message, Repr, build_error, exceeded, fill_checksum,
    fill_checksum_parts, kind, reply_in_place, unreachable,
};
use crate::{Error, SeqNumber, fixtures, ipv4, protocol};

/// Echo request 0x1234/1 with four bytes of data.
const ECHO: [u8; 12] = [8, 0, 0x7c, 0x5d, 0x12, 0x34, 0, 1, 0x69, 0x6d, 0, 0];

fn syn() -> Vec<u8> {
    fixtures::bytes(fixtures::SYN_V4)[14..].to_vec()
}

#[test]
fn an_echo_request_is_read_and_written_back() {
    let repr = Repr::parse(&ECHO).unwrap();
    assert_eq!(
        repr,
        Repr::EchoRequest {
            ident: 0x1234,
            seq: 1
        }
    );
    assert_eq!(Message::new(&ECHO).unwrap().payload, [0x69, 0x6d, 0, 0]);
    let mut out = ECHO;
    out[..HEADER_LEN].fill(0xff);
    repr.emit(&mut out).unwrap();
    fill_checksum(&mut out).unwrap();
    assert_eq!(out, ECHO);
}

#[test]
fn a_wrong_checksum_is_refused_unless_unchecked() {
    let mut bytes = ECHO;
    bytes[9] ^= 1;
    assert_eq!(Repr::parse(&bytes), Err(Error::BadChecksum));
    assert!(Repr::parse_unchecked(&bytes).is_ok());
    assert_eq!(Repr::parse(&ECHO[..7]), Err(Error::Truncated));
}

// RFC 1122 3.2.2.6: the reply carries the same data; only type and checksum change.
#[test]
fn a_request_becomes_its_reply_in_place() {
    let mut bytes = ECHO;
    reply_in_place(&mut bytes).unwrap();
    assert_eq!(
        Repr::parse(&bytes),
        Ok(Repr::EchoReply {
            ident: 0x1234,
            seq: 1
        })
    );
    assert_eq!(bytes[4..], ECHO[4..]);
    assert_eq!(reply_in_place(&mut bytes), Err(Error::Unsupported));
    assert_eq!(reply_in_place(&mut bytes[..7]), Err(Error::Truncated));
}

// RFC 1624 3: of all-zero data the checksum is 0xffff, which an update cannot know. Found by
// fuzzing: the reply to such a request did not verify.
#[test]
fn the_reply_to_an_all_zero_echo_verifies() {
    let mut bytes = [8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fill_checksum(&mut bytes).unwrap();
    reply_in_place(&mut bytes).unwrap();
    assert_eq!(bytes, [0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        Repr::parse(&bytes),
        Ok(Repr::EchoReply { ident: 0, seq: 0 })
    );
}

#[test]
fn an_error_quotes_its_cause() {
    let syn = syn();
    let repr = Repr::DestinationUnreachable {
        code: unreachable::FRAG_NEEDED,
        next_hop_mtu: 1400,
    };
    let mut out = [0; 600];
    let len = build_error(&repr, &syn, &mut out).unwrap();
    assert_eq!(len, HEADER_LEN + syn.len());
    assert_eq!(Repr::parse(&out[..len]), Ok(repr));
    let embedded = Embedded::parse(&out[HEADER_LEN..len]).unwrap();
    assert_eq!(embedded.src.to_string(), "10.77.0.1");
    assert_eq!(embedded.dst.to_string(), "10.77.0.2");
    assert_eq!((embedded.protocol, embedded.total_len), (protocol::TCP, 60));
    assert_eq!(embedded.ports(), Some((40000, 80)));
    assert_eq!(embedded.tcp_seq(), Some(SeqNumber(0x8328_adf6)));
}

// RFC 1812 4.3.2.3: not more than 576 bytes, IP header included.
#[test]
fn an_error_stays_within_576_bytes() {
    let mut datagram = vec![0; 1500];
    ipv4::Repr {
        total_len: 1500,
        protocol: protocol::UDP,
        ..ipv4::Repr::default()
    }
    .emit(&mut datagram)
    .unwrap();
    let repr = Repr::TimeExceeded {
        code: exceeded::TTL,
    };
    let mut out = [0; 2000];
    let len = build_error(&repr, &datagram, &mut out).unwrap();
    assert_eq!(len, MAX_ERROR_LEN);
    assert_eq!(Repr::parse(&out[..len]), Ok(repr));
    assert_eq!(
        Embedded::parse(&out[HEADER_LEN..len]).unwrap().total_len,
        1500
    );
}

#[test]
fn an_error_needs_a_cause_and_room() {
    let syn = syn();
    let repr = Repr::TimeExceeded {
        code: exceeded::TTL,
    };
    assert_eq!(
        build_error(&repr, &syn, &mut [0; 35]),
        Err(Error::BufferTooSmall)
    );
    assert_eq!(build_error(&repr, &syn, &mut [0; 36]), Ok(36));
    assert_eq!(
        build_error(&repr, &syn[..10], &mut [0; 99]),
        Err(Error::Truncated)
    );
    let echo = Repr::EchoReply { ident: 0, seq: 0 };
    assert_eq!(
        build_error(&echo, &syn, &mut [0; 99]),
        Err(Error::Unsupported)
    );
    // Link-layer padding is not quoted, and a datagram shorter than 8 bytes of payload is whole.
    let mut tiny = [0xee; 46];
    ipv4::Repr {
        total_len: 22,
        ..ipv4::Repr::default()
    }
    .emit(&mut tiny)
    .unwrap();
    assert_eq!(build_error(&repr, &tiny, &mut [0; 99]), Ok(30));
}

#[test]
fn a_quotation_must_be_long_enough_to_use() {
    let syn = syn();
    assert_eq!(Embedded::parse(&syn[..27]), Err(Error::Truncated));
    assert!(Embedded::parse(&syn[..28]).is_ok());
    assert_eq!(
        Embedded::parse(&fixtures::bytes(fixtures::SYN_V6)[14..]),
        Err(Error::BadVersion)
    );
}

// The 8 bytes of a later fragment are payload: taking ports from them would hit a stranger.
#[test]
fn a_quoted_later_fragment_has_no_ports() {
    let mut datagram = [0x11; 28];
    ipv4::Repr {
        total_len: 28,
        frag_offset: 1480,
        protocol: protocol::TCP,
        ..ipv4::Repr::default()
    }
    .emit(&mut datagram)
    .unwrap();
    let embedded = Embedded::parse(&datagram).unwrap();
    assert_eq!(embedded.frag_offset, 1480);
    assert_eq!(embedded.ports(), None);
    assert_eq!(embedded.tcp_seq(), None);
}

// RFC 1122 3.2.2: no error about an error.
#[test]
fn errors_are_told_from_queries() {
    for (kind, is_error) in [
        (kind::ECHO_REPLY, false),
        (kind::DEST_UNREACHABLE, true),
        (kind::SOURCE_QUENCH, true),
        (kind::REDIRECT, true),
        (kind::ECHO_REQUEST, false),
        (kind::TIME_EXCEEDED, true),
        (kind::PARAMETER_PROBLEM, true),
        (13, false),
        (200, true),
    ] {
        let repr = Repr::parse_unchecked(&[kind, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(repr.kind(), kind);
        assert_eq!(repr.is_error(), is_error, "type {kind}");
    }
}

#[test]
fn an_echo_with_a_code_is_something_else() {
    let repr = Repr::parse_unchecked(&[8, 1, 0, 0, 1, 2, 3, 4]).unwrap();
    assert_eq!(
        repr,
        Repr::Other {
            kind: 8,
            code: 1,
            rest: [1, 2, 3, 4]
        }
    );
}

fn any_repr() -> impl Strategy<Value = Repr> {
    prop_oneof![
        any::<(u16, u16)>().prop_map(|(ident, seq)| Repr::EchoRequest { ident, seq }),
        any::<(u16, u16)>().prop_map(|(ident, seq)| Repr::EchoReply { ident, seq }),
        any::<u8>()
            .prop_filter("has no MTU", |&code| code != 4)
            .prop_map(|code| Repr::DestinationUnreachable {
                code,
                next_hop_mtu: 0
            }),
        any::<u16>().prop_map(|next_hop_mtu| Repr::DestinationUnreachable {
            code: 4,
            next_hop_mtu
        }),
        any::<u8>().prop_map(|code| Repr::TimeExceeded { code }),
        any::<(u8, u8)>().prop_map(|(code, pointer)| Repr::ParameterProblem { code, pointer }),
        (13u8.., any::<u8>(), any::<[u8; 4]>()).prop_map(|(kind, code, rest)| Repr::Other {
            kind,
            code,
            rest
        }),
    ]
}

proptest! {
    #[test]
    fn emit_then_parse_gives_it_back(
        repr in any_repr(), payload in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut bytes = vec![0xff; HEADER_LEN];
        repr.emit(&mut bytes).unwrap();
        fill_checksum_parts(&mut bytes, &[&payload]).unwrap();
        bytes.extend(&payload);
        prop_assert_eq!(Repr::parse(&bytes), Ok(repr));
        if let Repr::EchoRequest { ident, seq } = repr {
            reply_in_place(&mut bytes).unwrap();
            prop_assert_eq!(Repr::parse(&bytes), Ok(Repr::EchoReply { ident, seq }));
        }
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80), v4: bool) {
        if let Some(first) = bytes.first_mut().filter(|_| v4) {
            *first = 0x45;
        }
        let _ = Repr::parse(&bytes);
        let _ = Embedded::parse(&bytes).map(|embedded| (embedded.ports(), embedded.tcp_seq()));
        let _ = build_error(&Repr::TimeExceeded { code: 0 }, &bytes, &mut [0; 50]);
        let _ = reply_in_place(&mut bytes);
    }
}
