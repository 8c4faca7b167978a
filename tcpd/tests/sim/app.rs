//! An application at one end of a connection: writes a pattern, checks the other's, in random
//! pieces, with random pauses; ends as its script says.

use crate::script::{End, Script, first_options, random_option};
use abi::Nanos;
use abi::session::{Ring, SockOpt};
use fastrand::Rng;
use tcpd::engine::{AppWords, ConnId, State, Tcb};

/// Eight bytes of stream `key`.
fn word(key: u64, index: u64) -> [u8; 8] {
    let x = (index ^ key.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 29))
        .wrapping_mul(0xbf58_476d_1ce4_e5b9)
        .to_le_bytes()
}

/// Byte `position` of stream `key`.
pub(crate) fn pattern(key: u64, position: u64) -> u8 {
    word(key, position >> 3)[(position & 7) as usize]
}

/// The pieces of a buffer that hold `len` bytes from `position` on.
pub(crate) fn pieces(
    ring: &Ring,
    position: u64,
    len: u64,
) -> impl Iterator<Item = (u64, usize, usize)> {
    let (ring, end, mut at) = (*ring, position + len, position);
    std::iter::from_fn(move || {
        let from = at;
        if from >= end {
            return None;
        }
        let piece = ring.stretch(from).expect("the ring knows no place");
        let len = piece.len.min(end - from);
        at += len;
        Some((from, piece.at as usize, len as usize))
    })
}

/// Copies stream `key` from `position` on into a ring.
pub(crate) fn fill(memory: &mut [u8], ring: &Ring, key: u64, position: u64, len: u64) {
    for (from, start, len) in pieces(ring, position, len) {
        let mut bytes = word(key, from >> 3);
        for (p, byte) in (from..).zip(&mut memory[start..start + len]) {
            if p & 7 == 0 {
                bytes = word(key, p >> 3);
            }
            *byte = bytes[(p & 7) as usize];
        }
    }
}

/// Compares the same.
pub(crate) fn check(memory: &[u8], ring: &Ring, key: u64, position: u64, len: u64) {
    for (from, start, len) in pieces(ring, position, len) {
        let mut bytes = word(key, from >> 3);
        for (p, &got) in (from..).zip(&memory[start..start + len]) {
            if p & 7 == 0 {
                bytes = word(key, p >> 3);
            }
            let wanted = bytes[(p & 7) as usize];
            assert!(got == wanted, "wrong byte {p}: {got}, not {wanted}");
        }
    }
}

/// A socket's memory: survives the engine.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) tx: Vec<u8>,
    pub(crate) rx: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct App {
    pub(crate) conn: ConnId,
    pub(crate) generation: u32,
    pub(crate) words: AppWords,
    pub(crate) script: Script,
    /// Options that are to be set; until a commit has seen them they are set again.
    pub(crate) options: Vec<SockOpt>,
    /// The last descriptor is closed.
    pub(crate) closed: bool,
    /// The errno that ended the connection.
    pub(crate) failed: Option<i32>,
    /// The record was seen connected.
    connected: bool,
    rng: Rng,
}

impl App {
    pub(crate) fn new(conn: ConnId, generation: u32, script: Script) -> Self {
        let mut rng = Rng::with_seed(script.seed);
        let options = if script.habits.options {
            first_options(&mut rng)
        } else {
            Vec::new()
        };
        Self {
            conn,
            generation,
            words: AppWords::default(),
            script,
            options,
            closed: false,
            failed: None,
            connected: false,
            rng,
        }
    }

    /// Writes before the connection is made (`MSG_FASTOPEN`).
    pub(crate) fn write_ahead(&mut self, record: &Tcb, memory: &mut Memory) {
        self.write(record, memory);
    }

    /// Everything was sent and received, and both ends said so.
    fn is_done(&self, record: &Tcb) -> bool {
        self.words.shut_wr && record.peer_finished() && self.is_delivered()
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
        let in_order = record.peer_finished() && record.fin_acked();
        let over = record.state() == State::Closed && !in_order;
        if record.error != 0 || over {
            self.on_broken(record, memory);
            return None;
        }
        if self.script.patience.is_some_and(|at| now >= at) {
            self.close();
            return None;
        }
        let next = self.go_on(now, record, memory);
        match self.script.patience {
            Some(at) if !self.closed => Some(next.map_or(at, |next| next.min(at))),
            _ => next,
        }
    }

    fn go_on(&mut self, now: Nanos, record: &Tcb, memory: &mut Memory) -> Option<Nanos> {
        if !self.connected {
            if matches!(record.state(), State::SynSent | State::SynReceived) {
                return None;
            }
            self.connected = true;
        }
        if self.rng.f64() < 0.5 {
            self.words.accepted = true;
        }
        if self.rng.f64() < self.script.habits.slow {
            return Some(now + self.rng.u64(0..3_000_000_000));
        }
        if self.script.habits.options && self.rng.u8(..50) == 0 {
            self.options.push(random_option(&mut self.rng));
        }
        self.read(record, memory);
        self.write(record, memory);
        if self.wants_to_end() {
            self.close();
            return None;
        }
        if self.words.written == self.script.send.total {
            if let End::Linger(millis) = self.script.end {
                self.options.push(SockOpt::Linger(Some(millis)));
            }
            if matches!(self.script.end, End::Close | End::Linger(_)) {
                self.close();
                return None;
            }
            self.words.shut_wr = true;
        }
        if self.is_done(record) && (record.fin_acked() || !self.script.waits) {
            self.close();
            return None;
        }
        let unread = record.received_upto() > self.words.consumed;
        let space = record.write_limit() > self.words.written;
        let more = self.script.may_write(self.words.consumed) > self.words.written;
        let busy = unread || (space && more) || !self.words.accepted;
        busy.then(|| now + self.rng.u64(1_000..self.script.habits.pause))
    }

    fn close(&mut self) {
        self.words.accepted = true;
        self.closed = true;
    }

    fn wants_to_end(&mut self) -> bool {
        let moved = self.words.written + self.words.consumed;
        match self.script.end {
            End::Abandon(after) => moved >= after,
            End::Abort(after) if moved >= after => {
                self.options.push(SockOpt::Linger(Some(0)));
                true
            }
            _ => false,
        }
    }

    /// The connection is over for a reason that is not this end's.
    fn on_broken(&mut self, record: &Tcb, memory: &Memory) {
        // The peer's TIME_WAIT may be over before its last answer has arrived; whether it has got
        // everything, it looks for itself.
        let only_the_end = self.is_done(record);
        assert!(
            self.script.tolerant || only_the_end,
            "the connection broke: errno {}",
            record.error
        );
        self.failed = Some(record.error);
        let left = record.received_upto() - self.words.consumed;
        self.take(left, record, memory);
        self.close();
    }

    /// All, little, or any number.
    fn piece(&mut self) -> u8 {
        if self.script.habits.bulk {
            0
        } else {
            self.rng.u8(..3)
        }
    }

    /// Everything the peer had to say was read.
    pub(crate) fn is_delivered(&self) -> bool {
        self.words.consumed == self.script.receive.total
    }

    fn take(&mut self, n: u64, record: &Tcb, memory: &Memory) {
        let stream = self.script.receive;
        let ring = &record.memory.rings.rx;
        check(&memory.rx, ring, stream.key, self.words.consumed, n);
        self.words.consumed += n;
        assert!(self.words.consumed <= stream.total, "more than was sent");
    }

    fn read(&mut self, record: &Tcb, memory: &Memory) {
        let available = record.received_upto() - self.words.consumed;
        let n = match self.piece() {
            0 => available,
            1 => available.min(self.rng.u64(0..100)),
            _ => self.rng.u64(0..=available),
        };
        self.take(n, record, memory);
        if record.peer_finished() && !self.script.tolerant {
            let total = self.script.receive.total;
            assert_eq!(record.received_upto(), total, "early end");
        }
    }

    fn write(&mut self, record: &Tcb, memory: &mut Memory) {
        let space = record.write_limit() - self.words.written;
        let limit = self.script.may_write(self.words.consumed);
        let most = space.min(limit.saturating_sub(self.words.written));
        let n = match self.piece() {
            0 => most,
            1 => most.min(self.rng.u64(0..2_000)),
            _ => self.rng.u64(0..=most),
        };
        let key = self.script.send.key;
        let ring = &record.memory.rings.tx;
        fill(&mut memory.tx, ring, key, self.words.written, n);
        self.words.written += n;
        if n > 0 && self.script.habits.options && self.rng.u8(..30) == 0 {
            self.words.urgent = self.words.written;
        }
    }
}
