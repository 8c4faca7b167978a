//! Peers: what the other end of a connection does, on the kernel's sockets or on the stack's.

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

/// A connected stream of either stack.
pub trait Stream: Read + Write + Send + Sized + 'static {
    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    fn again(&self) -> io::Result<Self>;
    /// `shutdown(2)`.
    ///
    /// # Errors
    /// When it is not connected.
    fn shut(&self, how: Shutdown) -> io::Result<()>;
    /// Bounds each read, so that a test that fails ends.
    ///
    /// # Errors
    /// Never, for times that are not zero.
    fn patience(&self, time: Duration) -> io::Result<()>;
    /// Has closing wait until all is acknowledged, at most so many seconds (`SO_LINGER`).
    ///
    /// # Errors
    /// Never, on a connected socket.
    fn linger_for(&self, seconds: u16) -> io::Result<()>;
}

macro_rules! stream {
    ($type:ty, $linger:expr) => {
        impl Stream for $type {
            fn again(&self) -> io::Result<Self> {
                self.try_clone()
            }
            fn shut(&self, how: Shutdown) -> io::Result<()> {
                self.shutdown(how)
            }
            fn patience(&self, time: Duration) -> io::Result<()> {
                self.set_read_timeout(Some(time))?;
                self.set_write_timeout(Some(time))
            }
            fn linger_for(&self, seconds: u16) -> io::Result<()> {
                $linger(self, seconds)
            }
        }
    };
}

fn kernel_linger(stream: &std::net::TcpStream, seconds: u16) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: seconds.into(),
    };
    Ok(setsockopt(stream, sockopt::Linger, &linger)?)
}

fn stack_linger(stream: &libsocket::TcpStream, seconds: u16) -> io::Result<()> {
    stream.set_linger(Some(Duration::from_secs(seconds.into())))
}

stream!(std::net::TcpStream, kernel_linger);
stream!(libsocket::TcpStream, stack_linger);

/// Sends everything it receives back, then FIN after FIN.
///
/// # Errors
/// When the connection breaks.
pub fn echo(mut stream: impl Stream) -> io::Result<u64> {
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        let n = stream.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..n).filter(|b| !b.is_empty()) else {
            stream.shut(Shutdown::Write)?;
            return Ok(total);
        };
        stream.write_all(bytes)?;
        total += n as u64;
    }
}
