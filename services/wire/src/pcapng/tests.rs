use super::{Direction, LINKTYPE_ETHERNET, Writer};

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

/// Steps from block to block, checking both lengths of each: (type, body).
fn blocks(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
    let mut found = vec![];
    while !bytes.is_empty() {
        let len = usize::try_from(word(bytes, 4)).unwrap();
        assert!(len.is_multiple_of(4));
        assert_eq!(word(bytes, 4), word(bytes, len - 4));
        found.push((word(bytes, 0), &bytes[8..len - 4]));
        bytes = &bytes[len..];
    }
    found
}

#[test]
fn a_file_is_a_chain_of_whole_blocks() {
    let mut writer = Writer::new(vec![]).unwrap();
    assert_eq!(writer.interface("tap0", LINKTYPE_ETHERNET, 0).unwrap(), 0);
    assert_eq!(writer.interface("tap12", LINKTYPE_ETHERNET, 96).unwrap(), 1);
    let time = 0x0123_4567_89ab_cdef;
    writer
        .packet(1, time, Direction::Outbound, &[b"abc", b"de"], Some(60))
        .unwrap();
    writer.packet(0, 1, Direction::Unknown, &[], None).unwrap();
    writer.flush().unwrap();
    let bytes = writer.into_inner();
    let blocks = blocks(&bytes);
    assert_eq!(
        blocks.iter().map(|block| block.0).collect::<Vec<_>>(),
        [0x0a0d_0d0a, 1, 1, 6, 6]
    );
    let section = blocks[0].1;
    assert_eq!(word(section, 0), 0x1a2b_3c4d);
    assert_eq!(section[4..8], [1, 0, 0, 0]);
    let interface = blocks[2].1;
    assert_eq!(interface[..4], [1, 0, 0, 0]);
    assert_eq!(word(interface, 4), 96);
    // Name, nanosecond resolution, end.
    assert_eq!(
        interface[8..20],
        [2, 0, 5, 0, b't', b'a', b'p', b'1', b'2', 0, 0, 0]
    );
    assert_eq!(interface[20..], [9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    let packet = blocks[3].1;
    assert_eq!(word(packet, 0), 1);
    assert_eq!(
        (word(packet, 4), word(packet, 8)),
        (0x0123_4567, 0x89ab_cdef)
    );
    assert_eq!((word(packet, 12), word(packet, 16)), (5, 60));
    assert_eq!(packet[20..28], *b"abcde\0\0\0");
    assert_eq!(packet[28..], [2, 0, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(blocks[4].1.len(), 20);
}

#[test]
fn an_undeclared_interface_is_refused_and_nothing_written() {
    let mut writer = Writer::new(vec![]).unwrap();
    let error = writer
        .packet(0, 0, Direction::Inbound, &[b"x"], None)
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(writer.into_inner().len(), 28);
}

#[test]
fn a_long_name_is_cut() {
    let mut writer = Writer::new(vec![]).unwrap();
    writer
        .interface(&"é".repeat(3000), LINKTYPE_ETHERNET, 0)
        .unwrap();
    assert_eq!(
        blocks(&writer.into_inner())[1].1.len(),
        8 + 4 + 1024 + 8 + 4
    );
}

/// The comment is an option of its own in front of the flags, and the block's length counts it.
#[test]
fn a_comment_is_an_option_of_the_packet() {
    let mut writer = Writer::new(Vec::new()).unwrap();
    let interface = writer.interface("q", super::LINKTYPE_RAW, 0).unwrap();
    let begin = writer.sink.len();
    writer
        .commented(
            interface,
            1,
            Direction::Inbound,
            &[b"abcde"],
            None,
            "why it died",
        )
        .unwrap();
    let block = writer.into_inner().split_off(begin);
    let len = u32::try_from(block.len()).unwrap().to_le_bytes();
    assert_eq!(
        (&block[4..8], &block[block.len() - 4..]),
        (&len[..], &len[..])
    );
    let options = &block[28 + 8..];
    assert_eq!(&options[..4], [1, 0, 11, 0]);
    assert_eq!(&options[4..16], b"why it died\0");
    assert_eq!(options[16..20], [2, 0, 4, 0]);
}
