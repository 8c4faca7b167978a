//! What a daemon implements.

use crate::{Context, Plumbing};
use abi::config::{DaemonConfig, StackConfig};
use abi::control::Query;
use abi::{Nanos, RegionId};
use nix::sys::epoll::EpollFlags;
use std::os::fd::OwnedFd;

/// A daemon; [`run`](crate::run) does the rest.
///
/// The loop calls [`poll`](Self::poll), [`commit`](Self::commit) and
/// [`release`](Self::release), in this order, every turn. Killed at any point, the successor
/// finds either the state before the batch (and the inputs come again, or are lost like
/// packets) or the state after it.
pub trait Service: Sized {
    /// Names of the service's counters, in order; [`Context::count`] takes the index.
    const COUNTERS: &'static [&'static str];

    /// Names kind and version of the records in the state memfd; 0: none. A build with another
    /// one cannot take the state over.
    const STATE_KIND: u64 = 0;

    /// Bytes of the state memfd for this configuration (0: none). The supervisor calls it when
    /// it makes the plumbing.
    #[must_use]
    fn state_size(stack: &StackConfig) -> usize {
        let _ = stack;
        0
    }

    /// Attaches and restores from the state memfd and the stored descriptors. What the
    /// predecessor owned and had not published is swept already.
    ///
    /// # Errors
    /// Whatever makes starting impossible; the supervisor is told and backs off.
    fn restore(config: &DaemonConfig, plumbing: &mut Plumbing, now: Nanos) -> anyhow::Result<Self>;

    /// Takes input (rings, device, sessions), at most `budget` packets of each kind, and expired
    /// timers; engines run here. Nothing may become visible outside. Answers how many packets
    /// and events were handled; 0 lets the loop go to sleep.
    fn poll(&mut self, cx: &mut Context<'_>, budget: usize) -> usize;

    /// Writes the changed records.
    fn commit(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// Lets out what others can see: ring pushes, published positions, tokens, wake-ups. The
    /// runtime flushes the links afterwards, one bell a batch.
    fn release(&mut self, cx: &mut Context<'_>);

    /// After arming: is there input after all? The runtime looks at the rings itself.
    #[must_use]
    fn has_input(&self, cx: &Context<'_>) -> bool {
        let _ = cx;
        false
    }

    /// Called when the loop arms (true) before it sleeps and masks (false) after it, for wake-up
    /// sources the runtime does not know (session memories, a device). A SeqCst fence follows
    /// before [`has_input`](Self::has_input) is asked.
    fn arm(&mut self, armed: bool) {
        let _ = armed;
    }

    /// Now and then: look at everything that others may have said. Something may have written over
    /// the words that tell where to look.
    fn look_again(&mut self) {}

    /// When [`poll`](Self::poll) must run again at the latest.
    fn deadline(&self) -> Option<Nanos>;

    /// A descriptor in [`Context::epoll`] had an event. Note it, and handle it in
    /// [`poll`](Self::poll).
    fn on_fd(&mut self, cx: &mut Context<'_>, token: u64, events: EpollFlags) {
        let _ = (cx, token, events);
    }

    /// A new configuration (also changed impairments).
    fn reconfigure(&mut self, config: &DaemonConfig, cx: &mut Context<'_>) {
        let _ = (config, cx);
    }

    /// A session memory to gather payload from, or (none) one that is gone. Only netdevds get
    /// these.
    fn region(&mut self, id: RegionId, memory: Option<OwnedFd>, cx: &mut Context<'_>) {
        let _ = (id, memory, cx);
    }

    /// Answers a query of the supervisor: columns and rows.
    fn query(&mut self, what: Query, cx: &mut Context<'_>) -> (Vec<String>, Vec<Vec<String>>) {
        let _ = (what, cx);
        Default::default()
    }
}
