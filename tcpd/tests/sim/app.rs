//! An application at one end of a connection: writes a pattern, checks the other's, in random
//! pieces, with random pauses; closes one way or both.

use abi::Nanos;
use fastrand::Rng;
use tcpd::engine::{AppWords, ConnId, State, Tcb};

/// Byte `position` of stream `key`.
pub(crate) fn pattern(key: u64, position: u64) -> u8 {
    let x = (position ^ key.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x >> 53) as u8
}

/// A socket's memory: survives the engine.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) tx: Vec<u8>,
    pub(crate) rx: Vec<u8>,
}

/// How it goes about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    /// Probability of a pause of seconds.
    pub(crate) slow: f64,
    /// Reads and writes as much as it can.
    pub(crate) bulk: bool,
    /// Longest time between two actions.
    pub(crate) pause: Nanos,
}

#[derive(Debug)]
pub(crate) struct App {
    pub(crate) conn: ConnId,
    pub(crate) generation: u32,
    pub(crate) words: AppWords,
    send_key: u64,
    send_total: u64,
    receive_key: u64,
    receive_total: u64,
    /// The last descriptor is closed.
    pub(crate) closed: bool,
    /// The record was seen connected.
    connected: bool,
    habits: Habits,
    rng: Rng,
}

impl App {
    pub(crate) fn new(
        conn: ConnId,
        generation: u32,
        send: (u64, u64),
        receive: (u64, u64),
        habits: Habits,
        seed: u64,
    ) -> Self {
        Self {
            conn,
            generation,
            words: AppWords::default(),
            send_key: send.0,
            send_total: send.1,
            receive_key: receive.0,
            receive_total: receive.1,
            closed: false,
            connected: false,
            habits,
            rng: Rng::with_seed(seed),
        }
    }

    /// Everything was sent and received, and both ends said so.
    fn is_done(&self, record: &Tcb) -> bool {
        self.words.shut_wr && record.peer_finished() && self.words.consumed == self.receive_total
    }

    /// Acts on the committed record. Returns when it wants to act again.
    pub(crate) fn act(
        &mut self,
        now: Nanos,
        record: Option<&Tcb>,
        memory: &mut Memory,
    ) -> Option<Nanos> {
        if self.closed {
            return None;
        }
        let record = record.expect("the record of an open socket vanished");
        assert_eq!(record.generation, self.generation);
        assert_eq!(record.error, 0, "connection failed: {:?}", record.state());
        if !self.connected {
            if matches!(record.state(), State::SynSent | State::SynReceived) {
                return None;
            }
            self.connected = true;
        }
        if self.rng.f64() < 0.5 {
            self.words.accepted = true;
        }
        if self.rng.f64() < self.habits.slow {
            return Some(now + self.rng.u64(0..3_000_000_000));
        }
        self.read(record, memory);
        self.write(record, memory);
        if self.words.written == self.send_total {
            self.words.shut_wr = true;
        }
        if self.is_done(record) {
            self.words.accepted = true;
            self.closed = true;
            return None;
        }
        let unread = record.received_upto() > self.words.consumed;
        let space = record.acked_upto() + memory.tx.len() as u64 > self.words.written;
        let busy =
            unread || (space && self.words.written < self.send_total) || !self.words.accepted;
        busy.then(|| now + self.rng.u64(1_000..self.habits.pause))
    }

    /// All, little, or any number.
    fn piece(&mut self) -> u8 {
        if self.habits.bulk {
            0
        } else {
            self.rng.u8(..3)
        }
    }

    /// Everything the peer had to say was read.
    pub(crate) fn is_delivered(&self) -> bool {
        self.words.consumed == self.receive_total
    }

    fn read(&mut self, record: &Tcb, memory: &Memory) {
        let available = record.received_upto() - self.words.consumed;
        let n = match self.piece() {
            0 => available,
            1 => available.min(self.rng.u64(0..100)),
            _ => self.rng.u64(0..=available),
        };
        for position in self.words.consumed..self.words.consumed + n {
            let byte = memory.rx[position as usize % memory.rx.len()];
            assert_eq!(byte, pattern(self.receive_key, position), "byte {position}");
        }
        self.words.consumed += n;
        assert!(self.words.consumed <= self.receive_total);
        if record.peer_finished() {
            assert_eq!(record.received_upto(), self.receive_total, "early end");
        }
    }

    fn write(&mut self, record: &Tcb, memory: &mut Memory) {
        let space = record.acked_upto() + memory.tx.len() as u64 - self.words.written;
        let most = space.min(self.send_total - self.words.written);
        let n = match self.piece() {
            0 => most,
            1 => most.min(self.rng.u64(0..2_000)),
            _ => self.rng.u64(0..=most),
        };
        let len = memory.tx.len();
        for position in self.words.written..self.words.written + n {
            memory.tx[position as usize % len] = pattern(self.send_key, position);
        }
        self.words.written += n;
    }
}
