//! The one clock: `CLOCK_MONOTONIC` in nanoseconds.
//!
//! It is the kernel's, so a deadline that a predecessor committed is still right. Only the loop
//! and traces read it; engines get the time handed in.

use abi::Nanos;
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
pub const SECOND: Nanos = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub const MILLISECOND: Nanos = 1_000_000;
/// Nanoseconds in a microsecond.
pub const MICROSECOND: Nanos = 1_000;

/// The time now.
#[must_use]
pub fn now() -> Nanos {
    // The clock always exists; 0 would only make everything late.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| {
        let seconds = u64::try_from(t.tv_sec()).unwrap_or(0);
        let nanos = u64::try_from(t.tv_nsec()).unwrap_or(0);
        seconds * SECOND + nanos
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward() {
        let a = now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(now() >= a + 2 * MILLISECOND);
    }
}
