//! Fast Open, the client's side (RFC 7413 4.1): data in the SYN, for servers that gave a cookie.
//!
//! ```text
//!   no cookie          SYN asks for one, the data follows the handshake
//!   a cookie           SYN with cookie and data
//!     + ON_CONNECT     the SYN waits for the application's first write (TCP_FASTOPEN_CONNECT)
//!   SYN was lost       again without option and data, as something may drop those
//! ```
//!
//! `snd_nxt` stays behind the SYN until its data is acknowledged: what is not is then simply sent
//! as if for the first time, whichever SYN the answer was to.

use super::conn::{Conn, Ctx};
use super::cookie_cache::Known;
use super::events::{Route, SegmentMeta};
use super::opening::{Opening, flag};
use super::seq::{DATA_OFFSET, SYN_OFFSET};
use super::state::State;
use super::tcb::{Tcb, flag as tcb_flag};
use super::timers::Timer;
use super::{ConnId, Engine, Errno};
use abi::{Endpoint, Nanos};

/// Room left in a SYN with data, whatever options it has (as Linux).
const OPTION_ROOM: u16 = 40;

impl Engine {
    /// As [`Engine::connect`], with the `written` bytes that already lie in the send buffer: in
    /// the SYN if there is a cookie for the peer, else behind the handshake (`MSG_FASTOPEN`).
    ///
    /// # Errors
    /// As [`Engine::connect`]; `EINVAL` if more is written than the buffer holds; `EOPNOTSUPP`
    /// if it is switched off.
    pub fn connect_with_data(
        &mut self,
        now: Nanos,
        id: ConnId,
        remote: Endpoint,
        route: &Route,
        written: u64,
    ) -> Result<(), Errno> {
        let tcb = self.record(id).ok_or(Errno::EBADF)?;
        if !self.config.open.fast_open_client {
            return Err(Errno::EOPNOTSUPP);
        }
        if written > u64::from(tcb.opts.snd_capacity) {
            return Err(Errno::EINVAL);
        }
        self.begin_connect(now, id, remote, route, Some(written))
    }

    /// What the SYN of `id` shall carry; `None` for an ordinary one.
    pub(super) fn fast_open_for(
        &mut self,
        now: Nanos,
        tcb: &Tcb,
        data: Option<u64>,
        flow: &super::demux::Flow,
    ) -> Option<Known> {
        let wanted = data.is_some() || tcb.opening.has(flag::ON_CONNECT);
        if wanted && self.config.open.fast_open_client {
            self.cookies.get(flow, now)
        } else {
            None
        }
    }

    /// The handshake of `id` got an answer: what it says of the server.
    pub(super) fn learn_cookie(&mut self, now: Nanos, id: ConnId, meta: &SegmentMeta<'_>) {
        let Some(conn) = self.conn(id) else {
            return;
        };
        let (tcb, flow) = (&conn.tcb, conn.flow());
        if !tcb.opening.has(flag::WANTS) || !tcb.state().is_synchronized() {
            return;
        }
        let cookie = meta.repr.options.fast_open.as_deref().unwrap_or_default();
        let took_data = tcb.opening.has(flag::SYN_DATA);
        let sent_data = tcb.opening.syn_data > 0;
        let again = tcb.counters.timeouts > 0;
        if sent_data {
            if took_data {
                self.stats.fast_open_active += 1;
            } else {
                self.stats.fast_open_active_failed += 1;
            }
        }
        if !cookie.is_empty() {
            let mss = meta.repr.options.mss.unwrap_or(0);
            self.cookies.learn(&flow, cookie, mss, now);
        } else if took_data {
            self.cookies.succeeded(&flow, now);
        } else if sent_data && again {
            // Only the SYN without data got through.
            self.cookies.lost(&flow, now);
        }
    }
}

impl Conn {
    /// Prepares the SYN of a connect that begins. `data` as in [`Engine::begin_connect`]. Returns
    /// whether the SYN leaves now.
    pub(super) fn prepare_syn(&mut self, known: Option<Known>, data: Option<u64>) -> bool {
        let tcb = &mut self.tcb;
        let kept = Opening {
            flags: tcb.opening.flags & flag::ON_CONNECT,
            fast_open_queue: tcb.opening.fast_open_queue,
            ..Opening::default()
        };
        tcb.opening = kept;
        if let Some(written) = data {
            tcb.written = written;
        }
        let Some(known) = known else {
            return true;
        };
        tcb.opening.flags |= flag::WANTS;
        tcb.opening.set_cookie(&known.cookie);
        tcb.opening.known_mss = known.mss;
        let deferred = !known.cookie.is_empty() && data.is_none();
        if deferred {
            tcb.opening.flags |= flag::DEFERRED | flag::TOLD;
            // Nothing was sent, so nothing is owed.
            tcb.snd_nxt = SYN_OFFSET;
        }
        !deferred
    }

    /// The application's words were taken: bytes, or an end without any, let a deferred SYN go.
    pub(super) fn release_syn(&mut self, ctx: &Ctx<'_>) {
        let tcb = &mut self.tcb;
        if tcb.state() != State::SynSent
            || !tcb.opening.has(flag::DEFERRED)
            || (tcb.written == 0 && !tcb.has(tcb_flag::FIN_QUEUED))
        {
            return;
        }
        tcb.opening.flags &= !flag::DEFERRED;
        tcb.snd_nxt = DATA_OFFSET;
        tcb.progress_at = ctx.now;
        tcb.rtt.start(ctx.now, DATA_OFFSET);
        let timeout = tcb.rtt.timeout(ctx.config);
        tcb.deadlines.arm(Timer::Retransmit, ctx.now + timeout);
        self.rt.syn_now = true;
    }
}

impl Tcb {
    /// How many bytes the SYN takes along: one segment's, if there is a cookie and it is the
    /// first SYN (RFC 7413 4.1.3; the default MSS if the server's is not known).
    pub(super) fn syn_payload(&self) -> u32 {
        if !self.sends_fast_open() || self.opening.cookie_len == 0 {
            return 0;
        }
        let n = &self.negotiated;
        let mss = match self.opening.known_mss {
            0 => n.peer_mss,
            known => known,
        };
        let room = mss.min(n.path_mss).saturating_sub(OPTION_ROOM);
        u32::try_from(self.written.min(u64::from(room))).unwrap_or(0)
    }

    /// Whether the next SYN or SYN,ACK has the option. SYNs that are sent again have not: it may
    /// be what keeps them from arriving.
    pub(super) fn sends_fast_open(&self) -> bool {
        match self.state() {
            State::SynSent => self.opening.has(flag::WANTS) && self.rtt.backoff == 0,
            State::SynReceived => self.opening.has(flag::GIVES_COOKIE),
            _ => false,
        }
    }
}
