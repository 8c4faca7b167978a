//! Socket options: the transport keeps them; these are the typed forms.

use crate::error::os;
use crate::socket::Socket;
use abi::session::{Answer, Op, SockOpt, SockOptName};
use std::io;
use std::time::Duration;

impl Socket {
    /// Sets an option.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_option(&self, option: SockOpt) -> io::Result<()> {
        self.shared.order(Op::SetOption(self.shared.id, option))
    }

    /// Reads an option.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn option(&self, name: SockOptName) -> io::Result<SockOpt> {
        match self.shared.request(Op::GetOption(self.shared.id, name))? {
            Answer::Option(option) => Ok(option),
            _ => Err(self.shared.session.fault()),
        }
    }

    /// An answer of another option than was asked for.
    fn wrong(&self) -> io::Error {
        self.shared.session.fault()
    }

    pub(crate) fn ttl(&self) -> io::Result<u32> {
        match self.option(SockOptName::Ttl)? {
            SockOpt::Ttl(ttl) => Ok(ttl.into()),
            _ => Err(self.wrong()),
        }
    }

    pub(crate) fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        match u8::try_from(ttl) {
            Ok(ttl) if ttl > 0 => self.set_option(SockOpt::Ttl(ttl)),
            _ => Err(os(libc::EINVAL)),
        }
    }

    pub(crate) fn nodelay(&self) -> io::Result<bool> {
        match self.option(SockOptName::NoDelay)? {
            SockOpt::NoDelay(on) => Ok(on),
            _ => Err(self.wrong()),
        }
    }

    pub(crate) fn keepalive(&self) -> io::Result<bool> {
        match self.option(SockOptName::KeepAlive)? {
            SockOpt::KeepAlive(on) => Ok(on),
            _ => Err(self.wrong()),
        }
    }

    pub(crate) fn broadcast(&self) -> io::Result<bool> {
        match self.option(SockOptName::Broadcast)? {
            SockOpt::Broadcast(on) => Ok(on),
            _ => Err(self.wrong()),
        }
    }

    pub(crate) fn max_pacing_rate(&self) -> io::Result<u64> {
        match self.option(SockOptName::MaxPacingRate)? {
            SockOpt::MaxPacingRate(rate) => Ok(rate),
            _ => Err(self.wrong()),
        }
    }

    pub(crate) fn notsent_lowat(&self) -> io::Result<u32> {
        match self.option(SockOptName::NotSentLowat)? {
            SockOpt::NotSentLowat(mark) => Ok(mark),
            _ => Err(self.wrong()),
        }
    }

    pub(crate) fn linger(&self) -> io::Result<Option<Duration>> {
        match self.option(SockOptName::Linger)? {
            SockOpt::Linger(time) => Ok(time.map(|ms| Duration::from_millis(ms.into()))),
            _ => Err(self.wrong()),
        }
    }

    pub(crate) fn set_linger(&self, time: Option<Duration>) -> io::Result<()> {
        // Rounded up: zero is another thing.
        let millis = time.map(|t| t.as_nanos().div_ceil(1_000_000));
        let millis = millis.map(|t| u32::try_from(t).unwrap_or(u32::MAX));
        self.set_option(SockOpt::Linger(millis))
    }
}
