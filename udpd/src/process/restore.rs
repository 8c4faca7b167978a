//! Starting: with nothing, or with what a predecessor left.

use super::counters::Counts;
use super::quarantine::{Watch, holds};
use super::{SESSIONS, Udpd, layout};
use crate::engine::queue::Queue;
use crate::engine::{Engine, Record};
use abi::config::DaemonConfig;
use abi::session::{DATAGRAM_ALIGN, SocketState};
use abi::suspect::Suspect;
use abi::{Nanos, RegionId};
use anyhow::Context as _;
use runtime::{EpollFlags, Fib, Plumbing};
use session::{Adopted, Known, Params, Sessions, SocketRef, Words};
use shm::RecordTable;
use std::collections::VecDeque;
use std::sync::Arc;
use zerocopy::IntoBytes;

impl Udpd {
    pub(super) fn take_up(
        config: &DaemonConfig,
        plumbing: &mut Plumbing,
        _: Nanos,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(plumbing.alloc.is_some(), "udpd has no pool of its own");
        anyhow::ensure!(!plumbing.links.is_empty(), "udpd has no link to ipd");
        let listener = plumbing
            .listener
            .take()
            .context("udpd has no listening socket")?;
        let bell = plumbing
            .bell
            .event()
            .try_clone_to_owned()
            .context("duplicating the doorbell")?;
        let stored = std::mem::take(&mut plumbing.stored);
        let params = Params::udp(plumbing.me);
        let sessions = Sessions::restore(params, listener, bell, stored, &mut plumbing.store)
            .context("taking up the applications' sessions")?;
        plumbing
            .poller
            .add(sessions.fd(), SESSIONS, EpollFlags::EPOLLIN)
            .context("watching the applications' sessions")?;
        let layout = layout(&config.stack);
        let state = plumbing
            .state
            .as_ref()
            .context("udpd has no state memory")?;
        let table = RecordTable::attach(state, layout).context("attaching udpd's state memory")?;
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(|e| anyhow::anyhow!("no random numbers: {e}"))?;
        let capacity = (params.tx_capacity, params.rx_capacity);
        let mut this = Self {
            watch: Watch(Arc::clone(&plumbing.vitals)),
            engine: Engine::new(layout.count, capacity, config.stack.secret, secret),
            sessions,
            table,
            fib: Fib::new(&config.stack),
            counts: Counts::default(),
            events: Vec::new(),
            touched: Vec::new(),
            sending: VecDeque::new(),
            shows: Vec::new(),
            faulted: Vec::new(),
            bounced: Vec::new(),
            targets: Vec::new(),
            registered: Vec::new(),
            retry_at: None,
        };
        let written: Vec<u32> = this.table.written().collect();
        for index in written {
            this.take_up_socket(index, &config.quarantine, plumbing);
        }
        this.watch.works_on_none();
        this.sessions.finish_restore(&mut plumbing.store);
        Ok(this)
    }

    fn take_up_socket(&mut self, index: u32, quarantine: &[Suspect], plumbing: &mut Plumbing) {
        use super::counters::Counter;
        let mut record = Record::default();
        let loaded = self.table.load(index, record.as_mut_bytes());
        if loaded == Ok(true) {
            if holds(quarantine, index, &record) {
                self.end_record(index, &record, &mut plumbing.store);
                return;
            }
            self.watch.works_on(index, &record);
        }
        match loaded {
            Ok(false) => return,
            Ok(true) if self.engine.restore(index, record) => {}
            _ => {
                self.counts.bump(Counter::CorruptRecords);
                self.table.clear(index);
                return;
            }
        }
        let socket = SocketRef {
            region: RegionId(record.region),
            slot: record.slot,
        };
        let adopted = self
            .sessions
            .adopt(socket, record.incarnation, index, &mut plumbing.store);
        let queues = self.sessions.words(socket).and_then(|w| positions(&w));
        match (adopted, queues) {
            (Adopted::Gone, _) => {
                // The application went away with its session.
                self.engine.close(index);
            }
            (_, None) => self.faulted.push(index),
            (adopted, Some((tx, rx))) => {
                self.counts.bump(Counter::Restored);
                let connected = record.peer.is_some();
                if let Some(s) = self.engine.get_mut(index) {
                    (s.tx, s.rx, s.rx_shown) = (tx, rx, rx.tail);
                    // Closed while nobody looked; what it sent before still goes out.
                    s.closing = adopted == Adopted::Lost;
                }
                if let Some(words) = self.sessions.words(socket) {
                    words.set_state(if connected {
                        SocketState::Connected
                    } else {
                        SocketState::Idle
                    });
                    words.set_limits(record.tx_limit, record.rx_limit);
                }
                self.wants_to_send(index);
                let room = tx.used() * 2 <= u64::from(record.tx_limit);
                self.sessions.reconcile(socket, rx.used() > 0, room, false);
            }
        }
    }
}

/// The positions of both queues as the session memory has them; none when they cannot be.
fn positions(words: &Words<'_>) -> Option<(Queue, Queue)> {
    let layout = words.memory().layout();
    let (tx_head, rx_tail) = (words.tx_head(), words.rx_tail());
    let known = Known {
        tx_tail: tx_head,
        tx_head,
        tx_limit: layout.tx_capacity,
        rx_head: rx_tail.saturating_sub(layout.rx_capacity.into()),
        rx_tail,
    };
    let said = words.load(&known).ok()?;
    let aligned = [tx_head, said.tx_tail, said.rx_head, rx_tail]
        .into_iter()
        .all(|p| p.is_multiple_of(DATAGRAM_ALIGN as u64) && p < u64::MAX / 2);
    let tx = Queue {
        head: tx_head,
        tail: said.tx_tail,
    };
    let rx = Queue {
        head: said.rx_head,
        tail: rx_tail,
    };
    aligned.then_some((tx, rx))
}
