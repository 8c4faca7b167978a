//! What concerns how connections begin and end under load: the switches, and the part of a
//! record that only the beginning needs.

use super::state::State;
use super::tcb::Tcb;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Switches of opening and closing; Linux's defaults where it has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenConfig {
    /// Answer SYNs with a cookie when a listener's SYN queue is full (`tcp_syncookies` = 1).
    pub syn_cookies: bool,
    /// Ask for and use Fast Open cookies, if the application wants it (`tcp_fastopen` bit 0).
    pub fast_open_client: bool,
    /// Connections without an application that are not in TIME_WAIT or FIN_WAIT_2, at most
    /// (`tcp_max_orphans`); one more is reset.
    pub max_orphans: u32,
    /// Segments without payload that do not fit, and what must be challenged, are answered for
    /// one connection at most this often (`tcp_invalid_ratelimit`), so that two confused ends do
    /// not answer each other for ever.
    pub invalid_ratelimit: abi::Nanos,
    /// Resets do not end TIME_WAIT (`tcp_rfc1337`).
    pub rfc1337: bool,
    /// Take data with SYNs on listeners that allow it (`tcp_fastopen` bit 1).
    pub fast_open_server: bool,
    /// How long Fast Open cookies are given under the same key (RFC 7413 5.1); they are good for
    /// as long again.
    pub fast_open_key: abi::Nanos,
}

impl Default for OpenConfig {
    fn default() -> Self {
        Self {
            syn_cookies: true,
            fast_open_client: true,
            fast_open_server: true,
            fast_open_key: 3_600 * super::config::SECOND,
            max_orphans: 8_192,
            invalid_ratelimit: 500 * super::config::MILLISECOND,
            rfc1337: false,
        }
    }
}

/// Bits of [`Opening::flags`].
pub mod flag {
    /// A child whose SYN brought a Fast Open cookie: the application has it before the handshake
    /// is over, and may send.
    pub const EARLY: u32 = 1;
    /// The own SYN,ACK carries [`super::Opening::cookie`].
    pub const GIVES_COOKIE: u32 = 2;
    /// The own SYN carries [`super::Opening::cookie`], or the request for one.
    pub const WANTS: u32 = 4;
    /// The own SYN waits for the application's first bytes.
    pub const DEFERRED: u32 = 8;
    /// The application was told that it is connected before it is.
    pub const TOLD: u32 = 16;
    /// `TCP_FASTOPEN_CONNECT`.
    pub const ON_CONNECT: u32 = 32;
    /// The data of a SYN was taken: ours by the peer or the peer's by us.
    pub const SYN_DATA: u32 = 64;
    /// The own SYN or SYN,ACK had been sent more than once when it was answered.
    pub const SYN_AGAIN: u32 = 128;
}

/// Bytes of the cookies that this side gives.
pub const COOKIE_LEN: usize = 8;

/// A connection's part. 32 bytes of a record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Opening {
    /// See [`flag`].
    pub flags: u32,
    /// Of a listener: how many connections may be open early at a time (`TCP_FASTOPEN`); 0: none.
    pub fast_open_queue: u32,
    /// Bytes that the own SYN carried. They count as sent only once they are acknowledged.
    pub syn_data: u32,
    /// The peer's MSS as remembered with the cookie; 0 if not known.
    pub known_mss: u16,
    /// Bytes of the cookie.
    pub cookie_len: u8,
    /// Zero.
    pub reserved: u8,
    /// A Fast Open cookie (RFC 7413 4.1.1).
    pub cookie: [u8; 16],
}

impl Opening {
    /// Whether `flag` is set.
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Sets or clears `flag`.
    pub(crate) fn set(&mut self, flag: u32, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    /// The cookie as an option carries it.
    pub(crate) fn option(&self) -> arrayvec::ArrayVec<u8, 16> {
        let cookie = self.cookie.get(..usize::from(self.cookie_len));
        cookie.unwrap_or_default().iter().copied().collect()
    }

    /// Notes a cookie for the option; what is too long is none.
    pub(crate) fn set_cookie(&mut self, cookie: &[u8]) {
        self.cookie_len = 0;
        if let Some(place) = self.cookie.get_mut(..cookie.len()) {
            place.copy_from_slice(cookie);
            self.cookie_len = u8::try_from(cookie.len()).unwrap_or(0);
        }
    }
}

impl Tcb {
    /// A Fast Open child whose handshake is not over (RFC 7413 4.2.2).
    #[must_use]
    pub fn is_early(&self) -> bool {
        self.state() == State::SynReceived && self.opening.has(flag::EARLY)
    }

    /// Whether data or a FIN may leave or leave again.
    #[must_use]
    pub fn may_send(&self) -> bool {
        self.state().can_transmit() || self.is_early()
    }

    /// Whether the application may take the socket for connected: it is, or Fast Open makes it
    /// look so.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self.state() {
            State::SynSent => self.opening.has(flag::TOLD),
            State::SynReceived => self.opening.flags & (flag::EARLY | flag::TOLD) != 0,
            state => state.is_synchronized(),
        }
    }
}
