//! Adaptive polling: what to do when a turn found nothing.
//!
//! Sleeping costs a wake-up when the next packet comes; spinning costs the core somebody else
//! may need. With a core of its own and packets arriving faster than a wake-up takes, a service
//! spins for as long as the next one may be expected; otherwise it sleeps. Where several
//! services share a core, spinning only keeps the neighbour from producing: after a large batch,
//! as bulk transfers make, it gives the core away once, which lets the neighbour add to the next
//! one, and then sleeps; after a small one it sleeps at once, because somebody waits for the
//! answer.

use abi::Nanos;

/// Longest time to spin: about what waking an idle core costs.
const MAX_SPIN: Nanos = 20_000;

/// Packets in a turn from which on the core is given away before sleeping.
const BULK: usize = 8;

/// What the loop does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Look at the inputs again.
    Again,
    /// Let others run, then look again.
    Yield,
    /// Arm, recheck and wait.
    Sleep,
}

/// Decides by arrival rate and number of cores.
#[derive(Debug)]
pub struct Adaptive {
    may_spin: bool,
    /// Smoothed time between turns that found work.
    gap: Nanos,
    last_work: Nanos,
    idle_since: Option<Nanos>,
    may_yield: bool,
}

impl Adaptive {
    /// For a process that may run on `own` of the machine's `all` cores.
    #[must_use]
    pub fn new(own: usize, all: usize) -> Self {
        Self {
            may_spin: own > 1 && all > 2,
            gap: MAX_SPIN * 8,
            last_work: 0,
            idle_since: None,
            may_yield: false,
        }
    }

    /// With the numbers of this machine and this process's affinity.
    #[must_use]
    pub fn detect() -> Self {
        let own = std::thread::available_parallelism().map_or(1, usize::from);
        let all = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN)
            .ok()
            .flatten()
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(own);
        Self::new(own, all)
    }

    /// A turn ended that handled `handled` packets or events.
    pub fn after_turn(&mut self, now: Nanos, handled: usize) -> Next {
        if handled > 0 {
            let gap = now.saturating_sub(self.last_work).min(MAX_SPIN * 8);
            self.gap = (self.gap * 7 + gap) / 8;
            self.last_work = now;
            self.idle_since = None;
            self.may_yield = handled >= BULK;
            return Next::Again;
        }
        if self.may_spin {
            let since = *self.idle_since.get_or_insert(now);
            let patience = if self.gap < MAX_SPIN {
                (self.gap * 2).min(MAX_SPIN)
            } else {
                0
            };
            if now.saturating_sub(since) < patience {
                return Next::Again;
            }
            return Next::Sleep;
        }
        // Once only, and not who was just woken for nothing.
        if std::mem::take(&mut self.may_yield) {
            return Next::Yield;
        }
        Next::Sleep
    }

    /// The process slept: the time it did is not an interval between arrivals at full load.
    pub fn woken(&mut self) {
        self.idle_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_never_spin_and_yield_once_after_a_large_batch() {
        for (own, all) in [(1, 1), (1, 2), (2, 2), (1, 64)] {
            for (batch, yields) in [(1, 0), (BULK, 1), (64, 1)] {
                let mut a = Adaptive::new(own, all);
                for t in 1..100 {
                    assert_eq!(a.after_turn(t * 1000, batch), Next::Again);
                }
                let mut yielded = 0;
                for now in [100_000, 100_500, 101_000] {
                    match a.after_turn(now, 0) {
                        Next::Again => panic!("spins on {own} of {all} cores"),
                        Next::Yield => yielded += 1,
                        Next::Sleep => break,
                    }
                }
                assert_eq!(yielded, yields);
            }
        }
    }

    #[test]
    fn many_cores_spin_only_while_packets_come_fast() {
        let mut a = Adaptive::new(8, 8);
        for t in 1..100 {
            a.after_turn(t * 2000, 1);
        }
        assert_eq!(a.after_turn(199_000, 0), Next::Again);
        assert_eq!(a.after_turn(199_000 + MAX_SPIN, 0), Next::Sleep);
        let mut slow = Adaptive::new(8, 8);
        for t in 1..100 {
            slow.after_turn(t * 1_000_000, 1);
            assert_eq!(slow.after_turn(t * 1_000_000 + 100, 0), Next::Sleep);
        }
    }
}
