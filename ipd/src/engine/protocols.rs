//! Which transport serves which protocol, as `inet_add_protocol` keeps it.
//!
//! A protocol that was ever registered is never answered for with "protocol unreachable": its
//! transport may be down for a moment, and a crash must look like packet loss. Nor is any, while
//! a transport that is to come has not registered yet: it may be the one.

use super::Upper;

const NONE: u8 = u8::MAX;

/// The table.
#[derive(Debug)]
pub(crate) struct Protocols {
    serving: [u8; 256],
    ever: [bool; 256],
    /// Transports that have not registered yet.
    awaited: Vec<Upper>,
}

impl Default for Protocols {
    fn default() -> Self {
        Self {
            serving: [NONE; 256],
            ever: [false; 256],
            awaited: Vec::new(),
        }
    }
}

impl Protocols {
    /// A transport that will register sooner or later.
    pub(crate) fn expect(&mut self, upper: Upper) {
        self.awaited.push(upper);
    }

    /// Replaces what `upper` serves. Of two that want one protocol, the first keeps it.
    pub(crate) fn register(&mut self, upper: Upper, numbers: impl Iterator<Item = u16>) {
        for place in &mut self.serving {
            if *place == upper.0 {
                *place = NONE;
            }
        }
        for number in numbers {
            self.awaited.retain(|&u| u != upper);
            let place = usize::from(number);
            if let (Some(serving), Some(ever)) =
                (self.serving.get_mut(place), self.ever.get_mut(place))
            {
                *ever = true;
                if *serving == NONE {
                    *serving = upper.0;
                }
            }
        }
    }

    /// Who serves `protocol` now.
    #[inline]
    pub(crate) fn get(&self, protocol: u8) -> Option<Upper> {
        self.serving
            .get(usize::from(protocol))
            .copied()
            .filter(|&u| u != NONE)
            .map(Upper)
    }

    /// Whether anybody ever did, or yet may.
    pub(crate) fn may_be_served(&self, protocol: u8) -> bool {
        let ever = self.ever.get(usize::from(protocol)).copied();
        ever.unwrap_or(false) || !self.awaited.is_empty()
    }
}
