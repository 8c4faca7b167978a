//! The process around the engine.
//!
//! ```text
//!   poll      sessions: calls, dirty sockets, hang-ups
//!             ipd's ring -> receive buffers (not shown yet)        one copy
//!             send buffers -> own pool -> ipd's ring (not shown)   one copy
//!   commit    changed socket records to the state memory
//!   release   replies; positions, tokens, errors to applications; the runtime publishes the ring
//! ```
//!
//! Positions of the queues are not in the records: a successor takes them from the session
//! memory, where only the application they belong to could have spoilt them, and they are
//! validated all the same.

mod calls;
pub mod counters;
mod quarantine;
mod receive;
mod release;
mod report;
mod restore;
mod send;

use crate::engine::Engine;
use crate::engine::record::{RECORD_KIND, RECORD_LEN};
use abi::Nanos;
use abi::config::{DaemonConfig, StackConfig};
use abi::control::Query;
use counters::{Counter, Counts};
use release::Show;
use runtime::{Context, EpollFlags, Fib, Plumbing, Service};
use session::{Event, Known, Sessions, SocketRef};
use shm::{RecordLayout, RecordTable, SkBuff};
use std::collections::VecDeque;

/// Token of the sessions' descriptors in the daemon's epoll set.
const SESSIONS: u64 = 1;

/// How long to wait for buffers or for places in the ring: nobody says when there are some.
const RETRY: Nanos = 500_000;

fn layout(stack: &StackConfig) -> RecordLayout {
    RecordLayout {
        count: stack.udp.max_sockets.max(1),
        len: RECORD_LEN,
        kind: RECORD_KIND,
    }
}

/// The daemon.
#[derive(Debug)]
pub struct Udpd {
    engine: Engine,
    watch: quarantine::Watch,
    sessions: Sessions,
    table: RecordTable,
    fib: Fib,
    counts: Counts,
    events: Vec<Event>,
    /// Sockets with positions to show.
    touched: Vec<u32>,
    /// Sockets with datagrams to send, in turn.
    sending: VecDeque<u32>,
    shows: Vec<(u32, Show)>,
    /// Sockets whose application broke the rules in this turn.
    faulted: Vec<u32>,
    /// Received packets that ipd is asked to complain about.
    bounced: Vec<SkBuff>,
    targets: Vec<u32>,
    registered: Vec<u16>,
    retry_at: Option<Nanos>,
}

impl Service for Udpd {
    const COUNTERS: &'static [&'static str] = counters::NAMES;
    const STATE_KIND: u64 = RECORD_KIND;

    fn state_size(stack: &StackConfig) -> usize {
        layout(stack).size()
    }

    fn restore(config: &DaemonConfig, plumbing: &mut Plumbing, now: Nanos) -> anyhow::Result<Self> {
        Self::take_up(config, plumbing, now)
    }

    fn poll(&mut self, cx: &mut Context<'_>, budget: usize) -> usize {
        let mut events = std::mem::take(&mut self.events);
        let mut handled = self.sessions.poll(&mut cx.plumbing.store, &mut events);
        for event in events.drain(..) {
            match event {
                Event::Call(call) => self.call(&call, &mut cx.plumbing.store),
                Event::Dirty(socket) => self.look_at(socket),
                Event::Closed(socket) => self.closed(socket),
            }
        }
        self.events = events;
        handled += self.receive_all(cx, budget);
        handled += self.send_all(cx, budget);
        self.bury(&mut cx.plumbing.store);
        self.watch.works_on_none();
        handled
    }

    fn commit(&mut self, _: &mut Context<'_>) {
        let table = &self.table;
        self.engine.commit(|index, record| match record {
            Some(record) => table.commit(index, zerocopy::IntoBytes::as_bytes(record)),
            None => table.clear(index),
        });
    }

    fn release(&mut self, cx: &mut Context<'_>) {
        self.let_out(cx);
    }

    fn has_input(&self, _: &Context<'_>) -> bool {
        self.sessions.has_input()
    }

    fn look_again(&mut self) {
        self.sessions.look_again();
    }

    fn arm(&mut self, armed: bool) {
        self.sessions.arm(armed);
    }

    fn deadline(&self) -> Option<Nanos> {
        self.retry_at
    }

    fn on_fd(&mut self, _: &mut Context<'_>, token: u64, _: EpollFlags) {
        if token == SESSIONS {
            self.sessions.on_fd();
        }
    }

    fn reconfigure(&mut self, config: &DaemonConfig, cx: &mut Context<'_>) {
        self.end_quarantined(config, &mut cx.plumbing.store);
        self.fib = Fib::new(&config.stack);
    }

    fn query(&mut self, what: Query, _: &mut Context<'_>) -> (Vec<String>, Vec<Vec<String>>) {
        self.report(what)
    }
}

impl Udpd {
    /// Looks at what the application changed.
    fn look_at(&mut self, socket: SocketRef) {
        let Some(index) = self.sessions.owner(socket) else {
            return;
        };
        if self.load_words(index) {
            self.touch(index);
            self.wants_to_send(index);
        }
    }

    /// Loads and validates a socket's words; false when they are impossible.
    fn load_words(&mut self, index: u32) -> bool {
        let capacity = self.engine.capacity();
        let Some(socket) = self.engine.get_mut(index) else {
            return false;
        };
        self.watch.works_on(index, &socket.record);
        let Some(words) = self.sessions.words(socket.place()) else {
            return false;
        };
        let known = Known {
            tx_tail: socket.tx.tail,
            tx_head: socket.tx.head,
            tx_limit: capacity.0,
            rx_head: socket.rx.head,
            rx_tail: socket.rx_shown,
        };
        match words.load(&known) {
            Ok(said) => {
                socket.tx.tail = said.tx_tail;
                socket.rx.head = said.rx_head;
                true
            }
            Err(fault) => {
                tracing::debug!(index, %fault, "an application broke the rules");
                self.faulted.push(index);
                false
            }
        }
    }

    /// The last descriptor was closed: what was sent before still goes out.
    fn closed(&mut self, socket: SocketRef) {
        let Some(index) = self.sessions.owner(socket) else {
            return;
        };
        self.load_words(index);
        if let Some(s) = self.engine.get_mut(index) {
            s.closing = true;
        }
        self.wants_to_send(index);
    }

    /// Puts a socket on the list of those with something to show.
    fn touch(&mut self, index: u32) {
        if let Some(s) = self.engine.get_mut(index)
            && !std::mem::replace(&mut s.touched, true)
        {
            self.touched.push(index);
        }
    }

    /// Puts a socket on the list of those with something to send (or to end).
    fn wants_to_send(&mut self, index: u32) {
        if let Some(s) = self.engine.get_mut(index)
            && (s.tx.used() > 0 || s.closing)
            && !std::mem::replace(&mut s.sending, true)
        {
            self.sending.push_back(index);
        }
    }

    fn post_error(&mut self, index: u32, errno: i32) {
        self.counts.bump(Counter::ErrorsPosted);
        self.shows.push((index, Show::Error(errno)));
    }

    /// Resets the sockets of applications that broke the rules.
    fn bury(&mut self, store: &mut runtime::StoreClient) {
        while let Some(index) = self.faulted.pop() {
            let Some(socket) = self.engine.close(index) else {
                continue;
            };
            self.counts.bump(Counter::AppFaults);
            self.end(socket, libc::EPROTO, store);
        }
    }
}
