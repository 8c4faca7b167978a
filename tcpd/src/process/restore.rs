//! The start, first or hundredth: records, sessions, and what applications see, made to agree.

use super::buffers;
use super::loading::Loading;
use super::records::Records;
use super::socket::{self, Socket, place_of};
use super::{SESSIONS, Tcpd, counters, mtus, quarantine};
use crate::engine::congestion::Algorithm;
use crate::engine::memory::MemoryUse;
use crate::engine::opening::OpenConfig;
use crate::engine::{Accept, Actions, Config, ConnId, Engine, Errno, State, Tcb};
use abi::Nanos;
use abi::config::{DaemonConfig, FastOpen};
use anyhow::Context as _;
use runtime::{Context, EpollFlags, Fib, Plumbing};
use session::{Adopted, NewSocket, Params, Revoked, Sessions, SocketRef};
use std::collections::VecDeque;

/// TCP's protocol number, for registering with ipd.
const PROTOCOLS: &[u16] = &[6];

/// Restored sockets settled in one turn: some system calls, in the time of a batch of packets.
const SETTLED: usize = 32;

/// Whether nobody waits for a connection: nothing is under way in either direction, no
/// application is about to get it. Its application and its peer notice nothing if it is settled
/// some milliseconds later.
fn is_quiet(tcb: &Tcb) -> bool {
    let is_taken = !matches!(tcb.accept(), Accept::Ready | Accept::HandedOver);
    tcb.state() == State::Established
        && is_taken
        && tcb.flight() == 0
        && tcb.written == tcb.acked_upto()
        && tcb.unread() == 0
        && tcb.urgent_upto().is_none()
}

fn engine_config(config: &DaemonConfig) -> anyhow::Result<Config> {
    let tcp = &config.stack.tcp;
    let congestion = Algorithm::by_name(&tcp.congestion)
        .with_context(|| format!("there is no congestion control named {}", tcp.congestion))?;
    Ok(Config {
        capacity: tcp.max_sockets,
        secret: config.stack.secret,
        time_wait: Nanos::from(tcp.time_wait_ms) * 1_000_000,
        congestion,
        ecn: tcp.ecn,
        mtu_probing: tcp.mtu_probing,
        open: OpenConfig {
            syn_cookies: tcp.syn_cookies,
            fast_open_client: matches!(tcp.fast_open, FastOpen::Client | FastOpen::Both),
            fast_open_server: matches!(tcp.fast_open, FastOpen::Server | FastOpen::Both),
            fast_open_key: Nanos::from(tcp.fast_open_key_ms) * 1_000_000,
            ..OpenConfig::default()
        },
        user_timeout_option: tcp.user_timeout_option,
        memory: buffers::memory_config(tcp),
        ..Config::default()
    })
}

impl Tcpd {
    pub(super) fn take_up(
        config: &DaemonConfig,
        plumbing: &mut Plumbing,
        now: Nanos,
    ) -> anyhow::Result<Self> {
        let state = plumbing
            .state
            .as_ref()
            .context("tcpd was given no state memory")?;
        let records = Records::attach(state, &config.stack)?;
        let listener = plumbing
            .listener
            .take()
            .context("tcpd was given no listening socket")?;
        let bell = plumbing.bell.event().try_clone_to_owned()?;
        let params = Params::tcp(plumbing.me);
        let stored = std::mem::take(&mut plumbing.stored);
        let sessions = Sessions::restore(params, listener, bell, stored, &mut plumbing.store)?;
        plumbing
            .poller
            .add(sessions.fd(), SESSIONS, EpollFlags::EPOLLIN)?;

        let watch = quarantine::watch(&plumbing.vitals);
        let engine = Engine::revive(engine_config(config)?, now, Some(watch));
        let loading = Loading::new(records.in_use(), &config.quarantine);
        let mut this = Self {
            engine,
            records,
            sessions,
            params,
            sockets: Default::default(),
            fib: Fib::new(&config.stack),
            mtus: mtus(&config.stack),
            actions: Actions::default(),
            more: Actions::default(),
            events: Vec::new(),
            attached: Vec::new(),
            touched: Vec::new(),
            asked: Vec::new(),
            resized: Vec::new(),
            wanting: Vec::new(),
            broken: Vec::new(),
            dirty: Vec::new(),
            handed: Vec::new(),
            handed_seen: false,
            again: Vec::new(),
            errors: Vec::new(),
            deferred: VecDeque::new(),
            retry_at: None,
            told: crate::engine::Stats::default(),
            told_memory: MemoryUse::default(),
            unfinished: true,
            unsettled: VecDeque::new(),
            loading: Some(loading),
            waited: VecDeque::new(),
            fresh: Vec::new(),
        };
        // What one connection sent to another of this stack lies in the memory of its sender, who
        // may not be here yet.
        for region in this.sessions.regions() {
            this.attach_region(region, plumbing);
        }
        this.load_first(plumbing, now);
        let limit = this.engine.config().memory.limits.pressure;
        plumbing.gauge(counters::MEMORY_LIMIT, limit);
        for link in &plumbing.links {
            link.link().register(PROTOCOLS);
        }
        Ok(this)
    }

    /// Gives a restored record its socket back. What is left to do for one that waits for nothing
    /// is done in later turns, by [`Tcpd::settle_some`], unless it was at work just now.
    pub(super) fn adopt(
        &mut self,
        id: ConnId,
        incarnation: u32,
        was_at_work: bool,
        plumbing: &mut Plumbing,
        now: Nanos,
    ) {
        let Some(tcb) = self.engine.record(id) else {
            return;
        };
        let Some(place) = place_of(tcb.owner) else {
            return;
        };
        let (accept, quiet) = (tcb.accept(), is_quiet(tcb) && !was_at_work);
        let adopted = self
            .sessions
            .claim(place, incarnation, id.0, &mut plumbing.store);
        if adopted == Adopted::Gone {
            tracing::warn!(
                id = id.0,
                region = place.region.0,
                "the session of a connection is gone; it is reset"
            );
            self.engine.abort(now, id, Errno::ECONNABORTED);
            self.engine.close(now, id);
            return;
        }
        let new = NewSocket {
            socket: place,
            incarnation,
        };
        let mut socket = Socket::new(new);
        if let Some(tcb) = self.engine.record(id).filter(|_| quiet) {
            socket::show(&mut self.sessions, &mut socket, tcb);
        }
        self.sockets.insert(id, socket);
        if was_at_work {
            self.fresh.push(place);
        }
        if quiet && adopted == Adopted::Live {
            self.unsettled.push_back((id, incarnation));
            return;
        }
        self.settle(id, place, accept, plumbing, now);
    }

    /// Settles some of the restored sockets that nobody waits for; answers how many.
    pub(super) fn settle_some(&mut self, cx: &mut Context<'_>) -> usize {
        if self.loading.is_some() {
            return 0;
        }
        let count = self.unsettled.len().min(SETTLED);
        for _ in 0..count {
            let Some((id, incarnation)) = self.unsettled.pop_front() else {
                break;
            };
            // It may be gone, or its number another's, by now.
            if let Some(place) = self
                .sockets
                .get(id)
                .filter(|s| s.incarnation == incarnation && self.sessions.is_open(s.place))
                .map(|s| s.place)
            {
                let adopted = self.sessions.settle_later(place, &mut cx.plumbing.store);
                self.make_settled(id, place, adopted, cx.now);
            }
        }
        count
    }

    /// The descriptor of a claimed socket is looked at and what the application sees made right.
    fn settle(
        &mut self,
        id: ConnId,
        place: SocketRef,
        accept: Accept,
        plumbing: &mut Plumbing,
        now: Nanos,
    ) {
        let adopted = self.sessions.settle(place, &mut plumbing.store);
        match accept {
            // Announced by the engine, handed over in the first turn.
            Accept::Ready => return,
            Accept::HandedOver => {
                if let Some(Revoked::Fresh(new)) = self.sessions.revoke(place, &mut plumbing.store)
                {
                    self.hand_over_again(id, new);
                    return;
                }
            }
            _ => {}
        }
        self.make_settled(id, place, adopted, now);
    }

    /// What the application sees of a settled socket is made right; one that it has closed is.
    fn make_settled(&mut self, id: ConnId, place: SocketRef, adopted: Adopted, now: Nanos) {
        if adopted != Adopted::Live {
            // Closed while nobody was there to see it: what was written before still counts, and
            // what was read is not unread.
            tracing::debug!(id = id.0, "a connection's descriptor is gone; it is closed");
            self.show_words(now, id, place);
            self.engine.close(now, id);
            return;
        }
        self.make_right(id);
    }

    /// The application's view of a live socket follows from its record.
    fn make_right(&mut self, id: ConnId) {
        let (Some(tcb), Some(socket)) = (self.engine.record(id), self.sockets.get_mut(id)) else {
            return;
        };
        if tcb.state() == State::Closed && tcb.error != 0 {
            // Died between recording the error and showing it.
            self.errors.push(id);
            return;
        }
        socket::show(&mut self.sessions, socket, tcb);
        if tcb.state() != State::Listen {
            let fin = tcb.peer_finished();
            let readable = socket::has_readable(tcb) || fin;
            self.sessions
                .reconcile(socket.place, readable, socket::has_room(tcb), fin);
            // It may have died between the mark and the byte.
            if tcb.urgent_is_here() {
                let place = socket.place;
                if let Some(words) = self.sessions.words(place) {
                    words.forget_pri();
                }
            }
        }
        self.touched.push(id);
    }

    /// Nobody has taken the connection, and nobody will by the predecessor's message: it goes out
    /// again under its new incarnation, which is committed before the message leaves.
    fn hand_over_again(&mut self, id: ConnId, new: NewSocket) {
        self.sockets.insert(id, Socket::new(new));
        self.dirty.push(id);
        self.again.push(id);
    }
}
