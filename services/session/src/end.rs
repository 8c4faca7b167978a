//! The end of a session, and of what is stored for it.

use crate::session::Session;
use crate::sessions::Sessions;
use crate::state::phase;
use crate::store::FdStore;
use nix::sys::socket::{Shutdown, shutdown};
use std::os::fd::{AsFd, AsRawFd};

impl Sessions {
    /// The request socket is gone or to be closed.
    pub(crate) fn hang_up_session(&mut self, index: usize, store: &mut dyn FdStore) {
        let Some(session) = self.session_at_mut(index) else {
            return;
        };
        let region = session.region;
        if let Some(request) = session.request.take() {
            self.watch.remove(request.as_fd());
            // At once, whoever else still holds a copy.
            let _ = shutdown(request.as_raw_fd(), Shutdown::Both);
            store.forget(Session::request_key(region));
        }
        self.maybe_end(index, store);
    }

    /// Ends a session that neither the application nor a socket needs any more.
    pub(crate) fn maybe_end(&mut self, index: usize, store: &mut dyn FdStore) {
        let Some(session) = self.session_at(index) else {
            return;
        };
        if self.is_restoring || session.request.is_some() || session.slots.used() != 0 {
            return;
        }
        let (region, mut record) = (session.region, session.record);
        let attached = session.attached.is_some();
        let stock = session.stock.pairs.iter();
        let stock: Vec<_> = stock
            .map(|p| Session::shadow_key(region, p.slot, p.incarnation))
            .collect();
        self.forgets.extend(stock);
        self.forget_now(store);
        if attached {
            if self.params.share {
                store.unshare_region(region);
            }
            store.forget(Session::memory_key(region));
        }
        record.phase = phase::FREE;
        self.state.commit(index, &record);
        if let Some(place) = self.all.get_mut(index) {
            *place = None;
        }
        self.active.retain(|&i| i != index);
        self.free.push_back(index);
        self.tally.ended += 1;
    }

    /// Forgets the shadows that nobody needs. It is not urgent: what a successor is given without
    /// a record, it forgets.
    pub(crate) fn forget_now(&mut self, store: &mut dyn FdStore) {
        for key in self.forgets.drain(..) {
            store.forget(key);
        }
    }
}
