//! Socket options.

use super::record::{Kind, flag};
use super::{Engine, Errno};
use abi::session::{SockOpt, SockOptName};

/// Least buffer size that can be set, as Linux (`SOCK_MIN_RCVBUF`).
const MIN_BUFFER: u32 = 2304;

/// `IP_MTU_DISCOVER`'s highest value (`IP_PMTUDISC_OMIT`).
const MTU_DISCOVER_MAX: u8 = 5;
/// `IP_PMTUDISC_DO` and `IP_PMTUDISC_PROBE`: never fragment.
const MTU_DISCOVER_NEVER: [u8; 2] = [2, 3];

impl Engine {
    /// Sets an option.
    ///
    /// # Errors
    /// `EINVAL` for a value out of range or too late, `ENOPROTOOPT` for one that datagram
    /// sockets do not have.
    pub fn set_option(&mut self, index: u32, option: &SockOpt) -> Result<(), Errno> {
        let (tx, rx) = self.capacity();
        let socket = self.get_mut(index).ok_or(libc::EBADF)?;
        let bound = socket.record.local.port != 0;
        let record = &mut socket.record;
        match *option {
            // The flags count in the lookup tables.
            SockOpt::ReuseAddr(on) => return self.set_flag(index, flag::REUSE_ADDR, on),
            SockOpt::ReusePort(on) => return self.set_flag(index, flag::REUSE_PORT, on),
            SockOpt::V6Only(_) if bound || record.v6 == 0 => return Err(libc::EINVAL),
            SockOpt::V6Only(on) => return self.set_flag(index, flag::V6_ONLY, on),
            SockOpt::Broadcast(on) => record.set(flag::BROADCAST, on),
            SockOpt::PacketInfo(on) => record.set(flag::PACKET_INFO, on),
            // Linux doubles what is asked for, for its own bookkeeping; programs expect to see
            // the double.
            SockOpt::RecvBuffer(n) => record.rx_limit = n.saturating_mul(2).clamp(MIN_BUFFER, rx),
            SockOpt::SendBuffer(n) => record.tx_limit = n.saturating_mul(2).clamp(MIN_BUFFER, tx),
            SockOpt::Tos(n) => record.tos = n,
            SockOpt::Ttl(0) => return Err(libc::EINVAL),
            SockOpt::Ttl(n) => record.ttl = n,
            SockOpt::MtuDiscover(n) if n > MTU_DISCOVER_MAX => return Err(libc::EINVAL),
            SockOpt::MtuDiscover(n) => record.mtu_discover = n,
            SockOpt::Mark(n) => record.mark = n,
            // Accepted and without effect, as on Linux's datagram sockets.
            SockOpt::KeepAlive(_) | SockOpt::Linger(_) => {}
            SockOpt::NoDelay(_)
            | SockOpt::Cork(_)
            | SockOpt::QuickAck(_)
            | SockOpt::KeepIdle(_)
            | SockOpt::KeepInterval(_)
            | SockOpt::KeepCount(_)
            | SockOpt::UserTimeout(_)
            | SockOpt::MaxSegment(_)
            | SockOpt::DeferAccept(_)
            | SockOpt::OobInline(_)
            | SockOpt::FastOpen(_)
            | SockOpt::FastOpenConnect(_)
            | SockOpt::MaxPacingRate(_)
            | SockOpt::NotSentLowat(_)
            | SockOpt::Congestion(_) => return Err(libc::ENOPROTOOPT),
        }
        self.mark(index);
        Ok(())
    }

    fn set_flag(&mut self, index: u32, flag: u32, on: bool) -> Result<(), Errno> {
        self.rename(index, |r| r.set(flag, on)).ok_or(libc::EBADF)
    }

    /// Reads an option.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for one that datagram sockets do not have.
    pub fn option(&self, index: u32, name: SockOptName) -> Result<SockOpt, Errno> {
        let r = &self.get(index).ok_or(libc::EBADF)?.record;
        Ok(match name {
            SockOptName::ReuseAddr => SockOpt::ReuseAddr(r.has(flag::REUSE_ADDR)),
            SockOptName::ReusePort => SockOpt::ReusePort(r.has(flag::REUSE_PORT)),
            SockOptName::V6Only => SockOpt::V6Only(r.has(flag::V6_ONLY)),
            SockOptName::Broadcast => SockOpt::Broadcast(r.has(flag::BROADCAST)),
            SockOptName::PacketInfo => SockOpt::PacketInfo(r.has(flag::PACKET_INFO)),
            SockOptName::RecvBuffer => SockOpt::RecvBuffer(r.rx_limit),
            SockOptName::SendBuffer => SockOpt::SendBuffer(r.tx_limit),
            SockOptName::Tos => SockOpt::Tos(r.tos),
            // 0 is the stack's default, which is RFC 1700's.
            SockOptName::Ttl => SockOpt::Ttl(if r.ttl == 0 { 64 } else { r.ttl }),
            SockOptName::MtuDiscover => SockOpt::MtuDiscover(r.mtu_discover),
            SockOptName::Mark => SockOpt::Mark(r.mark),
            SockOptName::KeepAlive => SockOpt::KeepAlive(false),
            SockOptName::Linger => SockOpt::Linger(None),
            SockOptName::NoDelay
            | SockOptName::Cork
            | SockOptName::QuickAck
            | SockOptName::KeepIdle
            | SockOptName::KeepInterval
            | SockOptName::KeepCount
            | SockOptName::UserTimeout
            | SockOptName::MaxSegment
            | SockOptName::DeferAccept
            | SockOptName::OobInline
            | SockOptName::FastOpen
            | SockOptName::FastOpenConnect
            | SockOptName::MaxPacingRate
            | SockOptName::NotSentLowat
            | SockOptName::Congestion => return Err(libc::ENOPROTOOPT),
        })
    }

    /// Whether what a socket sends may be fragmented.
    #[must_use]
    pub fn may_fragment(&self, index: u32) -> bool {
        self.get(index)
            .is_some_and(|s| !MTU_DISCOVER_NEVER.contains(&s.record.mtu_discover))
    }

    /// Whether the socket is of that kind.
    #[must_use]
    pub fn is_kind(&self, index: u32, kind: Kind) -> bool {
        self.get(index).is_some_and(|s| s.kind == kind)
    }
}
