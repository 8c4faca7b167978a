//! Runs a scenario, line by line.

use crate::config::Setup;
use crate::flows::{Flow, Names, Sent};
use crate::lang::{Line, Script, Seg, What, When};
use crate::ops::Op;
use crate::world::{START, World};
use abi::Endpoint;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use tcpd::engine::{AppWords, ConnId, SegmentMeta};
use wire::SeqNumber;
use wire::tcp::Flags;

/// When the engine is killed beside where the scenario says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kill {
    Never,
    /// After every line.
    Always,
    /// After this line (its index).
    After(usize),
}

/// A socket by its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sock {
    pub(crate) id: ConnId,
    pub(crate) words: AppWords,
}

/// What the engine sent of a flow, to know what a restored one repeats.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Heard {
    /// Highest end of what was sent, relative.
    end: u32,
    /// Highest acknowledgement, relative.
    ack: u32,
    any: bool,
}

pub(crate) struct Run {
    pub(crate) setup: Setup,
    world: Option<World>,
    pub(crate) socks: BTreeMap<String, Sock>,
    pub(crate) flows: BTreeMap<String, Flow>,
    pub(crate) names: Names,
    /// Sent and not yet expected.
    sent: VecDeque<Sent>,
    heard: BTreeMap<String, Heard>,
    /// Repeated since the engine was killed: start and end, relative.
    repeated: Vec<(String, u32, u32)>,
    pub(crate) killing: bool,
    /// Killed at least once by the runner, so that repetitions are forgiven.
    pub(crate) killed: bool,
    /// Time of the last line.
    at: u64,
    pub(crate) trace: String,
    pub(crate) ops: Vec<Op>,
}

/// A failure: line of the file, and what.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) line: usize,
    pub(crate) why: String,
}

fn seconds(nanos: u64) -> String {
    format!("{}.{:06}", nanos / 1_000_000_000, nanos / 1_000 % 1_000_000)
}

impl Run {
    pub(crate) fn new() -> Self {
        let local = Endpoint::new([10, 0, 0, 1].into(), 5_000);
        let remote = Endpoint::new([10, 0, 0, 2].into(), 80);
        Self {
            setup: Setup::default(),
            world: None,
            socks: BTreeMap::new(),
            flows: [(String::new(), Flow::new(local, remote))].into(),
            names: Names::default(),
            sent: VecDeque::new(),
            heard: BTreeMap::new(),
            repeated: vec![],
            killing: true,
            killed: false,
            at: START,
            trace: String::new(),
            ops: vec![],
        }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.world.is_some()
    }

    pub(crate) fn world(&mut self) -> &mut World {
        let setup = &self.setup;
        self.world.get_or_insert_with(|| World::new(setup))
    }

    pub(crate) fn world_ref(&self) -> Option<&World> {
        self.world.as_ref()
    }

    /// The whole scenario.
    pub(crate) fn script(&mut self, script: &Script, kill: Kill) -> Result<(), Failure> {
        let mut last = 0;
        for (index, line) in script.lines.iter().enumerate() {
            last = line.number;
            let fail = |why| Failure {
                line: line.number,
                why,
            };
            let _ = writeln!(self.trace, "{:>14}  | {}:{}", "", line.number, line.text);
            self.line(line).map_err(fail)?;
            let due = kill == Kill::Always || kill == Kill::After(index);
            // In mid-batch only the scenario itself knows what is lost.
            let holds = matches!(line.what, What::In { hold: true, .. });
            if due && !holds && self.killing && self.has_begun() {
                self.killed = true;
                self.restore().map_err(fail)?;
            }
        }
        self.nothing_unexpected().map_err(|why| Failure {
            line: last,
            why: format!("after the last line: {why}"),
        })
    }

    fn line(&mut self, line: &Line) -> Result<(), String> {
        let (from, to) = match line.when {
            When::Now => (self.at, self.at),
            When::After(from, to) => (self.at + from, self.at + to),
            When::At(from, to) => (START + from, START + to),
        };
        if to < self.at {
            return Err(format!(
                "that was before the last line ({})",
                seconds(self.at - START)
            ));
        }
        match &line.what {
            What::Out { flow, seg } => return self.expect(flow, seg, from, to),
            What::OutRest => {
                self.advance(to)?;
                while let Some(sent) = self.sent.pop_front() {
                    self.hear(&sent);
                }
            }
            What::In { flow, hold, seg } => {
                self.quiet_until(to)?;
                self.incoming(flow, seg)?;
                if !hold {
                    self.end_batch()?;
                }
            }
            What::Call {
                socket,
                call,
                error,
                strict,
            } => {
                if *strict && self.killed {
                    self.at = to;
                    return self.advance(to);
                }
                if call.is_setup() {
                    return self.prepare(call);
                }
                if !call.only_looks() {
                    self.quiet_until(to)?;
                }
                self.advance(to)?;
                self.call(socket, call, error.as_deref())?;
            }
        }
        self.at = to.max(self.at);
        Ok(())
    }

    /// Time passes: everything that is due happens.
    pub(crate) fn advance(&mut self, to: u64) -> Result<(), String> {
        let now = self.world().now;
        if to <= now {
            return Ok(());
        }
        self.record_pass(to - now);
        while let Some(at) = self.world().next_event(to) {
            self.world().now = at;
            self.end_batch()?;
        }
        self.world().now = to;
        Ok(())
    }

    pub(crate) fn pass(&mut self, nanos: u64) -> Result<(), String> {
        let to = self.world().now + nanos;
        self.quiet_until(to)?;
        self.at = to;
        Ok(())
    }

    fn quiet_until(&mut self, to: u64) -> Result<(), String> {
        self.advance(to)?;
        self.nothing_unexpected()
    }

    /// Everything that was sent was expected, or is what a restored engine may repeat.
    pub(crate) fn nothing_unexpected(&mut self) -> Result<(), String> {
        while let Some(sent) = self.sent.pop_front() {
            if !self.forgiven(&sent) {
                return Err(format!(
                    "came, and nothing expected it:\n  {} {}",
                    seconds(sent.at - START),
                    sent.text
                ));
            }
            self.hear(&sent);
        }
        Ok(())
    }

    /// Whether a restored engine may send this without anybody noticing: an acknowledgement
    /// again or earlier, a probe, or a retransmission.
    fn forgiven(&self, sent: &Sent) -> bool {
        let flags = sent.flags();
        if !self.killed || flags.intersects(Flags::SYN | Flags::RST) {
            return false;
        }
        let is_ack = sent.seq_len() == 0;
        let flow = self.flows.get(&sent.flow);
        let heard = self.heard.get(&sent.flow).copied().unwrap_or_default();
        let end = flow.map_or(0, |f| sent.end().wrapping_sub(f.iss));
        is_ack || (heard.any && end.wrapping_sub(heard.end).cast_signed() <= 0)
    }

    fn hear(&mut self, sent: &Sent) {
        let Some(flow) = self.flows.get(&sent.flow) else {
            return;
        };
        let heard = self.heard.entry(sent.flow.clone()).or_default();
        let start = sent.seg.repr.seq.0.wrapping_sub(flow.iss);
        let end = sent.end().wrapping_sub(flow.iss);
        if heard.any && end.wrapping_sub(heard.end).cast_signed() <= 0 && sent.seq_len() > 0 {
            self.repeated.push((sent.flow.clone(), start, end));
        }
        if !heard.any || end.wrapping_sub(heard.end).cast_signed() > 0 {
            heard.end = end;
        }
        if sent.flags().contains(Flags::ACK) {
            let ack = sent.seg.repr.ack.0.wrapping_sub(flow.irs);
            if !heard.any || ack.wrapping_sub(heard.ack).cast_signed() > 0 {
                heard.ack = ack;
            }
        }
        heard.any = true;
    }

    /// What is expected was sent before, by an engine that was made again since.
    fn anticipated(&self, name: &str, seg: &Seg) -> bool {
        let (Some(flow), Some(heard)) = (self.flows.get(name), self.heard.get(name)) else {
            return false;
        };
        let control = Flags::SYN | Flags::RST;
        if !self.killed || !heard.any || seg.flags.is_some_and(|f| f.intersects(control)) {
            return false;
        }
        let len =
            seg.len.unwrap_or(0) + u32::from(seg.flags.is_some_and(|f| f.contains(Flags::FIN)));
        if len == 0 {
            let Some(ack) = &seg.ack else { return false };
            let Ok(ack) = ack.value(0, &self.names.numbers) else {
                return true;
            };
            return ack.wrapping_sub(heard.ack).cast_signed() <= 0;
        }
        let Ok(start) = seg.seq.value(flow.iss, &self.names.numbers) else {
            return false;
        };
        let (start, end) = (
            start.wrapping_sub(flow.iss),
            start.wrapping_sub(flow.iss) + len,
        );
        self.repeated
            .iter()
            .any(|(f, s, e)| f == name && *s <= start && end <= *e)
    }

    fn expect(&mut self, name: &str, seg: &Seg, from: u64, to: u64) -> Result<(), String> {
        let flow = self
            .flows
            .get(name)
            .ok_or_else(|| format!("no flow `{name}`"))?
            .clone();
        let mut reason = String::new();
        loop {
            let Some(sent) = self.sent.pop_front() else {
                // Time passes only until something comes, so that a range ends there.
                if self.world().now >= to {
                    break;
                }
                let next = self.world().next_event(to).unwrap_or(to);
                let waited = next - self.world().now;
                self.record_pass(waited);
                self.world().now = next;
                self.end_batch()?;
                continue;
            };
            let verdict = if sent.flow == name {
                flow.compare(seg, &sent, &mut self.names)
            } else {
                Err("the flow".to_owned())
            };
            let late = sent.at < from || sent.at > to;
            let harmless = self.forgiven(&sent);
            match verdict {
                Ok(()) if !late || harmless => {
                    self.hear(&sent);
                    self.at = sent.at.max(if self.killed { from } else { 0 }).max(self.at);
                    return Ok(());
                }
                Ok(()) => reason = "the time".to_owned(),
                Err(why) => reason = why,
            }
            if !harmless {
                return Err(format!(
                    "expected another segment: {reason} differs\n  expected at {}{}\n  came     {} {}",
                    seconds(from - START),
                    if from == to {
                        String::new()
                    } else {
                        format!("~{}", seconds(to - START))
                    },
                    seconds(sent.at - START),
                    sent.text
                ));
            }
            self.hear(&sent);
        }
        if self.anticipated(name, seg) {
            self.at = self.at.max(from);
            return Ok(());
        }
        let nearly = if reason.is_empty() {
            String::new()
        } else {
            format!(" ({reason} of others differed)")
        };
        Err(format!(
            "expected, and nothing came by {}{nearly}",
            seconds(to - START)
        ))
    }

    pub(crate) fn incoming(&mut self, name: &str, seg: &Seg) -> Result<(), String> {
        let flow = self
            .flows
            .get(name)
            .ok_or_else(|| format!("no flow `{name}`"))?;
        let repr = flow.header(seg, &self.names)?;
        let len = seg.len.unwrap_or(0);
        let gso_size = seg.gso.unwrap_or(0);
        let (src, dst) = (flow.remote, flow.local);
        let text = flow.text(&repr, len, gso_size, false);
        let mtu = self.setup.mtu;
        let meta = SegmentMeta {
            src,
            dst,
            repr: &repr,
            payload_len: len,
            gso_size,
            ce: seg.ecn == Some(3),
            mtu,
        };
        let at = self.world().now - START;
        let _ = writeln!(self.trace, "{:>14}  {name}< {text}", seconds(at));
        self.record_segment(name, seg, &repr);
        self.world().feed(&meta);
        Ok(())
    }

    pub(crate) fn end_batch(&mut self) -> Result<(), String> {
        self.record(Op::End { budget: 255 });
        let out = self.world().end_batch()?;
        self.collect(out)
    }

    /// Segments let out go to their flows.
    pub(crate) fn collect(&mut self, out: Vec<tcpd::engine::SegmentOut>) -> Result<(), String> {
        let mut wrong = Ok(());
        for seg in out {
            let at = self.world().now;
            let record = seg.id.and_then(|id| self.world().engine.record(id));
            let scale = record.map_or(0, |tcb| tcb.negotiated.rcv_scale);
            let found = self
                .flows
                .iter_mut()
                .find(|(_, f)| f.local == seg.src && f.remote == seg.dst);
            let (flow, text) = match found {
                Some((name, flow)) => {
                    if seg.repr.flags.contains(Flags::SYN) && flow.iss != seg.repr.seq.0 {
                        flow.previous_iss = flow.iss;
                        flow.iss = seg.repr.seq.0;
                    }
                    wrong = wrong.and(flow.sound(&seg, scale));
                    let len = seg.payload.map_or(0, |p| p.len);
                    let text = flow.text(&seg.repr, len, seg.gso_size, true);
                    (name.clone(), format!("{name}> {text}"))
                }
                None => ("?".to_owned(), format!("?> {:?}", seg)),
            };
            if let Some(ts) = seg.repr.options.timestamps {
                self.names.numbers.insert("last".to_owned(), ts.tsval);
            }
            let _ = writeln!(self.trace, "{:>14}  {text}", seconds(at - START));
            self.sent.push_back(Sent {
                at,
                flow,
                seg,
                text,
            });
        }
        wrong
    }

    /// The last sent and not yet expected, for the lines that stand for several.
    pub(crate) fn take_sent(&mut self) -> Option<Sent> {
        let sent = self.sent.pop_front()?;
        self.hear(&sent);
        Some(sent)
    }

    /// The engine dies after its last commit.
    pub(crate) fn restore(&mut self) -> Result<(), String> {
        let at = self.world().now - START;
        let _ = writeln!(self.trace, "{:>14}  -- killed and restored", seconds(at));
        self.world().restore()?;
        self.end_batch()
    }

    /// A sequence number on the wire, relative to the engine's first one.
    pub(crate) fn own(&self, name: &str, n: &crate::lang::Num) -> Result<SeqNumber, String> {
        let flow = self
            .flows
            .get(name)
            .ok_or_else(|| format!("no flow `{name}`"))?;
        Ok(SeqNumber(n.value(flow.iss, &self.names.numbers)?))
    }
}
