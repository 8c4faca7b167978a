//! Rate limits of ICMP errors (RFC 1812 4.3.2.8): one for all, one for each destination, with
//! Linux's figures.
//!
//! Both are the generic cell rate algorithm: a bucket is the time at which it would be empty of
//! debt, so that there is nothing to refill.

use crate::engine::hash::Keyed;
use abi::Nanos;
use core::net::Ipv4Addr;

const MILLISECOND: Nanos = 1_000_000;
/// For all: 1,000 a second, 50 at once (`icmp_msgs_per_sec`, `icmp_msgs_burst`).
const GLOBAL: (Nanos, u64) = (MILLISECOND, 50);
/// For one destination: one a second, 6 at once (`icmp_ratelimit`, `XRLIM_BURST_FACTOR`).
const HOST: (Nanos, u64) = (1000 * MILLISECOND, 6);
const HOSTS: usize = 256;

/// Who refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Global,
    Host,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    paid_until: Nanos,
}

impl Bucket {
    fn has(&self, now: Nanos, (interval, burst): (Nanos, u64)) -> bool {
        self.paid_until.max(now) + interval <= now + burst * interval
    }

    fn take(&mut self, now: Nanos, (interval, _): (Nanos, u64)) {
        self.paid_until = self.paid_until.max(now) + interval;
    }
}

/// The limits.
#[derive(Debug)]
pub(crate) struct Limiter {
    keyed: Keyed,
    global: Bucket,
    /// Destinations that share a place share the limit.
    hosts: Vec<Bucket>,
}

impl Limiter {
    pub(crate) fn new(keyed: Keyed) -> Self {
        Self {
            keyed,
            global: Bucket::default(),
            hosts: vec![Bucket::default(); HOSTS],
        }
    }

    /// Whether an error may go to `dst` now; if so, it is charged.
    pub(crate) fn allow(&mut self, dst: Ipv4Addr, now: Nanos) -> Result<(), Refused> {
        let place = self.keyed.bucket(&dst, HOSTS);
        let host = self.hosts.get_mut(place).ok_or(Refused::Host)?;
        if !host.has(now, HOST) {
            return Err(Refused::Host);
        }
        if !self.global.has(now, GLOBAL) {
            return Err(Refused::Global);
        }
        host.take(now, HOST);
        self.global.take(now, GLOBAL);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc1812_4_3_2_8_one_destination_gets_a_burst_then_one_a_second() {
        let mut l = Limiter::new(Keyed::new([1; 16]));
        let dst = Ipv4Addr::new(10, 0, 0, 1);
        let now = 1_000 * HOST.0;
        assert_eq!((0..10).filter(|_| l.allow(dst, now).is_ok()).count(), 6);
        assert_eq!(l.allow(dst, now), Err(Refused::Host));
        assert_eq!(
            (0..10)
                .filter(|_| l.allow(dst, now + HOST.0).is_ok())
                .count(),
            1
        );
        assert_eq!(
            (0..10)
                .filter(|_| l.allow(dst, now + 60 * HOST.0).is_ok())
                .count(),
            6
        );
    }

    #[test]
    fn many_destinations_share_the_limit_for_all() {
        let mut l = Limiter::new(Keyed::new([1; 16]));
        let now = HOST.0;
        let sent = (0..1000u32)
            .filter(|&i| l.allow(Ipv4Addr::from(i), now).is_ok())
            .count();
        assert_eq!(sent, 50);
        let later = (0..1000u32)
            .filter(|&i| {
                l.allow(Ipv4Addr::from(i << 12), now + 20 * MILLISECOND)
                    .is_ok()
            })
            .count();
        assert_eq!(later, 20);
    }
}
