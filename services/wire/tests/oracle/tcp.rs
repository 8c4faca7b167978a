//! TCP: headers, options, checksums, over both families.

use std::net::IpAddr;

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{TcpControl, TcpOption, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr};
use wire::SeqNumber;
use wire::tcp::{self, Flags, Options, Repr, Timestamps};

use crate::{any_addresses, damaged, noise};

prop_compose! {
    fn any_options(syn: bool)(
        mss in prop::option::of(1u16..), window_scale in prop::option::of(0u8..=14),
        sack_permitted: bool, timestamps: Option<(u32, u32)>,
        sack in prop::collection::vec(any::<(u32, u32)>(), 0..=3),
        user_timeout: Option<u16>,
    ) -> Options {
        Options {
            mss: mss.filter(|_| syn),
            window_scale: window_scale.filter(|_| syn),
            sack_permitted: sack_permitted && syn,
            timestamps: timestamps.map(|(tsval, tsecr)| Timestamps { tsval, tsecr }),
            sack: sack.into_iter().filter(|_| !syn)
                .map(|(left, right)| (SeqNumber(left), SeqNumber(right))).collect(),
            user_timeout: user_timeout.filter(|_| syn),
            fast_open: None,
        }
    }
}

prop_compose! {
    fn any_repr()(bits in 0u16..256)(
        ports in any::<(u16, u16)>(), numbers in any::<(u32, u32)>(), bits in Just(bits),
        window in any::<u16>(), urgent in any::<u16>(), options in any_options(bits & 2 != 0),
    ) -> Repr {
        Repr {
            src_port: ports.0, dst_port: ports.1, seq: SeqNumber(numbers.0),
            ack: SeqNumber(numbers.1), flags: Flags::from_bits_truncate(bits), window, urgent,
            options,
        }
    }
}

fn emitted(repr: &Repr, payload: &[u8], (src, dst): (IpAddr, IpAddr)) -> Vec<u8> {
    let mut bytes = vec![0xff; repr.header_len()];
    repr.emit(&mut bytes).unwrap();
    bytes.extend(payload);
    tcp::fill_checksum(&mut bytes, src, dst).unwrap();
    bytes
}

/// smoltcp's reading of an option list, by our rules about what counts when; `None` if it finds
/// the list broken (where we keep what came before).
fn their_options(mut bytes: &[u8], syn: bool) -> Option<Options> {
    let mut options = Options::default();
    while !bytes.is_empty() {
        let (rest, option) = TcpOption::parse(bytes).ok()?;
        match option {
            TcpOption::EndOfList => break,
            TcpOption::MaxSegmentSize(mss) if syn => options.mss = Some(mss).filter(|&m| m != 0),
            TcpOption::WindowScale(shift) if syn => options.window_scale = Some(shift.min(14)),
            TcpOption::SackPermitted if syn => options.sack_permitted = true,
            TcpOption::SackRange(ranges) => {
                options.sack = ranges
                    .into_iter()
                    .flatten()
                    .map(|(left, right)| (SeqNumber(left), SeqNumber(right)))
                    .collect();
            }
            TcpOption::TimeStamp { tsval, tsecr } => {
                options.timestamps = Some(Timestamps { tsval, tsecr });
            }
            TcpOption::Unknown {
                kind: 28,
                data: &[high, low],
            } => {
                options.user_timeout = Some(u16::from_be_bytes([high, low]));
            }
            _ => {}
        }
        bytes = rest;
    }
    Some(options)
}

fn control(flags: Flags) -> Option<TcpControl> {
    let [syn, fin, rst] = [Flags::SYN, Flags::FIN, Flags::RST].map(|flag| flags.contains(flag));
    match (syn, fin, rst) {
        (false, false, false) if flags.contains(Flags::PSH) => Some(TcpControl::Psh),
        (false, false, false) => Some(TcpControl::None),
        (true, false, false) => Some(TcpControl::Syn),
        (false, true, false) => Some(TcpControl::Fin),
        (false, false, true) => Some(TcpControl::Rst),
        _ => None,
    }
}

proptest! {
    #[test]
    fn both_agree_on_damaged_segments(
        repr in any_repr(), payload in noise(20), (src, dst) in any_addresses(),
        change in damaged(Just(vec![0u8; 60])), noise in noise(70), swap: bool,
    ) {
        let mut bytes = emitted(&repr, &payload, (src, dst));
        for (to, from) in bytes.iter_mut().zip(change) {
            *to ^= from;
        }
        let bytes = if swap { noise } else { bytes };
        let theirs = TcpPacket::new_checked(&bytes[..]).ok();
        let ours = Repr::parse(&bytes).ok();
        prop_assert_eq!(ours.is_some(), theirs.is_some());
        let (Some((ours, len)), Some(theirs)) = (ours, theirs) else { return Ok(()) };
        prop_assert_eq!(ours.src_port, theirs.src_port());
        prop_assert_eq!(ours.dst_port, theirs.dst_port());
        prop_assert_eq!(TcpSeqNumber(ours.seq.0.cast_signed()), theirs.seq_number());
        prop_assert_eq!(TcpSeqNumber(ours.ack.0.cast_signed()), theirs.ack_number());
        for (flag, set) in [
            (Flags::FIN, theirs.fin()), (Flags::SYN, theirs.syn()), (Flags::RST, theirs.rst()),
            (Flags::PSH, theirs.psh()), (Flags::ACK, theirs.ack()), (Flags::URG, theirs.urg()),
            (Flags::ECE, theirs.ece()), (Flags::CWR, theirs.cwr()),
        ] {
            prop_assert_eq!(ours.flags.contains(flag), set);
        }
        prop_assert_eq!(ours.window, theirs.window_len());
        prop_assert_eq!(ours.urgent, theirs.urgent_at());
        prop_assert_eq!(len, usize::from(theirs.header_len()));
        prop_assert_eq!(&bytes[len..], theirs.payload());
        prop_assert_eq!(
            tcp::verify_checksum(&bytes, src, dst),
            theirs.verify_checksum(&src.into(), &dst.into())
        );
        if let Some(mut expected) = their_options(theirs.options(), ours.flags.contains(Flags::SYN)) {
            // smoltcp loses a fourth SACK block and does not know fast open.
            let mut options = ours.options;
            options.sack.truncate(3);
            expected.fast_open = options.fast_open.clone();
            prop_assert_eq!(options, expected);
        }
    }

    #[test]
    fn written_by_us_reads_the_same(
        repr in any_repr(), payload in noise(20), (src, dst) in any_addresses(),
    ) {
        let bytes = emitted(&repr, &payload, (src, dst));
        let packet = TcpPacket::new_checked(&bytes[..]).unwrap();
        prop_assert_eq!(
            their_options(packet.options(), repr.flags.contains(Flags::SYN)),
            Some(repr.options.clone())
        );
        let parsed = TcpRepr::parse(
            &packet, &src.into(), &dst.into(), &ChecksumCapabilities::default(),
        );
        // smoltcp refuses port 0 and combinations of SYN, FIN and RST.
        let Some(control) = control(repr.flags).filter(|_| repr.src_port != 0 && repr.dst_port != 0)
        else {
            prop_assert!(parsed.is_err());
            return Ok(());
        };
        let parsed = parsed.unwrap();
        prop_assert_eq!(parsed.control, control);
        prop_assert_eq!(parsed.ack_number.is_some(), repr.flags.contains(Flags::ACK));
        prop_assert_eq!(parsed.max_seg_size, repr.options.mss);
        prop_assert_eq!(parsed.window_scale, repr.options.window_scale);
        prop_assert_eq!(parsed.payload, &payload[..]);
    }

    #[test]
    fn written_by_smoltcp_reads_the_same(
        repr in any_repr(), payload in noise(20), (src, dst) in any_addresses(),
    ) {
        let Some(control) = control(repr.flags) else { return Ok(()) };
        let has_ack = repr.flags.contains(Flags::ACK);
        // smoltcp writes SACK blocks with ACK only, and has neither the other flags nor the
        // urgent pointer nor a user timeout.
        let mut flags = repr.flags & (Flags::SYN | Flags::FIN | Flags::RST | Flags::ACK);
        flags.set(Flags::PSH, control == TcpControl::Psh);
        let mut expected = Repr { flags, urgent: 0, ..repr };
        expected.options.user_timeout = None;
        if !has_ack {
            expected.ack = SeqNumber(0);
            expected.options.sack.clear();
        }
        let mut ranges = [None; 3];
        for (to, (left, right)) in ranges.iter_mut().zip(&expected.options.sack) {
            *to = Some((left.0, right.0));
        }
        let theirs = TcpRepr {
            src_port: expected.src_port,
            dst_port: expected.dst_port,
            control,
            seq_number: TcpSeqNumber(expected.seq.0.cast_signed()),
            ack_number: has_ack.then(|| TcpSeqNumber(expected.ack.0.cast_signed())),
            window_len: expected.window,
            window_scale: expected.options.window_scale,
            max_seg_size: expected.options.mss,
            sack_permitted: expected.options.sack_permitted,
            sack_ranges: ranges,
            timestamp: expected.options.timestamps
                .map(|stamps| TcpTimestampRepr::new(stamps.tsval, stamps.tsecr)),
            payload: &payload,
        };
        let mut bytes = vec![0; theirs.buffer_len()];
        theirs.emit(
            &mut TcpPacket::new_unchecked(&mut bytes[..]), &src.into(), &dst.into(),
            &ChecksumCapabilities::default(),
        );
        prop_assert!(tcp::verify_checksum(&bytes, src, dst));
        let (ours, len) = Repr::parse(&bytes).unwrap();
        prop_assert_eq!(ours, expected);
        prop_assert_eq!(&bytes[len..], &payload[..]);
    }
}
