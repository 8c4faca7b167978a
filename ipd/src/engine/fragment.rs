//! Fragmentation on output (RFC 791 3.2): a datagram that may be cut becomes copies that fit.

use super::counters::Counter;
use super::output::{Outgoing, header_for, push_header};
use super::route::Route;
use super::{Engine, Env, checksum};
use abi::skbuff::HEADROOM;
use shm::SkBuff;
use wire::ipv4::HEADER_LEN;

impl Engine {
    /// Sends `skb` (data at its transport header) in pieces: all of them, or none.
    pub(super) fn fragment(
        &mut self,
        env: &mut Env<'_>,
        what: &Outgoing,
        route: &Route,
        mut skb: SkBuff,
    ) {
        // The device can only complete checksums of whole datagrams.
        let whole = checksum::complete(env.arena, &mut skb).is_ok();
        let mut fragments = std::mem::take(&mut self.fragments);
        if whole && self.cut(env, what, route, &skb, &mut fragments).is_some() {
            self.counters.bump(Counter::IpFragOks);
            self.counters
                .add(Counter::IpFragCreates, fragments.len() as u64);
            self.counters.add(Counter::IpCopiedBytes, skb.len() as u64);
            drop(skb);
            for fragment in fragments.drain(..) {
                self.link_output(env, route, what.dst, fragment);
            }
        } else {
            self.counters.bump(Counter::IpFragFails);
            fragments.clear();
        }
        self.fragments = fragments;
    }

    fn cut(
        &mut self,
        env: &mut Env<'_>,
        what: &Outgoing,
        route: &Route,
        skb: &SkBuff,
        fragments: &mut Vec<SkBuff>,
    ) -> Option<()> {
        // RFC 791 3.2: all but the last carry a multiple of 8 bytes.
        let layout = env.alloc.pool().layout();
        let room = layout
            .small_size
            .max(layout.large_size)
            .saturating_sub(HEADROOM) as usize;
        let most = (usize::from(route.mtu).min(room).checked_sub(HEADER_LEN)?) & !7;
        if most == 0 {
            return None;
        }
        let len = skb.len();
        let ident = self.idents.next(what.src?, what.dst, what.protocol, 1);
        for offset in (0..len).step_by(most) {
            let n = most.min(len - offset);
            let mut fragment = self.alloc(env, n)?;
            env.arena.copy_out(skb, offset, fragment.put(n)?).ok()?;
            let mut header = header_for(what, ident, u16::try_from(HEADER_LEN + n).ok()?);
            header.frag_offset = u16::try_from(offset).ok()?;
            header.more_frags = offset + n < len;
            if !push_header(&mut fragment, &header) {
                return None;
            }
            let desc = fragment.desc_mut();
            desc.stamp = skb.desc().stamp;
            fragments.push(fragment);
        }
        Some(())
    }
}
