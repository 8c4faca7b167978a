//! Says which socket is worked on, for the note that a crash leaves.

use super::{ConnId, Tcb};
use core::fmt;

/// Called with a socket's number and record before anything is done with it.
pub type OnWork = Box<dyn Fn(ConnId, &Tcb) + Send + Sync>;

/// What to call, if anything.
#[derive(Default)]
pub(super) struct Watch(pub(super) Option<OnWork>);

impl Watch {
    #[inline]
    pub(super) fn on(&self, id: ConnId, tcb: &Tcb) {
        if let Some(call) = &self.0 {
            call(id, tcb);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "watched"
        } else {
            "not watched"
        })
    }
}
