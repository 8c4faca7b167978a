//! What the mix has no need of, or seldom: a session and a socket, a neighbour that is new, a
//! refused connection, urgent data, a buffer that was used far.

use crate::tcp::connect;
use anyhow::{Context, Result, ensure};
use libsocket::Stack;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use shm::crash::Point;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::thread::sleep;
use std::time::Duration;
use strata::lab::Lab;
use strata::netns::set_address;

/// How long a sign of urgent data may take, a death on the way included.
const SOON: u16 = 5000;

/// The part for one layer.
pub(super) struct Stimulus<'a> {
    lab: &'a Lab,
    layer: &'static str,
    /// The last byte of the next new neighbour's address.
    host: u8,
    urgent: Option<(std::net::TcpStream, libsocket::TcpStream)>,
    bytes: u8,
}

impl<'a> Stimulus<'a> {
    pub(super) fn new(lab: &'a Lab, layer: &'static str) -> Result<Self> {
        let urgent = match layer {
            "tcpd" => Some(connect(lab, &Stack::open(lab.path()), true)?),
            _ => None,
        };
        Ok(Self {
            lab,
            layer,
            host: 10,
            urgent,
            bytes: 0,
        })
    }

    /// Once everything, as far as it can lead to `point`.
    pub(super) fn act(&mut self, point: Point) -> Result<()> {
        let lab = self.lab;
        let stack = Stack::open(lab.path());
        match self.layer {
            "tcpd" => {
                drop(stack.listen((lab.stack, 0)).context("a listener")?);
                // Refused: nobody listens there.
                let refused = stack.connect((lab.host, 9)).map(drop).map_err(|e| e.kind());
                ensure!(
                    refused == Err(ErrorKind::ConnectionRefused),
                    "{refused:?} of a port where nobody listens"
                );
                match point {
                    Point::UrgentShown | Point::UrgentMarked | Point::UrgentSent => self.urge()?,
                    Point::PagesGiven => used_far(lab, &stack)?,
                    Point::HalfRevoked => not_taken(lab, &stack)?,
                    _ => {}
                }
            }
            "udpd" => drop(stack.udp((lab.stack, 0)).context("a socket")?),
            "ipd" if self.host < 200 => {
                let [a, b, c, _] = lab.host.octets();
                let host = std::net::Ipv4Addr::new(a, b, c, self.host);
                self.host += 1;
                set_address(&lab.host_interface, format!("{host}/24").parse()?)?;
                let socket = stack.udp((lab.stack, 0))?;
                socket.send_to(b"who are you", (host, 9))?;
                sleep(Duration::from_millis(5));
            }
            _ => {}
        }
        Ok(())
    }

    /// An urgent byte, which is shown, found and the right one.
    fn urge(&mut self) -> Result<()> {
        let Some((theirs, ours)) = &self.urgent else {
            return Ok(());
        };
        self.bytes = self.bytes.wrapping_add(1);
        send(theirs.as_raw_fd(), &[b'-', self.bytes], MsgFlags::MSG_OOB)?;
        let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLPRI)];
        poll(&mut fds, PollTimeout::from(SOON))?;
        let shown = fds[0].revents().unwrap_or(PollFlags::empty());
        ensure!(
            shown.contains(PollFlags::POLLPRI),
            "urgent data is not shown: {shown:?}"
        );
        let byte = ours.socket().recv_oob(false).context("urgent data")?;
        ensure!(
            byte == Some(self.bytes),
            "{byte:?} is urgent, not {}",
            self.bytes
        );
        let mut byte = [0];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let read = ours.socket().recv_vectored(&mut bytes, false, false)?;
        ensure!((read, byte) == (1, *b"-"), "{read} bytes: {byte:?}");
        Ok(())
    }

    /// Nothing was lost on the way.
    pub(super) fn finish(&mut self) -> Result<()> {
        for _ in 0..3 {
            self.urge()?;
        }
        Ok(())
    }
}

/// A buffer that was walked through further than its pages are kept for, and is freed.
fn used_far(lab: &Lab, stack: &Stack) -> Result<()> {
    let (mut theirs, mut ours) = connect(lab, stack, true)?;
    let sent: Vec<u8> = (0..600_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let expected = sent.clone();
    let writer = std::thread::spawn(move || theirs.write_all(&sent));
    let mut got = Vec::new();
    ours.read_to_end(&mut got)?;
    let _ = writer.join();
    ensure!(got == expected, "{} bytes came, or others", got.len());
    Ok(())
}

/// A connection that nobody accepts before its listener is gone.
fn not_taken(lab: &Lab, stack: &Stack) -> Result<()> {
    let listener = stack.listen((lab.stack, 0))?;
    let to = listener.local_addr()?;
    let theirs = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    drop(listener);
    drop(theirs);
    Ok(())
}
