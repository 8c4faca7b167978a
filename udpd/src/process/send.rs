//! From the send buffers into ipd's ring: one copy, into a buffer of the own pool, so that what
//! the application writes later changes nothing that was sent.

use super::counters::Counter;
use super::{RETRY, Udpd};
use crate::engine::bind::own_form;
use crate::engine::queue::Next;
use crate::engine::record::{Kind, Record};
use crate::engine::{Errno, record::flag as option};
use abi::session::DatagramHeader;
use abi::skbuff::{HEADROOM, checksum, flag, kind};
use abi::{Endpoint, RegionId};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use runtime::{Context, LinkEnd, Plumbing};
use shm::vitals::stage;
use shm::{Allocator, SizeClass, SkBuff};
use wire::icmpv4;
use wire::protocol;
use wire::udp;

/// Datagrams of one socket before the next one's turn.
const SHARE: usize = 16;
/// IPv4 header without options.
const IP_HEADER: usize = 20;
/// Longest IPv4 packet.
const IP_MAX: usize = 65_535;

/// Why a datagram was not sent.
#[derive(Debug)]
enum Stop {
    /// It never will be: the socket is told.
    Refused(Errno),
    /// No buffer or no place in the ring: later.
    Later,
    /// What the application wrote is impossible.
    Fault,
}

/// A datagram on its way.
#[derive(Debug)]
struct Outgoing {
    src: IpAddr,
    dst: Endpoint,
    src_port: u16,
    protocol: u8,
    dont_frag: bool,
}

impl Udpd {
    /// Sends what sockets want to send, in turn, at most `budget` datagrams.
    pub(super) fn send_all(&mut self, cx: &mut Context<'_>, budget: usize) -> usize {
        if self.sending.is_empty() {
            self.retry_at = None;
            return 0;
        }
        let now = cx.now;
        let Plumbing {
            alloc: Some(alloc),
            links,
            vitals,
            store,
            ..
        } = &mut *cx.plumbing
        else {
            return 0;
        };
        let Some(link) = links.first_mut() else {
            return 0;
        };
        let mut sent = 0;
        let mut later = false;
        while sent < budget && !later {
            let Some(index) = self.sending.pop_front() else {
                break;
            };
            let (n, stop) = self.send_some(index, SHARE.min(budget - sent), alloc, link, vitals);
            sent += n;
            if n > 0 {
                self.touch(index);
            }
            let Some(socket) = self.engine.get_mut(index) else {
                continue;
            };
            match stop {
                Some(Stop::Later) => {
                    later = true;
                    self.sending.push_front(index);
                }
                Some(Stop::Fault) => self.faulted.push(index),
                _ if socket.tx.used() > 0 => self.sending.push_back(index),
                _ => {
                    socket.sending = false;
                    if socket.closing
                        && let Some(place) = self.engine.close(index)
                    {
                        self.sessions.free(place, store);
                        sent += 1;
                    }
                }
            }
        }
        self.retry_at = later.then_some(now + RETRY);
        if later {
            self.counts.bump(Counter::SndbufWaits);
        }
        sent
    }

    fn send_some(
        &mut self,
        index: u32,
        share: usize,
        alloc: &mut Allocator,
        link: &mut LinkEnd,
        vitals: &shm::Vitals,
    ) -> (usize, Option<Stop>) {
        let capacity = u64::from(self.engine.capacity().0);
        if let Some(socket) = self.engine.get(index) {
            self.watch.works_on(index, &socket.record);
        }
        for n in 0..share {
            let Some(socket) = self.engine.get(index) else {
                return (n, None);
            };
            let region = RegionId(socket.record.region);
            let Some(memory) = self.sessions.memory(region) else {
                return (n, Some(Stop::Fault));
            };
            let Some(base) = memory.tx_offset(socket.record.slot) else {
                return (n, Some(Stop::Fault));
            };
            let place = |at: u64| base + usize::try_from(at).unwrap_or(usize::MAX / 2);
            let next = socket.tx.next(capacity, |at, into| {
                memory.mapping().copy_out(place(at), into)
            });
            let (header, at, head) = match next {
                Ok(Next::Record { header, at, head }) => (header, place(at), head),
                Ok(Next::Empty) => {
                    if let Some(s) = self.engine.get_mut(index) {
                        s.tx.head = s.tx.tail;
                    }
                    return (n, None);
                }
                Err(_) => return (n, Some(Stop::Fault)),
            };
            match self.send_one(index, &header, at, alloc) {
                Ok(skb) => {
                    let (handle, len) = (skb.handle(), skb.len());
                    if vitals.tracing() {
                        let now = runtime::clock::now();
                        let detail = u64::from(skb.desc().protocol);
                        vitals.trace(now, stage::TRANSPORT_OUT, handle, len, detail);
                    }
                    if link.send(skb).is_err() {
                        return (n, Some(Stop::Later));
                    }
                    self.count_sent(index, header.len);
                }
                Err(Stop::Refused(errno)) => {
                    self.counts.bump(Counter::OutErrors);
                    self.post_error(index, errno);
                }
                Err(stop) => return (n, Some(stop)),
            }
            if let Some(s) = self.engine.get_mut(index) {
                s.tx.head = head;
            }
        }
        (share, None)
    }

    fn count_sent(&mut self, index: u32, len: u32) {
        self.counts
            .bump(match self.engine.get(index).map(|s| s.kind) {
                Some(Kind::Ping) => Counter::PingOut,
                Some(Kind::Raw(_)) => Counter::RawOut,
                _ => Counter::UdpOutDatagrams,
            });
        self.counts.add(Counter::TxPayload, len.into());
        self.counts.add(Counter::TxCopied, len.into());
    }

    /// Makes the packet of a datagram whose payload is at offset `at` of the session memory.
    fn send_one(
        &mut self,
        index: u32,
        header: &DatagramHeader,
        at: usize,
        alloc: &mut Allocator,
    ) -> Result<SkBuff, Stop> {
        let len = usize::try_from(header.len).map_err(|_| Stop::Fault)?;
        let out = self.address(index, header, len).map_err(Stop::Refused)?;
        let socket = self.engine.get(index).ok_or(Stop::Fault)?;
        let (record, what) = (&socket.record, socket.kind);
        let front = if what == Kind::Udp {
            udp::HEADER_LEN
        } else {
            0
        };
        let small = (alloc.pool().layout().small_size.saturating_sub(HEADROOM)) as usize;
        let class = if front + len <= small {
            SizeClass::Small
        } else {
            SizeClass::Large
        };
        let mut skb = alloc.alloc(class).ok_or(Stop::Later)?;
        let bytes = skb.put(front + len).ok_or(Stop::Refused(libc::EMSGSIZE))?;
        let (head, payload) = bytes.split_at_mut_checked(front).ok_or(Stop::Fault)?;
        let memory = self
            .sessions
            .memory(RegionId(record.region))
            .ok_or(Stop::Fault)?;
        if !memory.mapping().copy_out(at, payload) {
            return Err(Stop::Fault);
        }
        let Some(dst) = out.dst.ip() else {
            return Err(Stop::Fault);
        };
        match what {
            Kind::Udp => {
                let repr = udp::Repr {
                    src_port: out.src_port,
                    dst_port: out.dst.port,
                    len: u16::try_from(front + len).map_err(|_| Stop::Refused(libc::EMSGSIZE))?,
                };
                // RFC 768: the device completes the checksum, or netdevd for it.
                repr.emit(head)
                    .and_then(|()| udp::fill_partial_checksum(head, out.src, dst))
                    .map_err(|_| Stop::Fault)?;
            }
            Kind::Ping => echo_request(payload, out.src_port).map_err(Stop::Refused)?,
            Kind::Raw(_) => {}
        }
        let csum_start = u16::try_from(skb.data_offset()).unwrap_or(0);
        let d = skb.desc_mut();
        if what == Kind::Udp {
            d.ip_summed = checksum::PARTIAL;
            d.csum_start = csum_start;
            d.csum_offset = udp::CHECKSUM_OFFSET;
        }
        d.kind = kind::PACKET;
        d.protocol = out.protocol;
        let (src, dst) = (Endpoint::new(out.src, 0), out.dst);
        (d.family, d.src, d.dst) = (dst.family, src.addr, dst.addr);
        d.ttl = if header.ttl != 0 {
            header.ttl
        } else {
            record.ttl
        };
        d.tos = if header.tos != 0 {
            header.tos
        } else {
            record.tos
        };
        d.mark = record.mark;
        d.dev_out = header.device;
        d.flags = if out.dont_frag { flag::DONT_FRAG } else { 0 };
        if record.has(option::BROADCAST) {
            d.flags |= flag::BROADCAST_OK;
        }
        Ok(skb)
    }

    /// From where to where, and whether it may go at all.
    fn address(
        &mut self,
        index: u32,
        header: &DatagramHeader,
        len: usize,
    ) -> Result<Outgoing, Errno> {
        let socket = self.engine.get(index).ok_or(libc::EBADF)?;
        let what = socket.kind;
        let dst = destination(&socket.record, what, &header.peer)?;
        let ip = dst.ip().ok_or(libc::EDESTADDRREQ)?;
        let front = if what == Kind::Udp {
            udp::HEADER_LEN
        } else {
            0
        };
        if IP_HEADER + front + len > IP_MAX {
            return Err(libc::EMSGSIZE);
        }
        let hop = self.fib.lookup(ip).ok_or(libc::ENETUNREACH)?;
        if hop.broadcast && !socket.record.has(option::BROADCAST) {
            return Err(libc::EACCES);
        }
        let dont_frag = !self.engine.may_fragment(index);
        if dont_frag && !hop.local && IP_HEADER + front + len > usize::from(hop.mtu) {
            return Err(libc::EMSGSIZE);
        }
        self.engine.autobind(index)?;
        let record = &self.engine.get(index).ok_or(libc::EBADF)?.record;
        let asked = header
            .local
            .ip()
            .map(|ip| ip.to_canonical())
            .filter(|ip| !ip.is_unspecified());
        let src = match asked {
            Some(src) if self.fib.is_local(src) && src.is_ipv4() == ip.is_ipv4() => src,
            Some(_) => return Err(libc::EADDRNOTAVAIL),
            // Bound to a group or broadcast address: such is no source.
            None => record
                .local_ip()
                .filter(|&own| self.fib.is_local(own) && own.is_ipv4() == ip.is_ipv4())
                .unwrap_or(hop.source),
        };
        let protocol = match what {
            Kind::Udp => protocol::UDP,
            Kind::Ping => protocol::ICMP,
            Kind::Raw(p) => p,
        };
        Ok(Outgoing {
            src,
            dst,
            src_port: record.local.port,
            protocol,
            dont_frag,
        })
    }
}

/// The datagram's own destination, or the connected peer.
fn destination(record: &Record, what: Kind, asked: &Endpoint) -> Result<Endpoint, Errno> {
    if !asked.is_some() {
        return if record.peer.is_some() {
            Ok(record.peer)
        } else {
            Err(libc::EDESTADDRREQ)
        };
    }
    let ip = asked.ip().ok_or(libc::EAFNOSUPPORT)?;
    // Linux: to the unspecified address is to this host.
    let ip = own_form(record, ip)?.unwrap_or(match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    });
    if what == Kind::Udp && asked.port == 0 {
        return Err(libc::EINVAL);
    }
    Ok(Endpoint::new(ip, asked.port))
}

/// Makes a ping socket's message an echo request of its own, as Linux does: any other type is
/// refused, identifier and checksum are filled in.
fn echo_request(message: &mut [u8], ident: u16) -> Result<(), Errno> {
    let [kind, code, _, _, a, b, ..] = message else {
        return Err(libc::EINVAL);
    };
    if (*kind, *code) != (icmpv4::kind::ECHO_REQUEST, 0) {
        return Err(libc::EINVAL);
    }
    [*a, *b] = ident.to_be_bytes();
    icmpv4::fill_checksum(message).map_err(|_| libc::EINVAL)
}
