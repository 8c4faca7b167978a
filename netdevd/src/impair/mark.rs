//! Congestion marks (RFC 3168 5): instead of losing a packet of a transport that understands
//! them, as the `ecn` of `tc netem`.

use wire::checksum::update16;

const ETHERTYPE: usize = 12;
const IP: usize = wire::ethernet::HEADER_LEN;
/// ECN's two bits: "congestion experienced" when both are set, no ECN when none is.
const CE: u16 = 3;

/// Marks a frame; false, with nothing changed, when its transport does not understand marks, or
/// when it is no IP packet.
pub(super) fn mark(frame: &mut [u8]) -> bool {
    match word(frame, ETHERTYPE) {
        // The first word of the header ends with DSCP and ECN.
        Some(0x0800) => {
            let Some(old) = word(frame, IP).filter(|old| old & CE != 0) else {
                return false;
            };
            let Some(check) = word(frame, IP + 10) else {
                return false;
            };
            let new = old | CE;
            put(frame, IP + 10, update16(check, old, new));
            put(frame, IP, new);
            true
        }
        // The traffic class lies four bits further left.
        Some(0x86dd) => {
            let Some(old) = word(frame, IP).filter(|old| old >> 4 & CE != 0) else {
                return false;
            };
            put(frame, IP, old | CE << 4);
            true
        }
        _ => false,
    }
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    let bytes = frame.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}

fn put(frame: &mut [u8], at: usize, value: u16) {
    if let Some(bytes) = frame.get_mut(at..at + 2) {
        bytes.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(tos: u8) -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14..26].copy_from_slice(&[0x45, tos, 0, 40, 0, 7, 0, 0, 64, 6, 0, 0]);
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        let check = wire::checksum::of(&frame[14..34]);
        frame[24..26].copy_from_slice(&check.to_be_bytes());
        frame
    }

    // RFC 3168 5: ECT(0) and ECT(1) become CE, and CE stays; RFC 1624: the checksum holds.
    #[test]
    fn ipv4_is_marked_and_its_checksum_holds() {
        for tos in [1, 2, 3, 0xb9, 0xfe] {
            let mut frame = ipv4(tos);
            assert!(mark(&mut frame));
            assert_eq!(frame, ipv4(tos | 3), "{tos:#x}");
        }
    }

    #[test]
    fn who_knows_no_marks_gets_none() {
        for mut frame in [ipv4(0), ipv4(0xfc), vec![], vec![0; 13], vec![8; 30]] {
            let before = frame.clone();
            assert!(!mark(&mut frame));
            assert_eq!(frame, before);
        }
        // Cut off within the header.
        let mut short = ipv4(2);
        short.truncate(20);
        assert!(!mark(&mut short));
    }

    #[test]
    fn ipv6_is_marked() {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[14..18].copy_from_slice(&[0x6b, 0x81, 0x23, 0x45]);
        assert!(!mark(&mut frame));
        frame[15] = 0xa1;
        assert!(mark(&mut frame));
        assert_eq!(frame[14..18], [0x6b, 0xb1, 0x23, 0x45]);
    }
}
