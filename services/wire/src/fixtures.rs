//! Frames that Linux 6.18 sent over a veth pair, with checksum offload off (so the checksums are
//! whole) and on (so they are partial). 10.77.0.1 and fd77::1 at 02:00:00:00:00:01 speak to .2.

/// SYN to port 80 over IPv4, checksum whole.
pub(crate) const SYN_V4: &str = "02000000000202000000000108004500003c6c3040004006b9ef0a4d00010a4d0002\
    9c4000508328adf600000000a002faf072950000020405b40402080aab704cba000000000103030a";
/// SYN over IPv6, checksum whole.
pub(crate) const SYN_V6: &str = "02000000000202000000000186dd6003e7ed00280640\
    fd770000000000000000000000000001fd770000000000000000000000000002\
    9c40005032c2816e00000000a002fd20f0380000020405a00402080aa85566ae000000000103030a";
/// UDP "hello" to port 7 over IPv4, checksum whole.
pub(crate) const UDP_V4: &str = "0200000000020200000000010800450000218ea94000401197860a4d00010a4d0002\
    13880007000d93d668656c6c6f";
/// UDP "hello" over IPv6, checksum whole.
pub(crate) const UDP_V6: &str = "02000000000202000000000186dd6001e548000d1140\
    fd770000000000000000000000000001fd770000000000000000000000000002\
    13880007000dad8068656c6c6f";
/// SYN over IPv4 whose checksum the device should complete.
pub(crate) const SYN_V4_PARTIAL: &str = "02000000000202000000000108004500003c8e374000400697e80a4d00010a4d0002\
    9c4100506375c65600000000a002faf014cb0000020405b40402080a64cc8584000000000103030a";
/// UDP over IPv4 whose checksum the device should complete.
pub(crate) const UDP_V4_PARTIAL: &str = "020000000002020000000001080045000021900b4000401196240a4d00010a4d0002\
    13880007000d14bb68656c6c6f";
/// SYN over IPv6 whose checksum the device should complete.
pub(crate) const SYN_V6_PARTIAL: &str = "02000000000202000000000186dd600df04500280640\
    fd770000000000000000000000000001fd770000000000000000000000000002\
    9c410050786dac8800000000a002fd20fb200000020405a00402080a46f0347a000000000103030a";

/// The bytes of a fixture.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .filter_map(|digit| u8::try_from(digit).ok())
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
