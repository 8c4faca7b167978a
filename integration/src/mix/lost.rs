//! Which connections are lost while the mix runs. What moves all the time shows it by itself; what
//! waits is called, has its connections carry a little and waits again.

use super::{Mix, Shared};
use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long several may stand still before they count as lost: a transport looks at all sockets
/// every ten seconds, whatever they say of themselves.
const SEVERAL: Duration = Duration::from_secs(15);

impl Shared {
    /// Waits until everything is to end (false), or a sign of life is asked for (true), which
    /// [`Shared::answer`] gives.
    pub(super) fn wait_call(&self) -> bool {
        while !self.is_stopping() {
            let answered = self.signs.answered.load(Ordering::Relaxed);
            if self.calls.load(Ordering::Relaxed) > answered {
                return true;
            }
            sleep(Duration::from_millis(5));
        }
        false
    }

    /// The connections of this part live, or are noted as lost.
    pub(super) fn answer(&self) {
        let calls = self.calls.load(Ordering::Relaxed);
        self.signs.answered.store(calls, Ordering::Relaxed);
    }

    /// A connection that has no part of its own is lost.
    pub(super) fn lose(&self, connection: String) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.insert(connection);
    }
}

impl Mix {
    /// The connections that have failed, do not go on within `patience`, or are ready wrongly, by
    /// name; each has carried something since the call. (A blocked connect, and what is looked at
    /// by its readiness only, shows at the end.)
    #[must_use]
    pub fn lost(&self, patience: Duration) -> BTreeSet<String> {
        let call = self.shared.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let moves = |part: &super::Running| part.signs.moves.load(Ordering::Relaxed);
        let from: Vec<_> = self.parts.iter().map(moves).collect();
        let begin = Instant::now();
        loop {
            let mut lost = self
                .shared
                .lost
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            for (part, &before) in self.parts.iter().zip(&from) {
                let answered = part.signs.answered.load(Ordering::Relaxed);
                let stands = before > 0 && moves(part) < before + 2;
                if part.thread.is_finished() || answered < call || stands {
                    lost.insert(part.connection().to_owned());
                }
            }
            lost.extend(self.shared.levels.wrong());
            let most = if lost.len() > 1 { SEVERAL } else { patience };
            if lost.is_empty() || begin.elapsed() > most {
                return lost;
            }
            sleep(Duration::from_millis(2));
        }
    }
}
