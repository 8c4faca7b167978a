//! The peer's FIN (RFC 9293 3.10.7.4, eighth).
//!
//! It is remembered where it was seen, even ahead of data that is missing, and takes effect when
//! everything before it has arrived.

use super::Segment;
use crate::engine::actions::Notice;
use crate::engine::conn::{Conn, Ctx};
use crate::engine::state::State;
use wire::tcp::Flags;

impl Conn {
    pub(super) fn take_fin(&mut self, segment: &Segment<'_>, ctx: &mut Ctx<'_>) {
        let tcb = &mut self.tcb;
        if !tcb.state().can_receive() {
            return;
        }
        if segment.has(Flags::FIN)
            && tcb.fin_at == 0
            && (tcb.rcv_nxt..=tcb.rcv_adv).contains(&segment.data_end)
        {
            tcb.fin_at = segment.data_end;
            self.rt.ack_now = true;
        }
        let tcb = &mut self.tcb;
        if tcb.fin_at == 0 || tcb.rcv_nxt != tcb.fin_at {
            return;
        }
        tcb.rcv_nxt += 1;
        tcb.rcv_adv = tcb.rcv_adv.max(tcb.rcv_nxt);
        tcb.reassembly = Default::default();
        self.rt.ack_now = true;
        ctx.actions.notices.push(Notice::PeerFin(self.id));
        match self.tcb.state() {
            State::Established => self.set_state(State::CloseWait),
            State::FinWait1 => self.set_state(State::Closing),
            State::FinWait2 => self.enter_time_wait(ctx),
            _ => {}
        }
    }
}
