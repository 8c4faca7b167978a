//! The words of an application: positions and flags that it writes in shared memory.
//!
//! They are levels, not events: a restarted engine is simply shown them again. They are hostile:
//! each must move forward and stay within its buffer, or nothing of the set is taken.

use super::conn::{Conn, Ctx};
use super::error::PeerFault;
use super::events::AppWords;
use super::seq::of_stream;
use super::state::State;
use super::tcb::{Accept, Tcb, flag};
use super::{ConnId, Engine};
use abi::Nanos;

fn check(tcb: &Tcb, words: &AppWords) -> Result<(), PeerFault> {
    if words.written < tcb.written {
        return Err(PeerFault::WrittenBack {
            from: tcb.written,
            to: words.written,
        });
    }
    let limit = tcb.write_limit();
    if words.written > limit {
        return Err(PeerFault::WrittenBeyond {
            to: words.written,
            limit,
        });
    }
    if words.written > tcb.written && tcb.has(flag::FIN_QUEUED) {
        return Err(PeerFault::WrittenAfterShutdown);
    }
    if words.consumed < tcb.consumed {
        return Err(PeerFault::ConsumedBack {
            from: tcb.consumed,
            to: words.consumed,
        });
    }
    let limit = tcb.received_upto();
    if words.consumed > limit {
        return Err(PeerFault::ConsumedBeyond {
            to: words.consumed,
            limit,
        });
    }
    Ok(())
}

/// Whether the words of a connection that is under way say what its record does not. After a
/// restart everybody's are looked at, and few have news.
fn is_news(tcb: &Tcb, words: &AppWords) -> bool {
    !tcb.state().is_synchronized()
        || words.written != tcb.written
        || words.consumed != tcb.consumed
        || words.urgent != 0
        || (words.accepted && tcb.accept() == Accept::HandedOver)
        || (words.shut_rd && !tcb.has(flag::RD_SHUT))
        || (words.shut_wr && !tcb.has(flag::FIN_QUEUED))
}

impl Conn {
    fn take_words(&mut self, words: &AppWords, ctx: &mut Ctx<'_>) {
        let tcb = &mut self.tcb;
        if words.accepted && tcb.accept() == Accept::HandedOver {
            tcb.accept = Accept::Taken as u8;
        }
        if tcb.state() == State::Closed || tcb.state() == State::Listen {
            // What is written to a broken connection goes nowhere; reading goes on.
            tcb.consumed = words.consumed;
            return;
        }
        if words.written > tcb.written || words.consumed > tcb.consumed {
            self.rt.memory.touched_at = ctx.now;
        }
        if words.written > tcb.written {
            if tcb.snd_una == tcb.data_end() {
                tcb.progress_at = ctx.now;
            }
            tcb.written = words.written;
        }
        // RFC 6093 5: a later mark replaces an earlier one.
        let urgent = of_stream(words.urgent.min(words.written));
        if words.urgent != 0 {
            self.mark_urgent(urgent);
        }
        let tcb = &mut self.tcb;
        if words.consumed > tcb.consumed {
            tcb.consumed = words.consumed;
            self.time_reading(ctx.now);
            if self.window_update_due() {
                self.rt.ack_now = true;
            }
        }
        if words.shut_rd {
            self.tcb.flags |= flag::RD_SHUT;
        }
        if words.shut_wr {
            self.queue_fin();
        }
        self.release_syn(ctx);
    }

    /// Whether the application has made enough room that the peer should hear of it now and not
    /// with the next acknowledgement (RFC 9293 3.8.6.2.2): the window was half used up and at
    /// least doubles.
    pub(crate) fn window_update_due(&self) -> bool {
        let tcb = &self.tcb;
        if !tcb.state().can_receive() {
            return false;
        }
        let buffer = u64::from(tcb.opts.rcv_buf);
        let offered = tcb.rcv_adv.saturating_sub(tcb.rcv_nxt);
        // Without scaling a large buffer cannot be told: saying the same again would be taken for
        // a duplicate acknowledgement.
        let most = u64::from(u16::MAX) << tcb.negotiated.rcv_scale;
        let possible = self.rcv_edge().saturating_sub(tcb.rcv_nxt).min(most);
        let worth = u64::from(tcb.rcv_mss).min(buffer / 2).max(1);
        2 * offered <= buffer && possible >= 2 * offered && possible >= offered + worth
    }
}

impl Engine {
    /// Takes an application's words.
    ///
    /// # Errors
    /// A value that cannot be: nothing was taken.
    pub fn on_app(&mut self, now: Nanos, id: ConnId, words: &AppWords) -> Result<(), PeerFault> {
        let Some(tcb) = self.record(id) else {
            return Ok(());
        };
        if let Err(fault) = check(tcb, words) {
            self.stats.peer_faults += 1;
            return Err(fault);
        }
        if !is_news(tcb, words) {
            return Ok(());
        }
        self.step(id, now, |conn, ctx| conn.take_words(words, ctx));
        Ok(())
    }
}
