//! Socket options: the part of a record that the application sets, with the names and numbers
//! of the session protocol.

use super::congestion::Algorithm;
use super::error::Errno;
use super::memory::lock;
use super::opening;
use super::options::MIN_MSS;
use super::state::State;
use super::tcb::Tcb;
use abi::session::{SockOpt, SockOptName};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of [`SockOpts::flags`].
pub mod flag {
    /// Small segments leave at once (`TCP_NODELAY`).
    pub const NODELAY: u32 = 1;
    /// Only full segments leave (`TCP_CORK`).
    pub const CORK: u32 = 2;
    /// Keepalive (`SO_KEEPALIVE`).
    pub const KEEPALIVE: u32 = 4;
    /// `SO_REUSEADDR`.
    pub const REUSEADDR: u32 = 8;
    /// `SO_REUSEPORT`.
    pub const REUSEPORT: u32 = 16;
    /// Linger (`SO_LINGER` on).
    pub const LINGER: u32 = 32;
    /// An IPv6 socket that takes no IPv4 (`IPV6_V6ONLY`).
    pub const V6ONLY: u32 = 64;
    /// Acknowledge at once (`TCP_QUICKACK`).
    pub const QUICKACK: u32 = 128;
    /// Urgent data stays in the stream (`SO_OOBINLINE`).
    pub const OOBINLINE: u32 = 256;
}

/// The options. 64 bytes of a record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SockOpts {
    /// See [`flag`].
    pub flags: u32,
    /// Linger time in milliseconds.
    pub linger_ms: u32,
    /// Idle time before keepalive probes, in milliseconds.
    pub keep_idle_ms: u32,
    /// Time between keepalive probes.
    pub keep_interval_ms: u32,
    /// Keepalive probes without an answer before the connection is given up.
    pub keep_count: u32,
    /// Longest time that data may go unacknowledged; 0: by retransmission count.
    pub user_timeout_ms: u32,
    /// Receive buffer in use, at most `rcv_capacity`.
    pub rcv_buf: u32,
    /// Send buffer in use, at most `snd_capacity`.
    pub snd_buf: u32,
    /// Most that the receive buffer's ring can grow to: a power of two.
    pub rcv_capacity: u32,
    /// Most that the send buffer's ring can grow to: a power of two.
    pub snd_capacity: u32,
    /// Time a listener waits for the first data before it hands a connection on; 0: not.
    pub defer_accept_ms: u32,
    /// `SO_MARK`.
    pub mark: u32,
    /// Upper bound of the MSS (`TCP_MAXSEG`); 0: none.
    pub max_segment: u16,
    /// TOS or traffic class, ECN bits zero.
    pub tos: u8,
    /// TTL or hop limit; 0: default.
    pub ttl: u8,
    /// Most that may be written and not sent (`TCP_NOTSENT_LOWAT`); 0 or `u32::MAX`: the buffer.
    pub notsent_lowat: u32,
    /// Bytes a second at which data leaves at most (`SO_MAX_PACING_RATE`); 0: no bound.
    pub max_pacing_rate: u64,
}

impl SockOpts {
    /// Defaults for buffers of these sizes (Linux's: 7200 s, 75 s, 9 probes).
    #[must_use]
    pub const fn new(rcv_capacity: u32, snd_capacity: u32) -> Self {
        Self {
            flags: 0,
            linger_ms: 0,
            keep_idle_ms: 7_200_000,
            keep_interval_ms: 75_000,
            keep_count: 9,
            user_timeout_ms: 0,
            rcv_buf: rcv_capacity,
            snd_buf: snd_capacity,
            rcv_capacity,
            snd_capacity,
            defer_accept_ms: 0,
            mark: 0,
            max_segment: 0,
            tos: 0,
            ttl: 0,
            notsent_lowat: 0,
            max_pacing_rate: 0,
        }
    }

    /// Whether `flag` is set.
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Sets or clears `flag`.
    pub fn set(&mut self, flag: u32, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }
}

/// Smallest buffer an application can ask for.
const MIN_BUFFER: u32 = 4_096;

impl Tcb {
    /// Sets an option.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for what is no option of a stream socket, `EINVAL` for a bad value or an
    /// option that comes too late.
    pub(crate) fn set_option(&mut self, option: &SockOpt) -> Result<(), Errno> {
        let state = self.state();
        let o = &mut self.opts;
        match *option {
            SockOpt::ReuseAddr(on) => o.set(flag::REUSEADDR, on),
            SockOpt::ReusePort(on) => o.set(flag::REUSEPORT, on),
            SockOpt::KeepAlive(on) => o.set(flag::KEEPALIVE, on),
            SockOpt::NoDelay(on) => o.set(flag::NODELAY, on),
            SockOpt::Cork(on) => o.set(flag::CORK, on),
            SockOpt::QuickAck(on) => o.set(flag::QUICKACK, on),
            SockOpt::OobInline(on) => o.set(flag::OOBINLINE, on),
            SockOpt::V6Only(on) => {
                if state != State::Closed || self.local.port != 0 {
                    return Err(Errno::EINVAL);
                }
                o.set(flag::V6ONLY, on);
            }
            SockOpt::Linger(time) => {
                o.set(flag::LINGER, time.is_some());
                o.linger_ms = time.unwrap_or(0);
            }
            SockOpt::RecvBuffer(size) => {
                o.rcv_buf = size.clamp(MIN_BUFFER.min(o.rcv_capacity), o.rcv_capacity);
                self.memory.locks |= lock::RCV;
            }
            SockOpt::SendBuffer(size) => {
                o.snd_buf = size.clamp(MIN_BUFFER.min(o.snd_capacity), o.snd_capacity);
                self.memory.locks |= lock::SND;
            }
            SockOpt::KeepIdle(ms) => o.keep_idle_ms = positive(ms)?,
            SockOpt::KeepInterval(ms) => o.keep_interval_ms = positive(ms)?,
            SockOpt::KeepCount(n) => {
                if !(1..=127).contains(&n) {
                    return Err(Errno::EINVAL);
                }
                o.keep_count = n;
            }
            SockOpt::UserTimeout(ms) => o.user_timeout_ms = ms,
            SockOpt::MaxSegment(size) => {
                let size = u16::try_from(size).map_err(|_| Errno::EINVAL)?;
                if size != 0 && size < MIN_MSS {
                    return Err(Errno::EINVAL);
                }
                o.max_segment = size;
            }
            SockOpt::DeferAccept(ms) => o.defer_accept_ms = ms,
            SockOpt::Congestion(ref name) => {
                let algorithm = Algorithm::by_name(name).ok_or(Errno(2))?;
                self.cc.choose(algorithm);
            }
            // The two low bits are ECN's, which is the stack's business.
            SockOpt::Tos(tos) => o.tos = tos & !3,
            SockOpt::Ttl(ttl) => o.ttl = ttl,
            SockOpt::Mark(mark) => o.mark = mark,
            SockOpt::FastOpen(limit) => self.opening.fast_open_queue = limit,
            SockOpt::FastOpenConnect(on) => {
                if !matches!(state, State::Closed) {
                    return Err(Errno::EINVAL);
                }
                self.opening.set(opening::flag::ON_CONNECT, on);
            }
            SockOpt::MaxPacingRate(rate) => {
                o.max_pacing_rate = if rate == u64::MAX { 0 } else { rate.max(1) };
            }
            SockOpt::NotSentLowat(mark) => o.notsent_lowat = mark,
            SockOpt::Broadcast(_) | SockOpt::PacketInfo(_) | SockOpt::MtuDiscover(_) => {
                return Err(Errno::ENOPROTOOPT);
            }
        }
        Ok(())
    }

    /// Reads an option.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for what is no option of a stream socket.
    pub(crate) fn option(&self, name: SockOptName) -> Result<SockOpt, Errno> {
        let o = &self.opts;
        Ok(match name {
            SockOptName::ReuseAddr => SockOpt::ReuseAddr(o.has(flag::REUSEADDR)),
            SockOptName::ReusePort => SockOpt::ReusePort(o.has(flag::REUSEPORT)),
            SockOptName::KeepAlive => SockOpt::KeepAlive(o.has(flag::KEEPALIVE)),
            SockOptName::NoDelay => SockOpt::NoDelay(o.has(flag::NODELAY)),
            SockOptName::Cork => SockOpt::Cork(o.has(flag::CORK)),
            SockOptName::QuickAck => SockOpt::QuickAck(o.has(flag::QUICKACK)),
            SockOptName::OobInline => SockOpt::OobInline(o.has(flag::OOBINLINE)),
            SockOptName::V6Only => SockOpt::V6Only(o.has(flag::V6ONLY)),
            SockOptName::Linger => SockOpt::Linger(o.has(flag::LINGER).then_some(o.linger_ms)),
            SockOptName::RecvBuffer => SockOpt::RecvBuffer(o.rcv_buf.saturating_mul(2)),
            SockOptName::SendBuffer => SockOpt::SendBuffer(o.snd_buf.saturating_mul(2)),
            SockOptName::KeepIdle => SockOpt::KeepIdle(o.keep_idle_ms),
            SockOptName::KeepInterval => SockOpt::KeepInterval(o.keep_interval_ms),
            SockOptName::KeepCount => SockOpt::KeepCount(o.keep_count),
            SockOptName::UserTimeout => SockOpt::UserTimeout(o.user_timeout_ms),
            SockOptName::MaxSegment => SockOpt::MaxSegment(u32::from(self.negotiated.mss())),
            SockOptName::DeferAccept => SockOpt::DeferAccept(o.defer_accept_ms),
            SockOptName::Congestion => SockOpt::Congestion(self.cc.control().name().to_owned()),
            SockOptName::Tos => SockOpt::Tos(o.tos),
            SockOptName::Ttl => SockOpt::Ttl(o.ttl),
            SockOptName::Mark => SockOpt::Mark(o.mark),
            SockOptName::FastOpen => SockOpt::FastOpen(self.opening.fast_open_queue),
            SockOptName::FastOpenConnect => {
                SockOpt::FastOpenConnect(self.opening.has(opening::flag::ON_CONNECT))
            }
            SockOptName::MaxPacingRate => SockOpt::MaxPacingRate(match o.max_pacing_rate {
                0 => u64::MAX,
                rate => rate,
            }),
            SockOptName::NotSentLowat => SockOpt::NotSentLowat(o.notsent_lowat),
            SockOptName::Broadcast | SockOptName::PacketInfo | SockOptName::MtuDiscover => {
                return Err(Errno::ENOPROTOOPT);
            }
        })
    }
}

fn positive(ms: u32) -> Result<u32, Errno> {
    if ms == 0 { Err(Errno::EINVAL) } else { Ok(ms) }
}
