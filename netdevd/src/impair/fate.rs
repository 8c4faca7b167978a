//! What happens to a frame: a pure function of the seed, the frame's place in the order, its
//! length and the time.

use abi::Nanos;
use abi::config::Impairment;

/// A frame's fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// It is lost; nothing else matters.
    pub lost: bool,
    /// It is sent twice.
    pub twice: bool,
    /// So many later frames pass it; 0 for none.
    pub behind: u32,
    /// The bit to flip, to be taken modulo the frame's length.
    pub flip: Option<u64>,
    /// When it gets out at the earliest.
    pub at: Nanos,
}

/// Draws fates.
///
/// Each frame draws the same number of random numbers whatever is switched on, so that turning
/// one fault on does not move the others.
#[derive(Debug)]
pub struct Fates {
    config: Impairment,
    rng: fastrand::Rng,
    /// When the limited link is free again.
    free: Nanos,
    /// When the last frame got out: delays vary, order is the business of reordering.
    last: Nanos,
}

impl Fates {
    /// A generator for one direction.
    #[must_use]
    pub fn new(config: &Impairment, direction: u64) -> Self {
        let seed = config.seed ^ direction.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            config: *config,
            rng: fastrand::Rng::with_seed(seed),
            free: 0,
            last: 0,
        }
    }

    /// Changes the faults; the generator begins again when the seed is another.
    pub fn set(&mut self, config: &Impairment, direction: u64) {
        if config.seed != self.config.seed {
            self.rng = Self::new(config, direction).rng;
        }
        self.config = *config;
    }

    /// The fate of a frame of `len` bytes that is sent at `now`.
    pub fn draw(&mut self, now: Nanos, len: usize) -> Fate {
        let c = self.config;
        let mut hits = |probability: f64| self.rng.f64() < probability;
        let (lost, twice, late, corrupt) = (
            hits(c.loss),
            hits(c.duplicate),
            hits(c.reorder),
            hits(c.corrupt),
        );
        let (jitter, behind, flip) = (self.rng.f64(), self.rng.u32(1..=3), self.rng.u64(..));
        if lost {
            return Fate {
                lost,
                twice: false,
                behind: 0,
                flip: None,
                at: now,
            };
        }
        let jitter_ns = jitter * f64::from(c.jitter_us) * 1000.0;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, at most 2^32 us"
        )]
        let delay = u64::from(c.delay_us) * 1000 + jitter_ns as u64;
        let at = self.serialised(now, len).saturating_add(delay);
        let at = at.max(self.last);
        self.last = at;
        Fate {
            lost,
            twice,
            behind: if late { behind } else { 0 },
            flip: corrupt.then_some(flip),
            at,
        }
    }

    /// When the last bit of the frame has left a link of the configured rate.
    fn serialised(&mut self, now: Nanos, len: usize) -> Nanos {
        if self.config.rate_kbps == 0 {
            return now;
        }
        // bits / (kbit/s) = ms, so bits * 10^6 / kbps = ns.
        let takes = (len as u64).saturating_mul(8_000_000) / self.config.rate_kbps;
        self.free = self.free.max(now).saturating_add(takes);
        self.free
    }
}
