//! Calls, words and assertions of a scenario.

use super::{Num, Parsed, duration};
use abi::Endpoint;
use abi::session::{SockOpt, SockOptName};
use core::net::IpAddr;
use tcpd::engine::{How, IcmpKind};

/// One call.
#[derive(Debug)]
pub(crate) enum Call {
    /// `key=value`, for the engine that is about to be made.
    Config(Vec<(String, String)>),
    /// From here on nothing is killed between the lines, or is again.
    Killing(bool),
    Flow {
        name: String,
        local: Option<Endpoint>,
        remote: Option<Endpoint>,
    },
    /// The peer of this flow starts over: its numbers are so much higher.
    PeerIsn {
        flow: String,
        ahead: u32,
    },
    Socket {
        v6: bool,
        rcv: Option<u32>,
        snd: Option<u32>,
    },
    Bind(Option<IpAddr>, Option<u16>),
    Listen(u32),
    Connect {
        flow: String,
        mtu: u16,
        /// Bytes that lie in the send buffer.
        data: Option<u64>,
    },
    /// Socket, bind, connect and the peer's answer after 100 ms.
    Established {
        win: u16,
    },
    /// Listener `l`, a handshake of the peer's, and the child as `s`, taken by an application.
    Accepted,
    /// The acknowledgements at once of a young connection are used up.
    Settled,
    /// The oldest connection waiting gets this name, is handed over and taken.
    Accept(String),
    /// The same, not yet taken.
    HandOver(String),
    Taken,
    /// The connection of a flow, whatever its state, gets this name.
    Child {
        name: String,
        flow: String,
    },
    Write(u64),
    Read(u64),
    /// Urgent data ends `n` bytes behind what is written so far.
    Urgent(u64),
    Words(Vec<(String, u64)>),
    Show,
    Shutdown(How),
    ShutWords(How),
    Close,
    Abort,
    Set(SockOpt),
    Get(SockOptName, String),
    TakeError,
    Icmp {
        flow: String,
        kind: Option<IcmpKind>,
        seq: Num,
    },
    Refuse(bool),
    Placed(Vec<(u64, u64)>),
    Check(Vec<Check>),
    Notices {
        only: bool,
        names: Vec<String>,
    },
    /// How far the initial sequence number of the flow's last SYN is ahead of the one before.
    IssAhead {
        flow: String,
        from: u32,
        to: u32,
    },
    /// Killed between two batches, and made again from what was committed.
    Restore,
    Output(usize),
    Wait,
}

/// `field OP value`.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) field: String,
    pub(crate) op: String,
    pub(crate) value: String,
}

impl Check {
    fn parse(text: &str) -> Parsed<Self> {
        let bad = || format!("`{text}`: an assertion is FIELD=VALUE (or != < <= > >=)");
        let at = text.find(['=', '!', '<', '>']).ok_or_else(bad)?;
        let (field, rest) = text.split_at(at);
        let op = ["!=", "<=", ">=", "=", "<", ">"]
            .into_iter()
            .find(|op| rest.starts_with(op))
            .ok_or_else(bad)?;
        let value = rest.get(op.len()..).unwrap_or("");
        if field.is_empty() || value.is_empty() {
            return Err(bad());
        }
        Ok(Self {
            field: field.to_owned(),
            op: op.to_owned(),
            value: value.to_owned(),
        })
    }
}

fn number<T: core::str::FromStr>(text: &str) -> Parsed<T> {
    text.replace('_', "")
        .parse()
        .map_err(|_| format!("`{text}` is no number that fits"))
}

fn endpoint(text: &str) -> Parsed<Endpoint> {
    let bad = || format!("`{text}`: an end is ADDRESS:PORT, IPv6 in brackets");
    let end: core::net::SocketAddr = text.parse().map_err(|_| bad())?;
    Ok(Endpoint::new(end.ip(), end.port()))
}

/// The end of a flow, from `remote=` or `local=`; a mere number is a port.
fn parse_flow(text: &str, default: Endpoint) -> Parsed<Endpoint> {
    match text.parse() {
        Ok(port) => Ok(Endpoint { port, ..default }),
        Err(_) => endpoint(text),
    }
}

fn how(text: &str) -> Parsed<How> {
    match text {
        "rd" => Ok(How::Read),
        "wr" => Ok(How::Write),
        "both" => Ok(How::Both),
        _ => Err(format!("`{text}`: rd, wr or both")),
    }
}

fn on(text: &str) -> Parsed<bool> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{text}`: on or off")),
    }
}

fn millis(text: &str) -> Parsed<u32> {
    u32::try_from(duration(text)? / 1_000_000).map_err(|_| format!("`{text}` is too long"))
}

fn sock_opt(name: &str, value: &str) -> Parsed<SockOpt> {
    Ok(match name {
        "reuseaddr" => SockOpt::ReuseAddr(on(value)?),
        "reuseport" => SockOpt::ReusePort(on(value)?),
        "keepalive" => SockOpt::KeepAlive(on(value)?),
        "linger" => SockOpt::Linger(match value {
            "off" => None,
            time => Some(millis(time)?),
        }),
        "rcvbuf" => SockOpt::RecvBuffer(number(value)?),
        "sndbuf" => SockOpt::SendBuffer(number(value)?),
        "v6only" => SockOpt::V6Only(on(value)?),
        "nodelay" => SockOpt::NoDelay(on(value)?),
        "cork" => SockOpt::Cork(on(value)?),
        "quickack" => SockOpt::QuickAck(on(value)?),
        "keepidle" => SockOpt::KeepIdle(millis(value)?),
        "keepintvl" => SockOpt::KeepInterval(millis(value)?),
        "keepcnt" => SockOpt::KeepCount(number(value)?),
        "user-timeout" => SockOpt::UserTimeout(millis(value)?),
        "maxseg" => SockOpt::MaxSegment(number(value)?),
        "defer-accept" => SockOpt::DeferAccept(millis(value)?),
        "fastopen" => SockOpt::FastOpen(number(value)?),
        "fastopen-connect" => SockOpt::FastOpenConnect(on(value)?),
        "congestion" => SockOpt::Congestion(value.to_owned()),
        "tos" => SockOpt::Tos(number(value)?),
        "ttl" => SockOpt::Ttl(number(value)?),
        "mark" => SockOpt::Mark(number(value)?),
        _ => return Err(format!("`{name}` is no socket option known here")),
    })
}

fn sock_opt_name(name: &str) -> Parsed<SockOptName> {
    Ok(match name {
        "reuseaddr" => SockOptName::ReuseAddr,
        "keepalive" => SockOptName::KeepAlive,
        "linger" => SockOptName::Linger,
        "rcvbuf" => SockOptName::RecvBuffer,
        "sndbuf" => SockOptName::SendBuffer,
        "nodelay" => SockOptName::NoDelay,
        "cork" => SockOptName::Cork,
        "quickack" => SockOptName::QuickAck,
        "keepidle" => SockOptName::KeepIdle,
        "keepintvl" => SockOptName::KeepInterval,
        "keepcnt" => SockOptName::KeepCount,
        "user-timeout" => SockOptName::UserTimeout,
        "maxseg" => SockOptName::MaxSegment,
        "congestion" => SockOptName::Congestion,
        "tos" => SockOptName::Tos,
        "ttl" => SockOptName::Ttl,
        _ => return Err(format!("`{name}` is no socket option known here")),
    })
}

fn icmp(words: &[&str]) -> Parsed<Call> {
    let (kind, rest) = words.split_first().ok_or("icmp of what kind?")?;
    let (mut mtu, mut seq, mut flow) = (0, Num::Lit(1), String::new());
    for word in rest {
        match word.split_once('=') {
            Some(("mtu", n)) => mtu = number(n)?,
            Some(("seq", n)) => seq = Num::parse(n)?,
            Some(("flow", n)) => n.clone_into(&mut flow),
            _ => return Err(format!("`{word}`: icmp takes mtu=, seq=, flow=")),
        }
    }
    let kind = match (*kind, kind.split_once('/')) {
        ("net-unreachable", _) => Some(IcmpKind::NetUnreachable),
        ("host-unreachable", _) => Some(IcmpKind::HostUnreachable),
        ("protocol-unreachable", _) => Some(IcmpKind::ProtocolUnreachable),
        ("port-unreachable", _) => Some(IcmpKind::PortUnreachable),
        ("parameter-problem", _) => Some(IcmpKind::ParameterProblem),
        ("frag-needed", _) => Some(IcmpKind::FragmentationNeeded { mtu }),
        (_, Some((kind, code))) => IcmpKind::from_v4(number(kind)?, number(code)?, mtu),
        _ => {
            return Err(format!(
                "`{kind}`: net-unreachable, host-unreachable, protocol-unreachable, \
                 port-unreachable, parameter-problem, frag-needed, or TYPE/CODE"
            ));
        }
    };
    Ok(Call::Icmp { flow, kind, seq })
}

impl Call {
    pub(crate) fn parse(verb: &str, args: &str) -> Parsed<Self> {
        let words: Vec<&str> = args.split_whitespace().collect();
        let own = |text: &str| text.to_owned();
        Ok(match (verb, &words[..]) {
            ("config:", pairs) => Self::Config(
                pairs
                    .iter()
                    .map(|pair| {
                        let pair = pair.split_once('=');
                        pair.map(|(k, v)| (own(k), own(v)))
                            .ok_or_else(|| "config: NAME=VALUE …".to_owned())
                    })
                    .collect::<Parsed<_>>()?,
            ),
            ("no-restore:", [_, ..]) => Self::Killing(false),
            ("no-restore" | "no-restore:", _) => {
                return Err("no-restore: says why".to_owned());
            }
            ("restore-again", []) => Self::Killing(true),
            ("flow", [name, ends @ ..]) => {
                let (mut local, mut remote) = (None, None);
                let base = |last, port| Endpoint::new([10, 0, 0, last].into(), port);
                for end in ends {
                    match end.split_once('=') {
                        Some(("local", end)) => local = Some(parse_flow(end, base(1, 5_000))?),
                        Some(("remote", end)) => remote = Some(parse_flow(end, base(2, 80))?),
                        _ => return Err(format!("`{end}`: local=END or remote=END")),
                    }
                }
                Self::Flow {
                    name: own(name),
                    local,
                    remote,
                }
            }
            ("peer-isn", [ahead]) => Self::PeerIsn {
                flow: String::new(),
                ahead: number(ahead)?,
            },
            ("peer-isn", [flow, ahead]) => Self::PeerIsn {
                flow: own(flow),
                ahead: number(ahead)?,
            },
            ("socket", args) => {
                let (mut v6, mut rcv, mut snd) = (false, None, None);
                for arg in args {
                    match arg.split_once('=') {
                        Some(("rcv", n)) => rcv = Some(number(n)?),
                        Some(("snd", n)) => snd = Some(number(n)?),
                        None if *arg == "v6" => v6 = true,
                        _ => return Err(format!("`{arg}`: v6, rcv=BYTES or snd=BYTES")),
                    }
                }
                Self::Socket { v6, rcv, snd }
            }
            ("bind", []) => Self::Bind(None, None),
            ("bind", [at]) => match at.parse::<u16>() {
                Ok(port) => Self::Bind(None, Some(port)),
                Err(_) => {
                    let end = endpoint(at)?;
                    Self::Bind(end.ip(), Some(end.port))
                }
            },
            ("listen", []) => Self::Listen(5),
            ("listen", [n]) => Self::Listen(number(n)?),
            ("connect", args) => {
                let (mut flow, mut mtu, mut data) = (String::new(), 1_500, None);
                for arg in args {
                    match arg.split_once('=') {
                        Some(("data", n)) => data = Some(number(n)?),
                        Some(("mtu", n)) => mtu = number(n)?,
                        None => flow = own(arg),
                        _ => {
                            return Err(format!(
                                "`{arg}`: connect [FLOW] [mtu=BYTES] [data=BYTES]"
                            ));
                        }
                    }
                }
                Self::Connect { flow, mtu, data }
            }
            ("established", []) => Self::Established { win: 65_535 },
            ("established", ["win", n]) => Self::Established { win: number(n)? },
            ("accepted", []) => Self::Accepted,
            ("settled", []) => Self::Settled,
            ("accept", [name]) => Self::Accept(own(name)),
            ("hand-over", [name]) => Self::HandOver(own(name)),
            ("taken", []) => Self::Taken,
            ("child", [name]) => Self::Child {
                name: own(name),
                flow: String::new(),
            },
            ("child", [name, flow]) => Self::Child {
                name: own(name),
                flow: own(flow),
            },
            ("write", [n]) => Self::Write(number(n)?),
            ("read", [n]) => Self::Read(number(n)?),
            ("urgent", [n]) => Self::Urgent(number(n)?),
            ("words", []) => Self::Show,
            ("words", pairs) => Self::Words(
                pairs
                    .iter()
                    .map(|pair| match pair.split_once('=') {
                        Some((k, "max")) => Ok((own(k), u64::MAX)),
                        Some((k, v)) => Ok((own(k), number(v)?)),
                        None => Ok((own(pair), 1)),
                    })
                    .collect::<Parsed<_>>()?,
            ),
            ("shutdown", [direction]) => Self::Shutdown(how(direction)?),
            ("shut-words", [direction]) => Self::ShutWords(how(direction)?),
            ("close", []) => Self::Close,
            ("abort", []) => Self::Abort,
            ("set", [name, value]) => Self::Set(sock_opt(name, value)?),
            ("get", [name, "=", value]) => Self::Get(sock_opt_name(name)?, own(value)),
            ("take-error", []) => Self::TakeError,
            ("icmp", words) => icmp(words)?,
            ("refuse", [word]) => Self::Refuse(on(word)?),
            ("placed", ranges) => Self::Placed(
                ranges
                    .iter()
                    .map(|r| {
                        let (from, to) = r.split_once("..").ok_or("placed FROM..TO …")?;
                        Ok((number(from)?, number(to)?))
                    })
                    .collect::<Parsed<_>>()?,
            ),
            ("check", checks @ [_, ..]) => Self::Check(
                checks
                    .iter()
                    .map(|c| Check::parse(c))
                    .collect::<Parsed<_>>()?,
            ),
            ("!", names) => Self::Notices {
                only: false,
                names: names.iter().map(|n| own(n)).collect(),
            },
            ("!!", names) => Self::Notices {
                only: true,
                names: names.iter().map(|n| own(n)).collect(),
            },
            ("iss-ahead", [range]) => iss_ahead("", range)?,
            ("iss-ahead", [flow, range]) => iss_ahead(flow, range)?,
            ("restore", []) => Self::Restore,
            ("output", [n]) => Self::Output(number(n)?),
            ("wait", []) => Self::Wait,
            _ => return Err(format!("`{verb} {args}`: no such line (see README.md)")),
        })
    }
}

fn iss_ahead(flow: &str, range: &str) -> Parsed<Call> {
    let (from, to) = range.split_once("..").ok_or("iss-ahead FROM..TO")?;
    Ok(Call::IssAhead {
        flow: flow.to_owned(),
        from: number(from)?,
        to: number(to)?,
    })
}
