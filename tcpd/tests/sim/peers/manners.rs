//! How a scripted peer behaves where it does not behave.

use crate::plan::SECOND;
use abi::Nanos;
use fastrand::Rng;

/// One kind of bad manners.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Manners {
    /// None: the model itself is under test.
    Good,
    /// Never heard again after so many bytes in both directions.
    Vanish(u64),
    /// SYNs from many ports, and nothing after them.
    HalfOpen(u16),
    /// Forgets everything after so many bytes, as after a power failure.
    Reborn(u64),
    /// Offers a gigabyte and throws away what it has no room for.
    HugeWindow,
    /// Takes back windows it offered.
    ShrinkingWindow,
    /// Offers no window for so long, then one.
    ZeroWindow(Nanos),
    /// Never offers any window.
    ZeroForever,
    /// Offers a few bytes at a time.
    TinyWindow,
    /// Forgets what it had acknowledged selectively.
    Renege,
    /// Acknowledges what is still on its way, or lost.
    Optimistic,
    /// Acknowledges every segment in many parts.
    AckDivision,
    /// Says every acknowledgement many times.
    AckFlood,
    /// Acknowledges what was never sent.
    AckUnsent,
    /// SACK blocks that make no sense.
    WildSack,
    /// Answers this late.
    Late(Nanos),
    /// Sends beyond the window that it was offered.
    BeyondWindow,
    /// Sends more after its FIN.
    AfterFin,
    /// Resets at numbers inside the window, not the expected one.
    Resets,
    /// Sends its data in crumbs, out of order, many times.
    Crumbs,
    /// SYNs in the middle of the connection.
    StraySyns,
}

impl Manners {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let bytes = rng.u64(0..50_000);
        match rng.u8(..21) {
            0 => Self::Vanish(bytes),
            1 => Self::HalfOpen(rng.u16(1..400)),
            2 => Self::Reborn(bytes),
            3 => Self::HugeWindow,
            4 => Self::ShrinkingWindow,
            5 => Self::ZeroWindow(rng.u64(SECOND..900 * SECOND)),
            6 => Self::ZeroForever,
            7 => Self::TinyWindow,
            8 => Self::Renege,
            9 => Self::Optimistic,
            10 => Self::AckDivision,
            11 => Self::AckFlood,
            12 => Self::AckUnsent,
            13 => Self::WildSack,
            14 => Self::Late(rng.u64(SECOND / 10..20 * SECOND)),
            15 => Self::BeyondWindow,
            16 => Self::AfterFin,
            17 => Self::Resets,
            18 => Self::Crumbs,
            19 => Self::StraySyns,
            _ => Self::Good,
        }
    }

    /// In spite of everything, every byte must get through in both directions.
    pub(crate) fn delivers(self) -> bool {
        !matches!(
            self,
            Self::Vanish(_)
                | Self::HalfOpen(_)
                | Self::Reborn(_)
                | Self::ZeroForever
                | Self::Optimistic
        )
    }

    /// Only an opener can have them.
    pub(crate) fn must_open(self) -> bool {
        matches!(self, Self::HalfOpen(_))
    }
}
