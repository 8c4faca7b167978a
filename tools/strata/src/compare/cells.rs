//! The cells of the table: links, and which way data goes.

use abi::config::Impairment;
use core::fmt;

/// Payload of a full segment with timestamps, in bytes.
const MSS: f64 = 1448.0;
/// A full frame in bytes.
const FRAME: f64 = 1514.0;

/// Which way the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Ours connects and sends.
    Sends,
    /// Ours listens, accepts and receives.
    Receives,
}

/// A link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cell {
    /// What is special about it.
    pub(super) note: &'static str,
    /// Rate of the bottleneck each way.
    pub(super) mbps: u32,
    /// Round-trip time without queue.
    pub(super) rtt_ms: u32,
    /// Share of data frames that are lost.
    pub(super) loss: f64,
    /// Losses in a row, on average.
    pub(super) burst: f64,
    /// Share of data frames that are passed by others.
    pub(super) reorder: f64,
    /// Jitter of each way in microseconds.
    pub(super) jitter_us: u32,
    /// Share of data frames that come twice.
    pub(super) duplicate: f64,
    /// Frames that wait at the bottleneck; none: the product of rate and delay, 50 at the least.
    pub(super) queue: Option<u32>,
    /// Whether acknowledgements are lost as data are.
    pub(super) both_ways: bool,
}

/// No faults.
const CLEAN: Cell = Cell {
    note: "",
    mbps: 100,
    rtt_ms: 20,
    loss: 0.0,
    burst: 1.0,
    reorder: 0.0,
    jitter_us: 0,
    duplicate: 0.0,
    queue: None,
    both_ways: true,
};

impl Cell {
    /// Frames that wait at the bottleneck.
    pub(super) fn frames(&self) -> u32 {
        self.queue.unwrap_or(self.product().max(50))
    }

    /// Frames that are under way when the link is full and the queue is not.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few thousand"
    )]
    fn product(&self) -> u32 {
        (f64::from(self.mbps) * 1e3 * f64::from(self.rtt_ms) / (8.0 * FRAME)) as u32
    }

    /// The faults of the way that data takes, and of the way back.
    pub(super) fn impairments(&self, seed: u64) -> [Impairment; 2] {
        let data = Impairment {
            seed,
            loss: self.loss,
            loss_burst: self.burst,
            duplicate: self.duplicate,
            reorder: self.reorder,
            delay_us: self.rtt_ms * 500,
            jitter_us: self.jitter_us,
            rate_kbps: u64::from(self.mbps) * 1000,
            queue: self.frames(),
            ..Impairment::default()
        };
        let back = Impairment {
            loss: if self.both_ways { self.loss } else { 0.0 },
            duplicate: 0.0,
            reorder: 0.0,
            ..data
        };
        [data, back]
    }

    /// The same link without faults and no slower than most: what remains in buffers at the end
    /// of a transfer goes here.
    pub(super) fn healed(&self) -> [Impairment; 2] {
        let healed = Cell {
            loss: 0.0,
            burst: 1.0,
            reorder: 0.0,
            jitter_us: 0,
            duplicate: 0.0,
            mbps: self.mbps.max(100),
            queue: Some(self.frames().max(1000)),
            ..*self
        };
        healed.impairments(0)
    }

    /// Mbit/s that one connection will take about: the rate, or what random loss leaves of it
    /// (Mathis et al. 1997), or a short queue.
    fn expected(&self) -> f64 {
        let rtt = f64::from(self.rtt_ms.max(1)) / 1e3;
        let by_loss = 1.3 * MSS * 8.0 / (rtt * self.loss.max(1e-9).sqrt()) / 1e6;
        let by_queue = match self.queue {
            Some(_) if self.is_short() => f64::from(self.mbps) / 4.0,
            _ => f64::from(self.mbps),
        };
        by_loss.min(by_queue)
    }

    /// How many pairs of transfers can go at once, each over a link of its own, without the
    /// processor becoming the bottleneck.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 16"
    )]
    pub(super) fn at_once(&self, budget_mbps: f64) -> usize {
        if self.is_short() {
            return 1;
        }
        (budget_mbps / (2.0 * self.expected())).clamp(1.0, 16.0) as usize
    }

    /// Whether the queue is so short that what counts are bursts of a millisecond: another
    /// transfer on the same processor makes them, and one loss more or less in slow start halves
    /// what is measured. So these take turns.
    pub(super) fn is_short(&self) -> bool {
        self.queue.is_some_and(|frames| frames < self.product() / 4)
    }

    /// The losses by the delays.
    fn grid() -> Vec<Self> {
        let mut cells = Vec::new();
        for loss in [0.0, 0.001, 0.01, 0.03, 0.1] {
            for rtt_ms in [0, 1, 20, 100, 200] {
                cells.push(Self {
                    rtt_ms,
                    loss,
                    ..CLEAN
                });
            }
        }
        cells
    }

    /// What else links do.
    fn others() -> Vec<Self> {
        let with = |note, change: &dyn Fn(&mut Self)| {
            let mut cell = Self { note, ..CLEAN };
            change(&mut cell);
            cell
        };
        vec![
            with("queue of 10 frames", &|c| c.queue = Some(10)),
            with("queue of 20 frames", &|c| {
                c.queue = Some(20);
                c.rtt_ms = 100;
            }),
            with("deep queue", &|c| {
                c.queue = Some(1000);
                c.mbps = 20;
            }),
            with("losses in bursts of 5", &|c| {
                c.loss = 0.005;
                c.burst = 5.0;
            }),
            with("1 % out of order", &|c| c.reorder = 0.01),
            with("5 % out of order", &|c| {
                c.reorder = 0.05;
                c.rtt_ms = 100;
            }),
            with("2 % out of order", &|c| {
                c.reorder = 0.02;
                c.loss = 0.002;
            }),
            with("jitter of 5 ms", &|c| c.jitter_us = 5000),
            with("1 % come twice", &|c| c.duplicate = 0.01),
            with("", &|c| {
                c.mbps = 1;
                c.rtt_ms = 50;
            }),
            with("", &|c| {
                c.mbps = 10;
                c.rtt_ms = 50;
            }),
            with("", &|c| {
                c.mbps = 10;
                c.rtt_ms = 50;
                c.loss = 0.005;
            }),
            with("", &|c| c.mbps = 200),
        ]
    }

    /// Every cell.
    pub(super) fn all() -> Vec<Self> {
        let mut cells = Self::grid();
        cells.extend(Self::others());
        cells
    }

    /// A few that show most, slow enough for two pairs at once.
    pub(super) fn short() -> Vec<Self> {
        let with = |note, change: &dyn Fn(&mut Self)| {
            let mut cell = Self {
                note,
                mbps: 20,
                ..CLEAN
            };
            change(&mut cell);
            cell
        };
        vec![
            with("", &|_| {}),
            with("", &|c| c.loss = 0.01),
            with("queue of 10 frames", &|c| c.queue = Some(10)),
            with("1 % out of order", &|c| c.reorder = 0.01),
        ]
    }

    /// Bottlenecks that two share: delays by queues of a half, one and two products of rate and
    /// delay.
    pub(super) fn shared() -> Vec<Self> {
        let mut cells = Vec::new();
        for rtt_ms in [10, 50, 100] {
            for halves in [1, 2, 4] {
                let cell = Self {
                    mbps: 20,
                    rtt_ms,
                    ..CLEAN
                };
                let product = Self {
                    queue: None,
                    ..cell
                }
                .product();
                cells.push(Self {
                    queue: Some(product * halves / 2),
                    ..cell
                });
            }
        }
        cells
    }

    /// Links whose curves are shown.
    pub(super) fn curves() -> Vec<Self> {
        vec![
            CLEAN,
            Self {
                rtt_ms: 100,
                ..CLEAN
            },
            Self {
                loss: 0.001,
                rtt_ms: 100,
                ..CLEAN
            },
            Self {
                loss: 0.01,
                ..CLEAN
            },
        ]
    }

    /// A name for files.
    pub(super) fn slug(&self) -> String {
        let text = self.to_string();
        let words: Vec<String> = text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect();
        words.join("-")
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} Mbit/s, {} ms, {} % loss",
            self.mbps,
            self.rtt_ms,
            self.loss * 100.0
        )?;
        match self.note {
            "" => Ok(()),
            note => write!(f, ", {note}"),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sends => "sends",
            Self::Receives => "receives",
        })
    }
}
