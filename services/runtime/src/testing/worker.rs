//! Stepping a service by hand.

use crate::run::{hand_over_regions, turn};
use crate::{Context, EpollFlags, Plumbing, Service};
use abi::Nanos;
use abi::config::DaemonConfig;
use abi::control::Query;

/// A service on its plumbing, stepped by hand.
#[derive(Debug)]
pub struct Worker<S> {
    /// The service.
    pub service: S,
    /// Its plumbing.
    pub plumbing: Plumbing,
}

impl<S: Service> Worker<S> {
    /// One turn of the loop at time `now`, with descriptor events looked at first; answers what
    /// it handled.
    pub fn turn(&mut self, now: Nanos) -> usize {
        let mut events: Vec<(u64, EpollFlags)> = Vec::new();
        self.plumbing
            .poller
            .wait(Some(0), |token, flags| events.push((token, flags)));
        hand_over_regions(&mut self.service, &mut self.plumbing);
        for (token, flags) in events {
            let mut cx = Context {
                now,
                plumbing: &mut self.plumbing,
            };
            self.service.on_fd(&mut cx, token, flags);
        }
        turn(&mut self.service, &mut self.plumbing, now)
    }

    /// Turns until nothing is handled and no input waits, as before the loop sleeps; answers how
    /// much was handled in all. Gives up after 10,000 turns.
    pub fn settle(&mut self, now: Nanos) -> usize {
        let mut all = 0;
        for _ in 0..10_000 {
            let handled = self.turn(now);
            all += handled;
            let cx = Context {
                now,
                plumbing: &mut self.plumbing,
            };
            if handled == 0 && !self.service.has_input(&cx) {
                return all;
            }
        }
        panic!("the service does not come to rest");
    }

    /// Answers a query: columns and rows.
    pub fn query(&mut self, what: Query, now: Nanos) -> (Vec<String>, Vec<Vec<String>>) {
        let mut cx = Context {
            now,
            plumbing: &mut self.plumbing,
        };
        self.service.query(what, &mut cx)
    }

    /// A new configuration.
    pub fn reconfigure(&mut self, config: &DaemonConfig, now: Nanos) {
        let mut cx = Context {
            now,
            plumbing: &mut self.plumbing,
        };
        self.service.reconfigure(config, &mut cx);
    }

    /// The value of a counter by its name; none when the service has no such counter.
    #[must_use]
    pub fn counter(&self, name: &str) -> Option<u64> {
        self.plumbing
            .vitals
            .counters()
            .into_iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v)
    }

    /// Dies as by SIGKILL: nothing is dropped, freed, committed or released.
    pub fn kill(self) {
        let Self { service, plumbing } = self;
        std::mem::forget(service);
        // Descriptors are closed by the kernel; memory in flight stays as it is.
        let Plumbing { links, alloc, .. } = plumbing;
        std::mem::forget((links, alloc));
    }
}
