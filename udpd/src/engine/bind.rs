//! Names: `bind(2)`, and the port a socket gets when it sends without one.

use super::demux::{NameRecord, space_of};
use super::ports::conflicts;
use super::record::flag;
use super::{Engine, Errno};
use abi::Endpoint;
use core::net::{IpAddr, SocketAddr};
use runtime::Fib;

impl Engine {
    /// Binds.
    ///
    /// # Errors
    /// As `bind(2)`: `EINVAL` when it has a port already, `EADDRNOTAVAIL` for an address that is
    /// not ours, `EADDRINUSE`, `EAFNOSUPPORT`.
    pub fn bind(&mut self, index: u32, address: SocketAddr, fib: &Fib) -> Result<(), Errno> {
        let socket = self.get(index).ok_or(libc::EBADF)?;
        let (record, kind) = (socket.record, socket.kind);
        let space = space_of(kind);
        if record.local.port != 0 || (space.is_none() && record.has(flag::ADDR_BOUND)) {
            return Err(libc::EINVAL);
        }
        let ip = own_form(&record, address.ip())?;
        if let Some(ip) = ip {
            let to_many = ip.is_multicast() || fib.is_broadcast(ip);
            if !to_many && !fib.is_local(ip) {
                return Err(libc::EADDRNOTAVAIL);
            }
        }
        let mut name = NameRecord::of(&record);
        name.local = ip;
        let port = match (space, address.port()) {
            (None, _) => 0,
            (Some(space), 0) => self.ports.choose(&self.demux, space, &name)?,
            (Some(space), port) => {
                if conflicts(self.demux.on_port(space, port), index, &name) {
                    return Err(libc::EADDRINUSE);
                }
                port
            }
        };
        self.rename(index, |r| {
            r.local = ip.map_or(Endpoint::NONE, |ip| Endpoint::new(ip, 0));
            r.local.port = port;
            r.set(flag::ADDR_BOUND, ip.is_some());
            r.set(flag::PORT_BOUND, address.port() != 0);
        });
        Ok(())
    }

    /// Gives a socket a port if it has none.
    ///
    /// # Errors
    /// `EAGAIN` when all are taken.
    pub fn autobind(&mut self, index: u32) -> Result<(), Errno> {
        let socket = self.get(index).ok_or(libc::EBADF)?;
        let Some(space) = space_of(socket.kind).filter(|_| socket.record.local.port == 0) else {
            return Ok(());
        };
        let name = NameRecord::of(&socket.record);
        let port = self.ports.choose(&self.demux, space, &name)?;
        self.rename(index, |r| r.local.port = port);
        Ok(())
    }
}

/// An address as the application gives it, as we keep it: none for unspecified, IPv4 unmapped.
pub(crate) fn own_form(record: &super::Record, ip: IpAddr) -> Result<Option<IpAddr>, Errno> {
    let only = record.has(flag::V6_ONLY);
    let v6 = record.v6 != 0;
    if ip.is_ipv6() != v6 {
        return Err(libc::EAFNOSUPPORT);
    }
    if ip.is_unspecified() {
        return Ok(None);
    }
    let canonical = ip.to_canonical();
    if v6 && only && canonical.is_ipv4() {
        return Err(libc::EINVAL);
    }
    Ok(Some(canonical))
}
