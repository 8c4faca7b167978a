//! The lines of a scenario that are calls or assertions.

use crate::fields::fields;
use crate::flows::Flow;
use crate::lang::{Call, Check, Seg, duration};
use crate::run::{Run, Sock};
use abi::Endpoint;
use abi::session::SockOpt;
use core::net::{IpAddr, Ipv4Addr};
use std::collections::BTreeMap;
use tcpd::engine::{
    Accept, AppWords, ConnId, Errno, How, IcmpError, Notice, OpenParams, Route, SocketRef, State,
};

/// What a call that can fail gave.
type Outcome = Result<(), String>;

const ERRNOS: [(&str, i32); 26] = [
    ("EPERM", 1),
    ("ENOENT", 2),
    ("EBADF", 9),
    ("EAGAIN", 11),
    ("EINVAL", 22),
    ("EPIPE", 32),
    ("EPROTO", 71),
    ("EMSGSIZE", 90),
    ("ENOPROTOOPT", 92),
    ("EPROTONOSUPPORT", 93),
    ("EOPNOTSUPP", 95),
    ("EAFNOSUPPORT", 97),
    ("EADDRINUSE", 98),
    ("EADDRNOTAVAIL", 99),
    ("ENETDOWN", 100),
    ("ENETUNREACH", 101),
    ("ECONNABORTED", 103),
    ("ECONNRESET", 104),
    ("ENOBUFS", 105),
    ("EISCONN", 106),
    ("ENOTCONN", 107),
    ("ETIMEDOUT", 110),
    ("ECONNREFUSED", 111),
    ("EHOSTDOWN", 112),
    ("EHOSTUNREACH", 113),
    ("EALREADY", 114),
];

fn errno_name(errno: i32) -> String {
    let known = ERRNOS.iter().find(|(_, n)| *n == errno);
    known.map_or_else(|| errno.to_string(), |(name, _)| (*name).to_owned())
}

fn notice_name(notice: &Notice) -> (&'static str, Option<ConnId>) {
    match *notice {
        Notice::Received(id) => ("received", Some(id)),
        Notice::Acked(id) => ("acked", Some(id)),
        Notice::Connected(id) => ("connected", Some(id)),
        Notice::ConnectFailed(id) => ("connect-failed", Some(id)),
        Notice::Accepted { listener, .. } => ("accepted", Some(listener)),
        Notice::PeerFin(id) => ("peer-fin", Some(id)),
        Notice::Reset(id) => ("reset", Some(id)),
        Notice::Urgent(id) => ("urgent", Some(id)),
        Notice::Finished(id) => ("finished", Some(id)),
        Notice::Released { id, .. } => ("released", Some(id)),
        Notice::Closed(id) => ("closed", Some(id)),
        #[allow(unreachable_patterns, reason = "others may be added")]
        _ => ("other", None),
    }
}

impl Call {
    /// Done before the engine is there, or without it.
    pub(crate) fn is_setup(&self) -> bool {
        matches!(
            self,
            Self::Config(_) | Self::Killing(_) | Self::Flow { .. } | Self::PeerIsn { .. }
        )
    }

    /// Asserts and changes nothing, so segments may still be waiting to be expected.
    pub(crate) fn only_looks(&self) -> bool {
        matches!(
            self,
            Self::Check(_)
                | Self::Notices { .. }
                | Self::Placed(_)
                | Self::Get(..)
                | Self::IssAhead { .. }
        )
    }
}

impl Run {
    pub(crate) fn prepare(&mut self, call: &Call) -> Outcome {
        match call {
            Call::Config(pairs) => {
                if self.has_begun() {
                    return Err("config: comes before everything else".to_owned());
                }
                for (name, value) in pairs {
                    self.setup.set(name, value)?;
                }
            }
            Call::Killing(on) => self.killing = *on,
            Call::Flow {
                name,
                local,
                remote,
            } => {
                let base = &self.flows[""];
                let flow = Flow::new(local.unwrap_or(base.local), remote.unwrap_or(base.remote));
                if name.is_empty() || name == "-" {
                    self.flows.insert(String::new(), flow);
                } else {
                    self.flows.insert(name.clone(), flow);
                }
            }
            Call::PeerIsn { flow, ahead } => {
                let flow = self.flows.get_mut(flow).ok_or("no such flow")?;
                flow.irs = flow.irs.wrapping_add(*ahead);
            }
            _ => {}
        }
        Ok(())
    }

    fn sock(&self, name: &str) -> Result<Sock, String> {
        let known = self.socks.get(name).copied();
        known.ok_or_else(|| format!("no socket `{name}` yet"))
    }

    /// A call with its expected outcome; the batch ends after it.
    pub(crate) fn call(&mut self, name: &str, call: &Call, error: Option<&str>) -> Outcome {
        let result = self.make(name, call)?;
        let wanted = error.unwrap_or("");
        let came = result.map_or_else(|e| e, |()| String::new());
        if came != wanted {
            let show = |s: &str| {
                if s.is_empty() {
                    "success".to_owned()
                } else {
                    s.to_owned()
                }
            };
            return Err(format!("expected {}, came {}", show(wanted), show(&came)));
        }
        if !call.only_looks() && !matches!(call, Call::Wait | Call::Output(_)) {
            self.end_batch()?;
        }
        Ok(())
    }

    /// The outer result is a broken scenario, the inner one the call's errno.
    fn make(&mut self, name: &str, call: &Call) -> Result<Outcome, String> {
        let result = self.perform(name, call);
        self.record_call(name, call);
        result
    }

    #[expect(clippy::too_many_lines, reason = "one arm a call")]
    fn perform(&mut self, name: &str, call: &Call) -> Result<Outcome, String> {
        let now = self.world().now;
        let errno = |r: Result<(), Errno>| r.map_err(|e| errno_name(e.0));
        Ok(match call {
            Call::Socket { v6, rcv, snd } => {
                let params = OpenParams {
                    owner: SocketRef {
                        region: 1,
                        slot: 1 + self.socks.len() as u32,
                    },
                    v6: *v6,
                    rcv_capacity: rcv.unwrap_or(self.setup.buffer),
                    snd_capacity: snd.unwrap_or(self.setup.buffer),
                };
                match self.world().engine.open(now, &params) {
                    Ok(id) => {
                        self.name(name, id);
                        Ok(())
                    }
                    Err(e) => errno(Err(e)),
                }
            }
            Call::Bind(ip, port) => {
                let id = self.sock(name)?.id;
                let local = self.flows[""].local;
                let ip = ip
                    .or(local.ip())
                    .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
                let at = Endpoint::new(ip, port.unwrap_or(local.port));
                errno(self.world().engine.bind(now, id, at).map(drop))
            }
            Call::Listen(backlog) => {
                let id = self.sock(name)?.id;
                errno(self.world().engine.listen(now, id, *backlog))
            }
            Call::Connect { flow, mtu, data } => {
                let id = self.sock(name)?.id;
                if let Some(n) = data {
                    let _ = self.update(name, |words| words.written = *n)?;
                }
                self.connect(id, flow, *mtu, *data)?
                    .map_err(|e| errno_name(e.0))
            }
            Call::Established { win } => {
                self.establish(name, *win)?;
                Ok(())
            }
            Call::Accepted => {
                self.accepted()?;
                Ok(())
            }
            Call::Settled => {
                self.settled(name)?;
                Ok(())
            }
            Call::Accept(child) | Call::HandOver(child) => {
                let Some(id) = self.oldest_ready(name)? else {
                    return Ok(Err("EAGAIN".to_owned()));
                };
                self.name(child, id);
                self.world().engine.handed_over(now, id);
                if matches!(call, Call::Accept(_)) {
                    self.update(child, |words| words.accepted = true)?
                } else {
                    Ok(())
                }
            }
            Call::Taken => self.update(name, |words| words.accepted = true)?,
            Call::Child { name, flow } => {
                let flow = self.flows.get(flow).ok_or("no such flow")?.clone();
                let found = self
                    .world()
                    .engine
                    .records()
                    .find(|(_, tcb)| tcb.local == flow.local && tcb.remote == flow.remote);
                let (id, iss) = found
                    .map(|(id, t)| (id, t.iss))
                    .ok_or("no connection of that flow")?;
                let _ = iss;
                self.name(name, id);
                Ok(())
            }
            Call::Write(n) => self.update(name, |words| words.written += n)?,
            Call::Read(n) => self.update(name, |words| words.consumed += n)?,
            Call::Urgent(n) => self.update(name, |words| words.urgent = words.written + n)?,
            Call::Words(pairs) => {
                let mut bad = None;
                let outcome = self.update(name, |words| {
                    for (key, value) in pairs {
                        match key.as_str() {
                            "written" => words.written = *value,
                            "consumed" => words.consumed = *value,
                            "urgent" => words.urgent = *value,
                            "shut_rd" => words.shut_rd = *value != 0,
                            "shut_wr" => words.shut_wr = *value != 0,
                            "accepted" => words.accepted = *value != 0,
                            _ => bad = Some(format!("`{key}` is none of an application's words")),
                        }
                    }
                })?;
                if let Some(bad) = bad {
                    return Err(bad);
                }
                outcome
            }
            Call::Show => self.update(name, |_| ())?,
            Call::ShutWords(how) => self.update(name, |words| {
                words.shut_rd |= matches!(how, How::Read | How::Both);
                words.shut_wr |= matches!(how, How::Write | How::Both);
            })?,
            Call::Shutdown(how) => {
                let id = self.sock(name)?.id;
                errno(self.world().engine.shutdown(now, id, *how))
            }
            Call::Close => {
                let id = self.sock(name)?.id;
                self.world().engine.close(now, id);
                Ok(())
            }
            Call::Abort => {
                let id = self.sock(name)?.id;
                self.world().engine.abort(now, id, Errno::ECONNABORTED);
                Ok(())
            }
            Call::Set(option) => {
                let id = self.sock(name)?.id;
                errno(self.world().engine.set_option(now, id, option))
            }
            Call::Get(option, value) => {
                let id = self.sock(name)?.id;
                match self.world().engine.option(id, *option) {
                    Ok(got) => {
                        let got = option_text(&got);
                        if got != *value {
                            return Err(format!("it is {got}"));
                        }
                        Ok(())
                    }
                    Err(e) => errno(Err(e)),
                }
            }
            Call::TakeError => {
                let id = self.sock(name)?.id;
                let error = self.world().engine.take_error(now, id);
                errno(error.map_or(Ok(()), Err))
            }
            Call::Icmp { flow, kind, seq } => {
                let seq = self.own(flow, seq)?;
                let flow = self.flows.get(flow).ok_or("no such flow")?;
                let (local, remote) = (flow.local, flow.remote);
                // A type that TCP does not care for does not reach the engine.
                if let Some(kind) = *kind {
                    let error = IcmpError {
                        local,
                        remote,
                        seq,
                        kind,
                    };
                    self.world().engine.on_icmp_error(now, &error);
                }
                Ok(())
            }
            Call::Refuse(on) => {
                self.world().memory.refuse = *on;
                Ok(())
            }
            Call::Placed(ranges) => {
                let placed = core::mem::take(&mut self.world().memory.placed);
                if placed != *ranges {
                    let text: Vec<String> =
                        placed.iter().map(|(a, b)| format!("{a}..{b}")).collect();
                    return Err(format!("placed was: {}", text.join(" ")));
                }
                Ok(())
            }
            Call::Check(checks) => {
                self.check(name, checks)?;
                Ok(())
            }
            Call::Notices { only, names } => {
                self.notices(name, *only, names)?;
                Ok(())
            }
            Call::IssAhead { flow, from, to } => {
                let flow = self.flows.get(flow).ok_or("no such flow")?;
                let ahead = flow.iss.wrapping_sub(flow.previous_iss);
                if !(*from..=*to).contains(&ahead) {
                    return Err(format!("it is {ahead} ahead"));
                }
                Ok(())
            }
            Call::Restore => {
                self.world().restore()?;
                Ok(())
            }
            Call::Output(budget) => {
                self.world().engine.output(now, *budget);
                let out = self.world().commit()?;
                self.collect(out)?;
                Ok(())
            }
            Call::Wait => Ok(()),
            Call::Config(_) | Call::Killing(_) | Call::Flow { .. } | Call::PeerIsn { .. } => Ok(()),
        })
    }

    fn name(&mut self, name: &str, id: ConnId) {
        let words = self
            .world()
            .engine
            .record(id)
            .map_or_else(AppWords::default, |tcb| AppWords {
                written: tcb.written,
                consumed: tcb.consumed,
                ..AppWords::default()
            });
        self.socks.insert(name.to_owned(), Sock { id, words });
    }

    /// Changes an application's words and shows them; a fault leaves them as they were.
    fn update(&mut self, name: &str, f: impl FnOnce(&mut AppWords)) -> Result<Outcome, String> {
        let mut sock = self.sock(name)?;
        let now = self.world().now;
        f(&mut sock.words);
        Ok(
            match self.world().engine.on_app(now, sock.id, &sock.words) {
                Ok(()) => {
                    self.socks.insert(name.to_owned(), sock);
                    Ok(())
                }
                // An application at fault gets no errno: the shell counts it.
                Err(_) => Err("EFAULT".to_owned()),
            },
        )
    }

    fn connect(
        &mut self,
        id: ConnId,
        name: &str,
        mtu: u16,
        data: Option<u64>,
    ) -> Result<Result<(), Errno>, String> {
        let flow = self.flows.get(name).ok_or("no such flow")?.clone();
        let now = self.world().now;
        let source = flow.local.ip().ok_or("the flow has no own address")?;
        let route = Route { source, mtu };
        let engine = &mut self.world().engine;
        let result = match data {
            None => engine.connect(now, id, flow.remote, &route),
            Some(n) => engine.connect_with_data(now, id, flow.remote, &route, n),
        };
        if result.is_ok()
            && let Some((local, iss)) = self.world().engine.record(id).map(|t| (t.local, t.iss))
            && let Some(flow) = self.flows.get_mut(name)
        {
            flow.local = local;
            flow.previous_iss = flow.iss;
            flow.iss = iss;
        }
        Ok(result)
    }

    fn segment(&mut self, text: &str) -> Outcome {
        let seg = Seg::parse(text, false)?;
        self.incoming("", &seg)?;
        self.end_batch()
    }

    /// Everything that the configuration offers, answered by the peer.
    fn syn_options(&self) -> String {
        let c = &self.setup.engine;
        let mut text = "mss 1460".to_owned();
        if c.sack {
            text += ",sackOK";
        }
        if c.window_scaling {
            text += ",wscale 7";
        }
        if c.timestamps {
            text += ",TS val 1 ecr ";
            text += if self.names.numbers.contains_key("last") {
                "$last"
            } else {
                "0"
            };
        }
        text
    }

    fn establish(&mut self, name: &str, win: u16) -> Outcome {
        if !self.socks.contains_key(name) {
            let socket = Call::Socket {
                v6: false,
                rcv: None,
                snd: None,
            };
            self.make(name, &socket)??;
        }
        let local = self.flows[""].local;
        let at = Call::Bind(local.ip(), Some(local.port));
        self.make(name, &at)??;
        let connect = Call::Connect {
            flow: String::new(),
            mtu: 1_500,
            data: None,
        };
        self.make(name, &connect)??;
        self.end_batch()?;
        let syn = self.take_sent().ok_or("no SYN came")?;
        if !syn.flags().contains(wire::tcp::Flags::SYN) {
            return Err(format!("expected a SYN, came {}", syn.text));
        }
        self.pass(100_000_000)?;
        let options = self.syn_options();
        self.segment(&format!("S. 0 ack 1 win {win} <{options}>"))?;
        self.take_sent().ok_or("no ACK of the SYN,ACK came")?;
        self.be_established(name)
    }

    fn be_established(&mut self, name: &str) -> Outcome {
        let id = self.sock(name)?.id;
        let state = self.world().engine.record(id).map(tcpd::engine::Tcb::state);
        self.world().notices.clear();
        if state == Some(State::Established) {
            Ok(())
        } else {
            Err(format!("it is not established but {state:?}"))
        }
    }

    fn accepted(&mut self) -> Outcome {
        let socket = Call::Socket {
            v6: false,
            rcv: None,
            snd: None,
        };
        self.make("l", &socket)??;
        self.make("l", &Call::Bind(None, None))??;
        self.make("l", &Call::Listen(5))??;
        let options = self.syn_options();
        self.segment(&format!("S 0 <{options}>"))?;
        self.take_sent().ok_or("no SYN,ACK came")?;
        self.pass(100_000_000)?;
        let stamps = if self.setup.engine.timestamps {
            " <TS val 2 ecr $last>"
        } else {
            ""
        };
        self.segment(&format!(". 1 ack 1{stamps}"))?;
        self.make("l", &Call::Accept("s".to_owned()))??;
        self.end_batch()?;
        self.be_established("s")
    }

    fn settled(&mut self, name: &str) -> Outcome {
        let id = self.sock(name)?.id;
        for _ in 0..16 {
            let seq = self
                .world()
                .engine
                .record(id)
                .map_or(0, |tcb| tcb.received_upto() + 1);
            self.segment(&format!(". {seq}:{}(10) ack 1", seq + 10))?;
            if self.take_sent().is_none() {
                self.pass(40_000_000)?;
                return Err("fifteen acknowledgements were not the last".to_owned());
            }
            let quick = self
                .world()
                .engine
                .record(id)
                .map_or(0, |tcb| tcb.received_upto());
            if quick == 150 {
                break;
            }
        }
        self.make(name, &Call::Read(150))??;
        self.end_batch()?;
        self.world().notices.clear();
        self.world().memory.placed.clear();
        Ok(())
    }

    fn oldest_ready(&mut self, listener: &str) -> Result<Option<ConnId>, String> {
        let parent = self.sock(listener)?.id;
        let ready = self
            .world()
            .engine
            .records()
            .filter(|(_, tcb)| tcb.accept() == Accept::Ready && tcb.parent() == Some(parent));
        Ok(ready
            .min_by_key(|(_, tcb)| tcb.accept_seq)
            .map(|(id, _)| id))
    }

    fn notices(&mut self, name: &str, only: bool, names: &[String]) -> Outcome {
        let came = core::mem::take(&mut self.world().notices);
        let shown: Vec<String> = came
            .iter()
            .map(|notice| {
                let (what, id) = notice_name(notice);
                let owner = self.socks.iter().find(|(_, s)| Some(s.id) == id);
                format!("{}.{what}", owner.map_or("?", |(name, _)| name))
            })
            .collect();
        let mut rest = shown.iter();
        let full = |n: &String| {
            if n.contains('.') {
                n.clone()
            } else {
                format!("{name}.{n}")
            }
        };
        let failed = |n: &str| {
            Err(format!(
                "notice {n} did not come; came: {}",
                shown.join(" ")
            ))
        };
        for wanted in names.iter().map(full) {
            let any = wanted.strip_prefix("*.");
            loop {
                match rest.next() {
                    Some(n) if *n == wanted => break,
                    Some(n) if any.is_some_and(|w| n.ends_with(&format!(".{w}"))) => break,
                    // A successor repeats who waits to be accepted.
                    Some(n) if !only || (self.killed && n.ends_with(".accepted")) => {}
                    _ => return failed(&wanted),
                }
            }
        }
        let repeats = |n: &String| self.killed && n.ends_with(".accepted");
        if only && !rest.all(repeats) {
            return Err(format!("other notices came: {}", shown.join(" ")));
        }
        Ok(())
    }

    fn check(&mut self, name: &str, checks: &[Check]) -> Outcome {
        let all = self.fields(name);
        for check in checks {
            let Some(have) = all.get(&check.field) else {
                let near: Vec<&String> = all.keys().filter(|k| k.contains(&check.field)).collect();
                return Err(format!("no field `{}` (perhaps {near:?})", check.field));
            };
            if !holds(have, &check.op, &check.value)? {
                return Err(format!(
                    "expected {}{}{}, it is {have}",
                    check.field, check.op, check.value
                ));
            }
        }
        Ok(())
    }

    fn fields(&mut self, name: &str) -> BTreeMap<String, String> {
        let sock = self.socks.get(name).copied();
        let world = self.world();
        let now = world.now;
        let mut all = BTreeMap::new();
        for (key, value) in fields(world.engine.stats()) {
            all.insert(format!("stats.{key}"), value);
        }
        let mut put = |key: &str, value: String| drop(all.insert(key.to_owned(), value));
        put("sockets", world.engine.records().count().to_string());
        let Some(sock) = sock else { return all };
        let Some(tcb) = world.engine.record(sock.id) else {
            put("state", "FREE".to_owned());
            return all;
        };
        if let Some(info) = world.engine.info(now, sock.id) {
            for (key, value) in fields(&info) {
                put(&format!("info.{key}"), value);
            }
        }
        for (key, value) in fields(tcb) {
            put(&key, value);
        }
        put("state", tcb.state().name().to_owned());
        put("accept", format!("{:?}", tcb.accept()));
        put(
            "error",
            if tcb.error == 0 {
                "0".to_owned()
            } else {
                errno_name(tcb.error)
            },
        );
        put(
            "soft_error",
            if tcb.soft_error == 0 {
                "0".to_owned()
            } else {
                errno_name(tcb.soft_error)
            },
        );
        put("received", tcb.received_upto().to_string());
        put("acked", tcb.acked_upto().to_string());
        put("unread", tcb.unread().to_string());
        put(
            "urgent",
            tcb.urgent_upto()
                .map_or("none".to_owned(), |n| n.to_string()),
        );
        put("flight", tcb.flight().to_string());
        put("phase", format!("{:?}", tcb.recovery.phase()));
        put("orphan", tcb.is_orphan().to_string());
        put("has_buffers", (tcb.owner != SocketRef::NONE).to_string());
        put("local.port", tcb.local.port.to_string());
        put("sacked.empty", tcb.sacked.is_empty().to_string());
        all
    }
}

fn holds(have: &str, op: &str, want: &str) -> Result<bool, String> {
    let number = |text: &str| text.replace('_', "").parse::<i128>().ok();
    let time = |text: &str| {
        text.ends_with('s')
            .then(|| duration(text).ok().map(i128::from))
            .flatten()
    };
    let want_number = number(want).or_else(|| time(want));
    Ok(match (number(have), want_number, op) {
        (Some(a), Some(b), "=") => a == b,
        (Some(a), Some(b), "!=") => a != b,
        (Some(a), Some(b), "<") => a < b,
        (Some(a), Some(b), "<=") => a <= b,
        (Some(a), Some(b), ">") => a > b,
        (Some(a), Some(b), ">=") => a >= b,
        (_, _, "=") => have == want,
        (_, _, "!=") => have != want,
        _ => return Err(format!("`{have}` {op} `{want}`: these are no numbers")),
    })
}

fn option_text(option: &SockOpt) -> String {
    let text = format!("{option:?}");
    let inner = text
        .split_once('(')
        .map_or(text.as_str(), |(_, rest)| rest.trim_end_matches(')'));
    let inner = inner.trim_start_matches("Some(");
    match inner {
        "true" => "on".to_owned(),
        "false" => "off".to_owned(),
        "None" => "off".to_owned(),
        other => other.trim_matches('"').to_owned(),
    }
}
