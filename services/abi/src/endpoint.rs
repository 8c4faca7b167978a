//! An address and port as plain old data, both families alike.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// IPv4 (`AF_INET`'s number, so that it reads well in a debugger).
pub const FAMILY_V4: u16 = 2;
/// IPv6.
pub const FAMILY_V6: u16 = 10;

/// A socket address of either family in 20 bytes; family 0 means absent.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Endpoint {
    /// The address in network order; IPv4 takes the first four bytes, the rest are zero.
    pub addr: [u8; 16],
    /// [`FAMILY_V4`], [`FAMILY_V6`] or 0 for none.
    pub family: u16,
    /// Port in host order; 0 where there is none.
    pub port: u16,
}

impl Endpoint {
    /// No address.
    pub const NONE: Self = Self {
        addr: [0; 16],
        family: 0,
        port: 0,
    };

    /// From an address and a port.
    #[must_use]
    pub fn new(ip: IpAddr, port: u16) -> Self {
        let mut addr = [0; 16];
        let family = match ip {
            IpAddr::V4(v4) => {
                for (to, from) in addr.iter_mut().zip(v4.octets()) {
                    *to = from;
                }
                FAMILY_V4
            }
            IpAddr::V6(v6) => {
                addr = v6.octets();
                FAMILY_V6
            }
        };
        Self { addr, family, port }
    }

    /// The address, if the family is a known one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self.family {
            FAMILY_V4 => {
                let [a, b, c, d, ..] = self.addr;
                Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
            }
            FAMILY_V6 => Some(IpAddr::V6(Ipv6Addr::from(self.addr))),
            _ => None,
        }
    }

    /// Address and port as the standard type, if there is an address.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.ip().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// Whether there is an address.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.family != 0
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(a: SocketAddr) -> Self {
        Self::new(a.ip(), a.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["10.77.0.2:80", "[fe80::1]:443"] {
            let a: SocketAddr = text.parse().unwrap();
            assert_eq!(Endpoint::from(a).socket_addr(), Some(a));
        }
        assert_eq!(Endpoint::NONE.socket_addr(), None);
    }
}
