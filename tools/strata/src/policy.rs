//! When a dead daemon is started again: a pure function of the deaths so far.
//!
//! A death after a good life is a single fault, and nothing is won by waiting: the restart is
//! what makes the crash look like lost packets. Deaths in quick succession are a loop: the
//! first few are still restarted at once (a packet or record that kills its daemon is quarantined
//! after three, see [`crate::quarantine`]), then ever more slowly, and at last not at all, so that a broken machine shows a clear
//! state instead of a busy one.

use core::time::Duration;
use serde::{Deserialize, Serialize};

/// The numbers behind the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// A daemon whose progress word stands still for so long is killed.
    pub hang: Duration,
    /// A daemon that is not ready so long after its start is killed.
    pub start: Duration,
    /// First delay once deaths repeat; each further death doubles it.
    pub backoff: Duration,
    /// Longest delay.
    pub backoff_max: Duration,
    /// A life, from ready to death, of this length clears the count of deaths.
    pub stable: Duration,
    /// Deaths in a row that are restarted at once.
    pub at_once: u32,
    /// Deaths in a row after which nothing more is tried; 0: never give up.
    pub give_up: u32,
    /// Crashes within a minute after which what was at work in all of them is quarantined; 0:
    /// never.
    pub quarantine: u32,
    /// Packet buffers that nobody has had for so long (something wrote over the words that say
    /// whose they are) are taken back. Longer than anybody keeps a packet: fragments wait 30 s.
    pub lost_buffers: Duration,
    /// Whether each daemon has a process in reserve.
    pub spare: bool,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            hang: Duration::from_millis(500),
            start: Duration::from_secs(10),
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            stable: Duration::from_secs(1),
            at_once: 5,
            give_up: 20,
            quarantine: 3,
            lost_buffers: Duration::from_secs(40),
            spare: true,
        }
    }
}

/// What to do about a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Start it again after this delay.
    Restart(Duration),
    /// Leave it dead and say so.
    GiveUp,
}

impl RestartPolicy {
    /// Decides after a death. `streak` is the count of deaths in a row before this one, `lived`
    /// the time from ready to death (`None`: it never became ready). Returns the new count.
    #[must_use]
    pub fn after_death(&self, streak: u32, lived: Option<Duration>) -> (u32, Decision) {
        let streak = match lived {
            Some(lived) if lived >= self.stable => 1,
            _ => streak.saturating_add(1),
        };
        if self.give_up > 0 && streak > self.give_up {
            return (streak, Decision::GiveUp);
        }
        let Some(doublings) = streak.checked_sub(self.at_once.saturating_add(1)) else {
            return (streak, Decision::Restart(Duration::ZERO));
        };
        let delay = 2u32
            .checked_pow(doublings)
            .and_then(|factor| self.backoff.checked_mul(factor))
            .map_or(self.backoff_max, |delay| delay.min(self.backoff_max));
        (streak, Decision::Restart(delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Each row: deaths in a row before, the life in ms (none: never ready), then what follows.
    #[test]
    fn deaths_are_answered_as_the_table_says() {
        let policy = RestartPolicy {
            backoff: MS(100),
            backoff_max: MS(1000),
            stable: MS(1000),
            at_once: 2,
            give_up: 8,
            ..RestartPolicy::default()
        };
        let restart = |ms| Decision::Restart(MS(ms));
        #[rustfmt::skip]
        let table = [
            // before, lived,        after, decision
            (0,  None,               1, restart(0)),      // the first death: at once
            (1,  Some(MS(10)),       2, restart(0)),      // the second: still at once
            (2,  Some(MS(10)),       3, restart(100)),    // then the back-off
            (3,  None,               4, restart(200)),
            (4,  None,               5, restart(400)),
            (5,  None,               6, restart(800)),
            (6,  None,               7, restart(1000)),   // capped
            (7,  None,               8, restart(1000)),
            (8,  None,               9, Decision::GiveUp),
            (8,  Some(MS(1000)),     1, restart(0)),      // a good life clears the count
            (99, Some(MS(999)),    100, Decision::GiveUp),
            (u32::MAX, None, u32::MAX, Decision::GiveUp),
        ];
        for (before, lived, after, decision) in table {
            assert_eq!(
                policy.after_death(before, lived),
                (after, decision),
                "{before} deaths, lived {lived:?}"
            );
        }
    }

    #[test]
    fn zero_never_gives_up_and_never_overflows() {
        let policy = RestartPolicy {
            give_up: 0,
            ..RestartPolicy::default()
        };
        for streak in [0, 5, 30, 31, 32, 33, 1000, u32::MAX - 1, u32::MAX] {
            let (_, decision) = policy.after_death(streak, None);
            let Decision::Restart(delay) = decision else {
                panic!("gave up at {streak}");
            };
            assert!(delay <= policy.backoff_max);
        }
    }
}
