//! The calls of the socket interface that are not about data.

use super::actions::Notice;
use super::config::MILLISECOND;
use super::demux::Flow;
use super::error::Errno;
use super::events::Route;
use super::isn;
use super::memory::MemoryRecord;
use super::ports::{Claim, is_wildcard};
use super::seq::{DATA_OFFSET, SYN_OFFSET};
use super::sockopt::{self, SockOpts};
use super::state::State;
use super::tcb::{Accept, Tcb, flag};
use super::timers::Timer;
use super::{ConnId, Engine, SocketRef};
use abi::endpoint::{FAMILY_V4, FAMILY_V6};
use abi::session::{SockOpt, SockOptName};
use abi::{Endpoint, Nanos};
use core::net::IpAddr;

/// What a new socket is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenParams {
    /// Its buffers.
    pub owner: SocketRef,
    /// `AF_INET6`.
    pub v6: bool,
    /// Most that the receive buffer can grow to in bytes, a power of two.
    pub rcv_capacity: u32,
    /// Most that the send buffer can grow to in bytes, a power of two.
    pub snd_capacity: u32,
}

/// Addresses of IPv4 in IPv6 clothes are IPv4.
fn canonical(endpoint: Endpoint) -> Endpoint {
    endpoint.ip().map_or(endpoint, |ip| {
        Endpoint::new(ip.to_canonical(), endpoint.port)
    })
}

/// Own timestamps have moved on by so much before a connection's ends are used again.
const REUSE_AGE: Nanos = 1_000 * MILLISECOND;

impl Engine {
    /// A new socket.
    ///
    /// # Errors
    /// `ENOBUFS` when all records are in use.
    pub fn open(&mut self, now: Nanos, params: &OpenParams) -> Result<ConnId, Errno> {
        let mut opts = SockOpts::new(params.rcv_capacity, params.snd_capacity);
        let memory = &self.config.memory;
        opts.rcv_buf = opts.rcv_buf.min(memory.rmem[1]);
        opts.snd_buf = opts.snd_buf.min(memory.wmem[1]);
        let mut tcb = Tcb::new(params.owner, opts, now);
        tcb.memory = MemoryRecord::new(&opts, memory.base);
        tcb.cc.choose(self.config.congestion);
        if params.v6 {
            tcb.flags |= flag::V6;
        }
        let id = self.allocate(tcb).ok_or(Errno::ENOBUFS)?;
        self.settle(id, now);
        Ok(id)
    }

    /// Binds to `local`; port 0 takes a free one. Whether the address is the stack's own is the
    /// caller's to check. Returns what it is bound to.
    ///
    /// # Errors
    /// `EADDRINUSE`, `EADDRNOTAVAIL` (no port left), `EINVAL` (bound already, or not idle),
    /// `EAFNOSUPPORT`, `EBADF`.
    pub fn bind(&mut self, now: Nanos, id: ConnId, local: Endpoint) -> Result<Endpoint, Errno> {
        let tcb = self.record(id).ok_or(Errno::EBADF)?;
        if tcb.state() != State::Closed || tcb.local.port != 0 {
            return Err(Errno::EINVAL);
        }
        let mut local = canonical(local);
        let fits = match local.family {
            FAMILY_V4 => !tcb.has(flag::V6) || !tcb.opts.has(sockopt::flag::V6ONLY),
            FAMILY_V6 => tcb.has(flag::V6),
            _ => false,
        };
        if !fits {
            return Err(Errno::EAFNOSUPPORT);
        }
        let mut claim = claim(id, tcb);
        claim.local = local;
        if local.port == 0 {
            local.port = self.free_port(now, &claim).ok_or(Errno::EADDRINUSE)?;
            claim.local = local;
        } else if !self.ports.is_free(&claim) {
            return Err(Errno::EADDRINUSE);
        }
        self.ports.grant(claim);
        self.step(id, now, |conn, _| {
            conn.tcb.local = local;
            conn.tcb.flags |= flag::BOUND;
        });
        Ok(local)
    }

    /// Begins to connect; the outcome is a notice ([`Notice::Connected`] or
    /// [`Notice::ConnectFailed`]).
    ///
    /// # Errors
    /// `EISCONN`, `EALREADY`, `EOPNOTSUPP` (listens), `EAFNOSUPPORT`, `EADDRNOTAVAIL` (no port
    /// left), `EADDRINUSE` (these ends are connected), `ENETUNREACH` (no such peer), `EBADF`.
    pub fn connect(
        &mut self,
        now: Nanos,
        id: ConnId,
        remote: Endpoint,
        route: &Route,
    ) -> Result<(), Errno> {
        self.begin_connect(now, id, remote, route, None)
    }

    /// `data`: bytes that lie in the send buffer, to go with the SYN if they can.
    pub(super) fn begin_connect(
        &mut self,
        now: Nanos,
        id: ConnId,
        remote: Endpoint,
        route: &Route,
        data: Option<u64>,
    ) -> Result<(), Errno> {
        let tcb = self.record(id).ok_or(Errno::EBADF)?;
        match tcb.state() {
            State::Closed if tcb.has(flag::WAS_CONNECTED) => return Err(Errno::EISCONN),
            State::Closed => {}
            State::Listen => return Err(Errno::EOPNOTSUPP),
            State::SynSent | State::SynReceived => return Err(Errno::EALREADY),
            _ => return Err(Errno::EISCONN),
        }
        if tcb.written != 0 || tcb.consumed != 0 {
            return Err(Errno::EISCONN);
        }
        let remote = canonical(remote);
        let ip = remote.ip().ok_or(Errno::EAFNOSUPPORT)?;
        if remote.family == FAMILY_V6 && !tcb.has(flag::V6) {
            return Err(Errno::EAFNOSUPPORT);
        }
        // RFC 9293 3.9.2.3 (MUST-46): not to broadcast or multicast addresses.
        if remote.port == 0 || is_unfit_peer(ip) {
            return Err(Errno::ENETUNREACH);
        }
        let mut local = tcb.local;
        if !local.is_some() || is_wildcard(&local) {
            local = Endpoint::new(route.source.to_canonical(), local.port);
        }
        if local.family != remote.family {
            return Err(Errno::EAFNOSUPPORT);
        }
        let bound = tcb.has(flag::BOUND);
        if !bound {
            local.port = self
                .ephemeral_port(now, local, remote)
                .ok_or(Errno::EADDRNOTAVAIL)?;
        }
        let flow = Flow { local, remote };
        let floor = self.end_time_wait(now, &flow)?;
        let mtu = route.mtu;
        let mut iss = isn::initial_sequence(&self.config.secret, &flow, now);
        if let Some(floor) = floor {
            iss = floor;
        }
        let ts_offset = isn::timestamp_offset(&self.config.secret, &flow);
        let tcb = *self.record(id).ok_or(Errno::EBADF)?;
        let known = self.fast_open_for(now, &tcb, data, &flow);
        self.stats.active_opens += 1;
        let registered = {
            let conn = self.conn_mut(id).ok_or(Errno::EBADF)?;
            conn.tcb.local = local;
            conn.tcb.remote = remote;
            self.register(id)
        };
        if !registered {
            return Err(Errno::EADDRINUSE);
        }
        self.step(id, now, |conn, ctx| {
            let tcb = &mut conn.tcb;
            let o = tcb.opts;
            tcb.state = State::SynSent as u8;
            tcb.error = 0;
            tcb.soft_error = 0;
            tcb.iss = iss;
            tcb.snd_una = SYN_OFFSET;
            tcb.snd_nxt = DATA_OFFSET;
            tcb.rcv_nxt = SYN_OFFSET;
            tcb.rcv_adv = SYN_OFFSET;
            tcb.last_ack_sent = SYN_OFFSET;
            tcb.rtt = Default::default();
            tcb.recovery = Default::default();
            tcb.negotiated = Default::default();
            tcb.negotiated
                .offer(ctx.config, local.family, mtu, o.max_segment, o.rcv_capacity);
            tcb.start_path_mtu(ctx.config.mtu_probing, now);
            tcb.negotiated.ts_offset = ts_offset;
            tcb.ecn = super::ecn::Ecn::open(ctx.config.ecn);
            tcb.progress_at = now;
            if !conn.prepare_syn(known, data) {
                return;
            }
            let tcb = &mut conn.tcb;
            tcb.rtt.start(now, DATA_OFFSET);
            let timeout = tcb.rtt.timeout(ctx.config);
            tcb.deadlines.arm(Timer::Retransmit, now + timeout);
            conn.rt.syn_now = true;
        });
        Ok(())
    }

    /// The ends are about to be used again: a connection of ours in TIME_WAIT with them makes
    /// way if its timestamps tell old segments from new ones (RFC 6191, RFC 9293 3.6.1).
    /// Returns the sequence number to start from then.
    fn end_time_wait(&mut self, now: Nanos, flow: &Flow) -> Result<Option<u32>, Errno> {
        let Some(old) = self.demux.lookup(flow) else {
            return Ok(None);
        };
        let tcb = self.record(old).ok_or(Errno::EADDRINUSE)?;
        if !is_reusable(tcb, now) {
            return Err(Errno::EADDRINUSE);
        }
        let floor = super::seq::to_wire(tcb.iss, tcb.snd_nxt).0;
        self.step(old, now, |conn, ctx| conn.terminate(None, ctx));
        Ok(Some(floor.wrapping_add(65_537)))
    }

    /// Listens, or changes the backlog of a listener.
    ///
    /// # Errors
    /// `EINVAL` (connected), `EADDRINUSE`, `EADDRNOTAVAIL`, `EBADF`.
    pub fn listen(&mut self, now: Nanos, id: ConnId, backlog: u32) -> Result<(), Errno> {
        let tcb = self.record(id).ok_or(Errno::EBADF)?;
        if !matches!(tcb.state(), State::Closed | State::Listen) || tcb.has(flag::WAS_CONNECTED) {
            return Err(Errno::EINVAL);
        }
        if tcb.local.port == 0 {
            // As Linux: an unbound socket that listens gets an ephemeral port.
            let any: IpAddr = if tcb.has(flag::V6) {
                core::net::Ipv6Addr::UNSPECIFIED.into()
            } else {
                core::net::Ipv4Addr::UNSPECIFIED.into()
            };
            self.bind(now, id, Endpoint::new(any, 0))?;
        }
        let tcb = self.record(id).ok_or(Errno::EBADF)?;
        let claim = Claim {
            listening: true,
            ..claim(id, tcb)
        };
        // Two sockets may be bound with SO_REUSEADDR, but only one of them may listen.
        if !self.ports.is_free_to_listen(&claim) {
            return Err(Errno::EADDRINUSE);
        }
        self.ports.grant(claim);
        let backlog = backlog.min(self.config.somaxconn);
        self.step(id, now, |conn, _| {
            conn.tcb.state = State::Listen as u8;
            conn.tcb.backlog = backlog;
        });
        Ok(())
    }

    /// `child` was sent to the application of its listener; it still counts against the backlog
    /// until [`super::AppWords::accepted`]. Returns false if it is gone or was not waiting.
    pub fn handed_over(&mut self, now: Nanos, child: ConnId) -> bool {
        self.step(child, now, |conn, _| {
            let ready = conn.tcb.accept() == Accept::Ready;
            if ready {
                conn.tcb.accept = Accept::HandedOver as u8;
            }
            ready
        })
        .unwrap_or(false)
    }

    /// Sets a socket option.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `EINVAL`, `ENOENT` (no such congestion control), `EBADF`.
    pub fn set_option(&mut self, now: Nanos, id: ConnId, option: &SockOpt) -> Result<(), Errno> {
        self.step(id, now, |conn, ctx| {
            conn.tcb.set_option(option)?;
            match option {
                SockOpt::NoDelay(true) | SockOpt::Cork(false) => conn.rt.push_now = true,
                SockOpt::QuickAck(true) if conn.tcb.rcv_nxt > conn.tcb.last_ack_sent => {
                    conn.rt.ack_now = conn.tcb.state().is_synchronized();
                }
                SockOpt::UserTimeout(_) => conn.on_user_timeout_set(ctx),
                SockOpt::KeepAlive(_) | SockOpt::KeepIdle(_) | SockOpt::KeepInterval(_) => {
                    conn.arm_keepalive(now);
                }
                _ => {}
            }
            Ok(())
        })
        .ok_or(Errno::EBADF)??;
        if matches!(
            option,
            SockOpt::ReuseAddr(_) | SockOpt::ReusePort(_) | SockOpt::V6Only(_)
        ) && let Some(tcb) = self.record(id)
            && tcb.has(flag::BOUND)
        {
            let claim = claim(id, tcb);
            self.ports.grant(claim);
        }
        Ok(())
    }

    /// Reads a socket option.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `EBADF`.
    pub fn option(&self, id: ConnId, name: SockOptName) -> Result<SockOpt, Errno> {
        self.record(id).ok_or(Errno::EBADF)?.option(name)
    }

    /// Takes the pending error (`SO_ERROR`): the hard one, else a soft one.
    pub fn take_error(&mut self, now: Nanos, id: ConnId) -> Option<Errno> {
        self.step(id, now, |conn, _| {
            let error = core::mem::take(&mut conn.tcb.error);
            let soft = core::mem::take(&mut conn.tcb.soft_error);
            Some(if error != 0 { error } else { soft })
                .filter(|&errno| errno != 0)
                .map(Errno)
        })
        .flatten()
    }

    /// Notes the number of the last request that was carried out on `id` in its record.
    pub fn note_request(&mut self, now: Nanos, id: ConnId, request: u64) {
        self.step(id, now, |conn, _| conn.tcb.last_request = request);
    }

    /// Gives a socket other buffers, empty ones of the same sizes.
    pub fn set_owner(&mut self, now: Nanos, id: ConnId, owner: SocketRef) {
        self.step(id, now, |conn, _| conn.tcb.owner = owner);
    }

    /// Children that wait to be handed over, in the order in which they were established.
    pub(super) fn announce_ready(&mut self) {
        let mut ready: Vec<(u64, ConnId, ConnId)> = self
            .records()
            .filter(|(_, tcb)| tcb.accept() == Accept::Ready)
            .filter_map(|(id, tcb)| Some((tcb.accept_seq, tcb.parent()?, id)))
            .collect();
        ready.sort_unstable();
        for (_, listener, child) in ready {
            let notice = Notice::Accepted { listener, child };
            self.actions.notices.push(notice);
        }
    }
}

/// RFC 6191 and RFC 9293 3.6.1: a connection in TIME_WAIT whose ends may be used again, because
/// timestamps, which have moved on since, tell its old segments from the successor's (Linux's
/// `tcp_tw_reuse` = 1).
pub(super) fn is_reusable(tcb: &Tcb, now: Nanos) -> bool {
    let n = &tcb.negotiated;
    tcb.state() == State::TimeWait
        && n.has(super::options::flag::TIMESTAMPS)
        && now.saturating_sub(n.ts_recent_at) > REUSE_AGE
}

/// The claim that a bound socket's record makes.
pub(super) fn claim(id: ConnId, tcb: &Tcb) -> Claim {
    Claim {
        id,
        local: tcb.local,
        v6_only: tcb.opts.has(sockopt::flag::V6ONLY),
        reuse_addr: tcb.opts.has(sockopt::flag::REUSEADDR),
        reuse_port: tcb.opts.has(sockopt::flag::REUSEPORT),
        listening: tcb.state() == State::Listen,
    }
}

/// RFC 9293 3.9.2.3: addresses that no connection can have.
pub(super) fn is_unfit_peer(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast(),
    }
}
