//! What an application at one end of a connection is going to do.

use abi::Nanos;
use abi::session::SockOpt;
use fastrand::Rng;
use tcpd::engine::congestion::Algorithm;

/// How it goes about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    /// Probability of a pause of seconds.
    pub(crate) slow: f64,
    /// Reads and writes as much as it can.
    pub(crate) bulk: bool,
    /// Longest time between two actions.
    pub(crate) pause: Nanos,
    /// Socket options are set at the beginning and now and then.
    pub(crate) options: bool,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum End {
    /// `shutdown` after the last byte, `close` when everything is here.
    Orderly,
    /// `close` instead of `shutdown`; what the peer says after that meets a reset.
    Close,
    /// The same with a linger time of so many milliseconds: as long as the FIN is not
    /// acknowledged, the engine keeps the buffers, whose end whoever closes waits for.
    Linger(u32),
    /// `close` after so many bytes in both directions, unread data or not.
    Abandon(u64),
    /// The same with a linger time of zero.
    Abort(u64),
}

/// A direction's bytes: the key of the pattern and how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    pub(crate) key: u64,
    pub(crate) total: u64,
}

/// One end's part.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) send: Stream,
    pub(crate) receive: Stream,
    /// Answers and questions in turn: the own piece, the peer's, and whether this end begins.
    pub(crate) exchange: Option<(u64, u64, bool)>,
    pub(crate) end: End,
    pub(crate) habits: Habits,
    /// The connection may break, for the peer or the path is like that.
    pub(crate) tolerant: bool,
    /// It closes the socket only when the peer has everything: no orphan could give up.
    pub(crate) waits: bool,
    /// It closes the socket at this time whatever happened.
    pub(crate) patience: Option<Nanos>,
    pub(crate) seed: u64,
}

impl Script {
    /// Most bytes that may be written after so many were read.
    pub(crate) fn may_write(&self, consumed: u64) -> u64 {
        match self.exchange {
            None => self.send.total,
            Some((own, peers, begins)) => {
                let turns = consumed / peers + u64::from(begins);
                self.send.total.min(turns.saturating_mul(own))
            }
        }
    }
}

/// The congestion controls that the engine knows.
fn congestion_names() -> Vec<&'static str> {
    ["reno", "newreno", "cubic", "bbr"]
        .into_iter()
        .filter(|name| Algorithm::by_name(name).is_some())
        .collect()
}

/// One of them.
pub(crate) fn random_algorithm(rng: &mut Rng) -> Algorithm {
    let names = congestion_names();
    Algorithm::by_name(names[rng.usize(..names.len())]).unwrap()
}

/// Some option that an application might set, at any time.
pub(crate) fn random_option(rng: &mut Rng) -> SockOpt {
    match rng.u8(..13) {
        0 => SockOpt::NoDelay(rng.bool()),
        1 => SockOpt::Cork(rng.bool()),
        2 => SockOpt::QuickAck(rng.bool()),
        3 => SockOpt::RecvBuffer(1 << rng.u8(8..20)),
        4 => SockOpt::SendBuffer(1 << rng.u8(8..20)),
        5 => SockOpt::KeepAlive(rng.bool()),
        6 => SockOpt::KeepIdle(rng.u32(1_000..100_000)),
        7 => SockOpt::KeepInterval(rng.u32(30_000..100_000)),
        8 => SockOpt::Tos(rng.u8(..)),
        9 => SockOpt::MaxPacingRate(match rng.bool() {
            true => u64::MAX,
            false => rng.u64(100_000..10_000_000),
        }),
        10 => SockOpt::NotSentLowat(rng.u32(..100_000)),
        _ => {
            let names = congestion_names();
            SockOpt::Congestion(names[rng.usize(..names.len())].to_owned())
        }
    }
}

/// Options for a socket that is not connected yet.
pub(crate) fn first_options(rng: &mut Rng) -> Vec<SockOpt> {
    let mut options: Vec<SockOpt> = (0..rng.usize(..4)).map(|_| random_option(rng)).collect();
    if rng.u8(..4) == 0 {
        options.push(SockOpt::MaxSegment(rng.u32(100..1_460)));
    }
    options
}
