//! Peers: what the other end of a connection does, on the kernel's sockets or on the stack's.

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
}

macro_rules! stream {
    ($type:ty) => {
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
        }
    };
}

stream!(std::net::TcpStream);
stream!(libsocket::TcpStream);

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
