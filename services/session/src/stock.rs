//! Pairs made ahead.
//!
//! A session that accepts connections keeps some slots with pairs whose far ends are stored
//! already, a batch in one message, so that a new connection costs the supervisor nothing and
//! its hand-over waits for nobody. How many follows the demand. They die with the process: their
//! stored ends have no record, and a successor forgets them.

use crate::error::SessionError;
use crate::session::Session;
use crate::sessions::Sessions;
use crate::shadow::{self, Shadow};
use crate::store::FdStore;
use abi::session::accept;
use std::os::fd::{AsFd, OwnedFd};

/// Pairs in the first batch, and at the most.
const FIRST: usize = 4;
const MOST: usize = 64;

/// A slot with its pair.
#[derive(Debug)]
pub(crate) struct Premade {
    pub(crate) slot: u32,
    pub(crate) incarnation: u32,
    pub(crate) shadow: Shadow,
    pub(crate) theirs: OwnedFd,
}

/// The stock of a session.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    pub(crate) pairs: Vec<Premade>,
    /// How many there should be.
    target: usize,
}

impl Sessions {
    /// A connection was made in the session at `index`: see to it that pairs are there for the
    /// next ones.
    pub(crate) fn demand(&mut self, index: usize) {
        let Some(session) = self.session_at_mut(index) else {
            return;
        };
        let stock = &mut session.stock;
        if stock.pairs.is_empty() {
            stock.target = (stock.target * 2).clamp(FIRST, MOST);
        }
        if stock.pairs.len() <= stock.target / 4 && !self.restock.contains(&index) {
            self.restock.push(index);
        }
    }

    /// Fills the stocks that run low. The stores go out with the next flush; nothing is used
    /// before a later turn.
    pub(crate) fn fill_stocks(&mut self, store: &mut dyn FdStore) {
        while let Some(index) = self.restock.pop() {
            let Some(session) = self.session_at_mut(index) else {
                continue;
            };
            while session.stock.pairs.len() < session.stock.target {
                match session.premake() {
                    Ok(pair) => {
                        let key = Session::shadow_key(session.region, pair.slot, pair.incarnation);
                        store.store(key, pair.shadow.as_fd());
                        session.stock.pairs.push(pair);
                    }
                    // Few slots or descriptors are left: they are for those who ask.
                    Err(_) => break,
                }
            }
        }
    }
}

impl Session {
    fn premake(&mut self) -> Result<Premade, SessionError> {
        let slot = self.slots.reserve(MOST).ok_or(SessionError::Full)?;
        let incarnation = self.words(slot).map(|w| accept::next(w.incarnation()));
        match (incarnation, shadow::pair()) {
            (Some(incarnation), Ok((shadow, theirs))) => Ok(Premade {
                slot,
                incarnation,
                shadow,
                theirs,
            }),
            _ => {
                self.slots.unreserve(slot);
                Err(SessionError::Full)
            }
        }
    }
}
