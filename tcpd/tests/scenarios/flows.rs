//! Flows: the two ends of a connection as the peer sees them, with each side's initial sequence
//! number, and the segments between them in the language's form.

use crate::lang::{Opt, Seg, flags_text};
use abi::Endpoint;
use arrayvec::ArrayVec;
use std::collections::HashMap;
use std::fmt::Write;
use tcpd::engine::SegmentOut;
use wire::SeqNumber;
use wire::tcp::{Flags, Options, Repr, Timestamps};

/// The peer's first initial sequence number: near the wrap, so that every scenario crosses it.
pub(crate) const PEER_ISN: u32 = u32::MAX - 500;

/// Names of numbers and of cookies.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) numbers: HashMap<String, u32>,
    pub(crate) cookies: HashMap<String, Vec<u8>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
    /// The engine's initial sequence number; 0 before it is known.
    pub(crate) iss: u32,
    pub(crate) previous_iss: u32,
    /// The peer's.
    pub(crate) irs: u32,
    /// Right edge of the window that the engine last offered.
    edge: Option<u32>,
}

/// A segment that the engine let out.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) at: u64,
    pub(crate) flow: String,
    pub(crate) seg: SegmentOut,
    pub(crate) text: String,
}

impl Sent {
    pub(crate) fn flags(&self) -> Flags {
        self.seg.repr.flags
    }

    pub(crate) fn len(&self) -> u32 {
        self.seg.payload.map_or(0, |p| p.len)
    }

    /// What it takes of the sequence numbers.
    pub(crate) fn seq_len(&self) -> u32 {
        self.seg.repr.seq_len(self.len())
    }

    pub(crate) fn end(&self) -> u32 {
        self.seg.repr.seq.0.wrapping_add(self.seq_len())
    }
}

impl Flow {
    pub(crate) fn new(local: Endpoint, remote: Endpoint) -> Self {
        Self {
            local,
            remote,
            iss: 0,
            previous_iss: 0,
            irs: PEER_ISN,
            edge: None,
        }
    }

    /// Checks what holds for every segment: payload is the stream's at its place, and the edge of
    /// the window does not move back (RFC 9293 3.8.6) by more than its scale rounds.
    pub(crate) fn sound(&mut self, seg: &SegmentOut, scale: u8) -> Result<(), String> {
        let r = &seg.repr;
        let syn = r.flags.contains(Flags::SYN);
        if let Some(payload) = seg.payload {
            let first = r.seq.0.wrapping_add(u32::from(syn));
            if first.wrapping_sub(self.iss).wrapping_sub(1) != payload.position as u32 {
                return Err(format!(
                    "position {} is not what stands there",
                    payload.position
                ));
            }
        }
        if syn {
            self.edge = None;
        }
        if !r.flags.contains(Flags::ACK) || r.flags.contains(Flags::RST) || seg.id.is_none() {
            return Ok(());
        }
        let scale = if syn { 0 } else { scale };
        let edge = r.ack.0.wrapping_add(u32::from(r.window) << scale);
        let back = self
            .edge
            .map_or(0, |old| old.wrapping_sub(edge).cast_signed());
        if back >= 1 << scale {
            return Err(format!("the edge of the window moved back by {back}"));
        }
        if back <= 0 {
            self.edge = Some(edge);
        }
        Ok(())
    }

    /// The header of a segment of the peer's.
    pub(crate) fn header(&self, seg: &Seg, names: &Names) -> Result<Repr, String> {
        let numbers = &names.numbers;
        let flags = seg.flags.unwrap_or(Flags::empty());
        let small = |n: u32| u16::try_from(n).map_err(|_| format!("{n} does not fit 16 bits"));
        let mut options = Options::default();
        for opt in seg.opts.iter().flatten() {
            match opt {
                Opt::Mss(n) => options.mss = Some(small(n.value(0, numbers)?)?),
                Opt::Scale(n) => options.window_scale = Some(n.value(0, numbers)? as u8),
                Opt::SackOk => options.sack_permitted = true,
                Opt::Stamps(val, ecr) => {
                    options.timestamps = Some(Timestamps {
                        tsval: val.value(0, numbers)?,
                        tsecr: ecr.value(0, numbers)?,
                    });
                }
                Opt::Sack(blocks) => {
                    let mut sack = ArrayVec::new();
                    for (left, right) in blocks {
                        let left = SeqNumber(left.value(self.iss, numbers)?);
                        let right = SeqNumber(right.value(self.iss, numbers)?);
                        sack.try_push((left, right))
                            .map_err(|_| "more than four blocks")?;
                    }
                    options.sack = sack;
                }
                Opt::UserTimeout(n) => options.user_timeout = Some(small(n.value(0, numbers)?)?),
                Opt::FastOpen(cookie) => {
                    let bytes = cookie.as_ref().ok_or("`FO *` cannot be sent")?;
                    options.fast_open = Some(bytes.iter().copied().take(16).collect());
                }
                Opt::FastOpenNamed(name) => {
                    let bytes = names.cookies.get(name);
                    let bytes = bytes.ok_or_else(|| format!("`${name}` has not been seen yet"))?;
                    options.fast_open = Some(bytes.iter().copied().take(16).collect());
                }
                Opt::Raw(bytes) => options = Options::parse(bytes, flags.contains(Flags::SYN)),
            }
        }
        let number = |n: &Option<crate::lang::Num>, base, default| match n {
            Some(n) => n.value(base, numbers),
            None => Ok(default),
        };
        Ok(Repr {
            src_port: self.remote.port,
            dst_port: self.local.port,
            seq: SeqNumber(seg.seq.value(self.irs, numbers)?),
            ack: SeqNumber(number(&seg.ack, self.iss, 0)?),
            flags,
            window: small(number(&seg.win, 0, 65_535)?)?,
            urgent: small(number(&seg.urg, 0, 0)?)?,
            options,
        })
    }

    /// Whether a segment of the engine's is what `seg` says; else the first thing that is not.
    pub(crate) fn compare(&self, seg: &Seg, sent: &Sent, names: &mut Names) -> Result<(), String> {
        let r = &sent.seg.repr;
        let numbers = &mut names.numbers;
        let check = |holds: bool, what: &str| {
            if holds { Ok(()) } else { Err(what.to_owned()) }
        };
        check(seg.flags.is_none_or(|f| f == r.flags), "the flags")?;
        check(
            seg.seq.matches(r.seq.0, self.iss, numbers),
            "the sequence number",
        )?;
        check(seg.len.is_none_or(|len| len == sent.len()), "the length")?;
        if let Some(ack) = &seg.ack
            && r.flags.contains(Flags::ACK)
        {
            check(
                ack.matches(r.ack.0, self.irs, numbers),
                "the acknowledgement",
            )?;
        }
        if let Some(win) = &seg.win {
            check(win.matches(u32::from(r.window), 0, numbers), "the window")?;
        }
        if let Some(urg) = &seg.urg {
            check(
                urg.matches(u32::from(r.urgent), 0, numbers),
                "the urgent pointer",
            )?;
        }
        check(
            seg.gso.is_none_or(|g| g == sent.seg.gso_size),
            "the gso size",
        )?;
        check(
            seg.ecn.is_none_or(|e| e == sent.seg.tos & 3),
            "the ECN bits",
        )?;
        check(seg.tos.is_none_or(|t| t == sent.seg.tos), "the TOS")?;
        check(seg.ttl.is_none_or(|t| t == sent.seg.ttl), "the TTL")?;
        match &seg.opts {
            Some(opts) => self.compare_options(opts, seg.more, &r.options, names),
            None => Ok(()),
        }
    }

    fn compare_options(
        &self,
        opts: &[Opt],
        more: bool,
        sent: &Options,
        names: &mut Names,
    ) -> Result<(), String> {
        let mut left = sent.clone();
        for opt in opts {
            let numbers = &mut names.numbers;
            let (good, what) = match opt {
                Opt::Mss(n) => {
                    let mss = left.mss.take();
                    let good = mss.is_some_and(|mss| n.matches(u32::from(mss), 0, numbers));
                    (good, "the mss")
                }
                Opt::Scale(n) => {
                    let scale = left.window_scale.take();
                    let good = scale.is_some_and(|s| n.matches(u32::from(s), 0, numbers));
                    (good, "the window scale")
                }
                Opt::SackOk => (core::mem::take(&mut left.sack_permitted), "sackOK"),
                Opt::Stamps(val, ecr) => {
                    let stamps = left.timestamps.take();
                    let good = stamps.is_some_and(|ts| {
                        val.matches(ts.tsval, 0, numbers) && ecr.matches(ts.tsecr, 0, numbers)
                    });
                    (good, "the timestamps")
                }
                Opt::Sack(blocks) => {
                    let sack = core::mem::take(&mut left.sack);
                    let good = sack.len() == blocks.len()
                        && sack.iter().zip(blocks).all(|(have, want)| {
                            want.0.matches(have.0.0, self.irs, numbers)
                                && want.1.matches(have.1.0, self.irs, numbers)
                        });
                    (good, "the SACK blocks")
                }
                Opt::UserTimeout(n) => {
                    let uto = left.user_timeout.take();
                    let good = uto.is_some_and(|u| n.matches(u32::from(u), 0, numbers));
                    (good, "the user timeout")
                }
                Opt::FastOpen(want) => {
                    let cookie = left.fast_open.take();
                    let good = cookie.is_some_and(|have| {
                        want.as_ref().is_none_or(|want| have.as_slice() == want)
                    });
                    (good, "the fast open cookie")
                }
                Opt::FastOpenNamed(name) => {
                    let cookie = left.fast_open.take().map(|c| c.to_vec());
                    let good = cookie.is_some_and(|have| {
                        *names.cookies.entry(name.clone()).or_insert(have.clone()) == have
                    });
                    (good, "the fast open cookie")
                }
                Opt::Raw(_) => return Err("`raw` can be sent, not expected".to_owned()),
            };
            if !good {
                return Err(format!("the options, in {what}"));
            }
        }
        if more || left == Options::default() {
            Ok(())
        } else {
            Err("the options: there are others too".to_owned())
        }
    }

    /// A header in the language's form; `own`: of the engine's.
    pub(crate) fn text(&self, r: &Repr, len: u32, gso: u16, own: bool) -> String {
        let (mine, other) = if own {
            (self.iss, self.irs)
        } else {
            (self.irs, self.iss)
        };
        let from = r.seq.0.wrapping_sub(mine);
        let mut text = format!("{} {from}", flags_text(r.flags));
        if len > 0 {
            let _ = write!(text, ":{}({len})", from.wrapping_add(len));
        }
        if r.flags.contains(Flags::ACK) {
            let _ = write!(text, " ack {}", r.ack.0.wrapping_sub(other));
        }
        let _ = write!(text, " win {}", r.window);
        if gso > 0 {
            let _ = write!(text, " gso {gso}");
        }
        if r.urgent > 0 {
            let _ = write!(text, " urg {}", r.urgent);
        }
        let o = &r.options;
        let mut options = vec![];
        options.extend(o.mss.map(|n| format!("mss {n}")));
        options.extend(o.sack_permitted.then(|| "sackOK".to_owned()));
        options.extend(
            o.timestamps
                .map(|t| format!("TS val {} ecr {}", t.tsval, t.tsecr)),
        );
        options.extend(o.window_scale.map(|n| format!("wscale {n}")));
        options.extend(o.user_timeout.map(|n| format!("uto {n}")));
        options.extend(o.fast_open.as_ref().map(|c| {
            let hex: String = c.iter().map(|b| format!("{b:02x}")).collect();
            format!("FO {hex}").trim().to_owned()
        }));
        if !o.sack.is_empty() {
            let blocks: Vec<String> = o
                .sack
                .iter()
                .map(|(l, r)| format!("{}:{}", l.0.wrapping_sub(other), r.0.wrapping_sub(other)))
                .collect();
            options.push(format!("sack {}", blocks.join(" ")));
        }
        if !options.is_empty() {
            let _ = write!(text, " <{}>", options.join(","));
        }
        text
    }
}
