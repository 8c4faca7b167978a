//! IP protocol numbers (IANA "Assigned Internet Protocol Numbers"), which IPv6 calls next-header
//! values. Plain `u8`s, because transports register with ipd by number.

/// Internet Control Message Protocol, RFC 792.
pub const ICMP: u8 = 1;
/// Transmission Control Protocol, RFC 9293.
pub const TCP: u8 = 6;
/// User Datagram Protocol, RFC 768.
pub const UDP: u8 = 17;
/// IPv6 hop-by-hop options, RFC 8200 4.3.
pub const IPV6_HOP_BY_HOP: u8 = 0;
/// IPv6 routing header, RFC 8200 4.4.
pub const IPV6_ROUTING: u8 = 43;
/// IPv6 fragment header, RFC 8200 4.5.
pub const IPV6_FRAGMENT: u8 = 44;
/// Encapsulating Security Payload, RFC 4303.
pub const ESP: u8 = 50;
/// Authentication Header, RFC 4302.
pub const AH: u8 = 51;
/// ICMP for IPv6, RFC 4443.
pub const ICMPV6: u8 = 58;
/// IPv6 no next header, RFC 8200 4.7.
pub const IPV6_NO_NEXT: u8 = 59;
/// IPv6 destination options, RFC 8200 4.6.
pub const IPV6_DEST_OPTIONS: u8 = 60;
