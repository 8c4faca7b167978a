//! What happens to a frame by chance: a pure function of the seed and of the frame's place in the
//! order.

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
    /// How long it is under way.
    pub delay: Nanos,
}

/// Draws fates.
///
/// Each frame draws the same number of random numbers whatever is switched on, so that turning
/// one fault on does not move the others.
#[derive(Debug)]
pub struct Fates {
    config: Impairment,
    rng: fastrand::Rng,
    /// Within a burst of losses (Gilbert 1960).
    bad: bool,
}

impl Fates {
    /// A generator for one direction.
    #[must_use]
    pub fn new(config: &Impairment, direction: u64) -> Self {
        let seed = config.seed ^ direction.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            config: *config,
            rng: fastrand::Rng::with_seed(seed),
            bad: false,
        }
    }

    /// Changes the faults; the generator begins again when the seed is another.
    pub fn set(&mut self, config: &Impairment, direction: u64) {
        if config.seed != self.config.seed {
            self.rng = Self::new(config, direction).rng;
        }
        self.config = *config;
    }

    /// The fate of the next frame.
    pub fn draw(&mut self) -> Fate {
        let c = self.config;
        let chance = self.rng.f64();
        let mut hits = |probability: f64| self.rng.f64() < probability;
        let (twice, late, corrupt) = (hits(c.duplicate), hits(c.reorder), hits(c.corrupt));
        let (jitter, behind, flip) = (self.rng.f64(), self.rng.u32(1..=3), self.rng.u64(..));
        let lost = self.is_lost(chance);
        let jitter_ns = jitter * f64::from(c.jitter_us) * 1000.0;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, at most 2^32 us"
        )]
        let delay = u64::from(c.delay_us) * 1000 + jitter_ns as u64;
        Fate {
            lost,
            twice,
            behind: if late { behind } else { 0 },
            flip: corrupt.then_some(flip),
            delay,
        }
    }

    /// Independent losses, or Gilbert's model: within a burst every frame is lost, a burst ends
    /// with probability 1 / `burst`, and begins so often that `loss` is the share in the end.
    fn is_lost(&mut self, chance: f64) -> bool {
        let (loss, burst) = (self.config.loss, self.config.loss_burst);
        if burst <= 1.0 || loss >= 1.0 {
            return chance < loss;
        }
        self.bad = if self.bad {
            chance >= 1.0 / burst
        } else {
            chance < loss / (burst * (1.0 - loss))
        };
        self.bad
    }
}
