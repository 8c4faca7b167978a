//! The send buffer's size: twice the congestion window (as Linux's `tcp_sndbuf_expand`), one for
//! what is in flight and one for what is written meanwhile. In slow start twice that, because the
//! window doubles before a larger ring takes effect.

use crate::engine::conn::Conn;

impl Conn {
    /// The send buffer that the congestion window asks for; what there is, while the application
    /// does not fill it.
    pub(super) fn wanted_snd(&self) -> u32 {
        let tcb = &self.tcb;
        let buffer = tcb.opts.snd_buf;
        let used = tcb.written - tcb.acked_upto();
        if 2 * used < u64::from(buffer) || !tcb.state().can_transmit() {
            return buffer;
        }
        let factor = if tcb.cc.cwnd < tcb.cc.ssthresh { 4 } else { 2 };
        buffer.max(tcb.cc.cwnd.saturating_mul(factor))
    }
}
