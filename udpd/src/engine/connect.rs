//! Default peers: `connect(2)` on datagram sockets.

use super::bind::own_form;
use super::demux::space_of;
use super::record::{Kind, flag};
use super::{Engine, Errno};
use abi::Endpoint;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use runtime::Fib;

impl Engine {
    /// Sets the default peer, the only one that is then received from; the own address becomes
    /// the one that leads to it. None takes the peer away, and with it what was not asked for
    /// by `bind`.
    ///
    /// # Errors
    /// As `connect(2)`: `ENETUNREACH`, `EACCES` for a broadcast address without `SO_BROADCAST`,
    /// `EAFNOSUPPORT`, `EAGAIN`.
    pub fn connect(
        &mut self,
        index: u32,
        peer: Option<SocketAddr>,
        fib: &Fib,
    ) -> Result<(), Errno> {
        let Some(peer) = peer else {
            self.disconnect(index);
            return Ok(());
        };
        let socket = self.get(index).ok_or(libc::EBADF)?;
        let (record, kind) = (socket.record, socket.kind);
        let ip = own_form(&record, peer.ip())?.unwrap_or(match peer.ip() {
            // Linux: to the unspecified address is to this host.
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
        let hop = fib.lookup(ip).ok_or(libc::ENETUNREACH)?;
        if hop.broadcast && !record.has(flag::BROADCAST) {
            return Err(libc::EACCES);
        }
        let local = match record.local_ip().filter(|_| record.has(flag::ADDR_BOUND)) {
            Some(own) if own.is_ipv4() != ip.is_ipv4() => return Err(libc::EINVAL),
            Some(own) => own,
            None => hop.source,
        };
        let port = if matches!(kind, Kind::Udp) {
            peer.port()
        } else {
            0
        };
        // RFC 6056 3.2: the port is chosen against the name that the socket will have.
        self.rename(index, |r| {
            let port = r.local.port;
            r.local = Endpoint::new(local, port);
            r.peer = Endpoint::NONE;
        });
        if let Err(e) = self.autobind(index) {
            self.disconnect(index);
            return Err(e);
        }
        self.rename(index, |r| r.peer = Endpoint::new(ip, port));
        Ok(())
    }

    fn disconnect(&mut self, index: u32) {
        let Some(socket) = self.get(index) else {
            return;
        };
        let has_space = space_of(socket.kind).is_some();
        self.rename(index, |r| {
            r.peer = Endpoint::NONE;
            let port = if r.has(flag::PORT_BOUND) && has_space {
                r.local.port
            } else {
                0
            };
            if !r.has(flag::ADDR_BOUND) {
                r.local = Endpoint::NONE;
            }
            r.local.port = port;
        });
    }
}
