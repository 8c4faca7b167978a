//! Segments as tcpdump and packetdrill write them: `P. 1:101(100) ack 1 win 500 <mss 1460>`.

use super::{Num, Parsed};
use wire::tcp::Flags;

/// A segment to send, or the pattern of one to expect (what is not said may be anything).
#[derive(Debug)]
pub(crate) struct Seg {
    pub(crate) flags: Option<Flags>,
    pub(crate) seq: Num,
    /// `None`: any.
    pub(crate) len: Option<u32>,
    pub(crate) ack: Option<Num>,
    pub(crate) win: Option<Num>,
    pub(crate) urg: Option<Num>,
    /// Merged, or to be split, in units of so many bytes.
    pub(crate) gso: Option<u16>,
    /// The two ECN bits of the IP header.
    pub(crate) ecn: Option<u8>,
    pub(crate) tos: Option<u8>,
    pub(crate) ttl: Option<u8>,
    /// `None`: not said.
    pub(crate) opts: Option<Vec<Opt>>,
    /// There may be other options too (`...`).
    pub(crate) more: bool,
}

/// An option.
#[derive(Debug)]
pub(crate) enum Opt {
    Mss(Num),
    Scale(Num),
    SackOk,
    Stamps(Num, Num),
    Sack(Vec<(Num, Num)>),
    UserTimeout(Num),
    /// A cookie in hexadecimal; `None`: any.
    FastOpen(Option<Vec<u8>>),
    /// `FO $name`: the cookie seen where the name first stood.
    FastOpenNamed(String),
    /// Bytes of the options as on the wire.
    Raw(Vec<u8>),
}

const LETTERS: [(char, Flags); 8] = [
    ('S', Flags::SYN),
    ('F', Flags::FIN),
    ('R', Flags::RST),
    ('P', Flags::PSH),
    ('U', Flags::URG),
    ('E', Flags::ECE),
    ('W', Flags::CWR),
    ('.', Flags::ACK),
];

/// Flags in letters; `-` for none.
pub(crate) fn flags_text(flags: Flags) -> String {
    if flags.is_empty() {
        return "-".to_owned();
    }
    LETTERS
        .iter()
        .filter(|(_, flag)| flags.contains(*flag))
        .map(|(letter, _)| letter)
        .collect()
}

fn flags(text: &str) -> Parsed<Flags> {
    if text == "-" {
        return Ok(Flags::empty());
    }
    let mut flags = Flags::empty();
    for letter in text.chars() {
        let known = LETTERS.iter().find(|(l, _)| *l == letter);
        let (_, flag) = known.ok_or_else(|| {
            format!("`{text}`: flags are of S F R P U E W . (ACK), or - for none")
        })?;
        flags |= *flag;
    }
    Ok(flags)
}

/// `1`, `1:101`, `1:101(100)`, `1:*`, `*`.
fn range(text: &str) -> Parsed<(Num, Option<u32>)> {
    if text == "*" {
        return Ok((Num::Any, None));
    }
    let (range, said) = match text.split_once('(') {
        Some((range, len)) => {
            let len = len.strip_suffix(')').and_then(|len| len.parse().ok());
            (
                range,
                Some(len.ok_or_else(|| format!("`{text}`: what length?"))?),
            )
        }
        None => (text, None),
    };
    let Some((from, to)) = range.split_once(':') else {
        return Ok((Num::parse(range)?, Some(said.unwrap_or(0))));
    };
    let from = Num::parse(from)?;
    let len = match (&from, Num::parse(to)?) {
        (_, Num::Any) => said,
        (Num::Lit(from), Num::Lit(to)) | (Num::Wire(from), Num::Wire(to)) => {
            let len = to.wrapping_sub(*from);
            if said.is_some_and(|said| said != len) {
                return Err(format!("`{text}`: the length is {len}"));
            }
            Some(len)
        }
        _ => Some(said.ok_or_else(|| format!("`{text}`: say the length in brackets"))?),
    };
    Ok((from, len))
}

fn pair(text: &str) -> Parsed<(Num, Num)> {
    let (left, right) = text
        .split_once(':')
        .ok_or_else(|| format!("`{text}`: a block is LEFT:RIGHT"))?;
    Ok((Num::parse(left)?, Num::parse(right)?))
}

fn hex(text: &str) -> Parsed<Vec<u8>> {
    let bad = || format!("`{text}`: pairs of hexadecimal digits");
    if !text.len().is_multiple_of(2) {
        return Err(bad());
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(text.get(i..i + 2).unwrap_or(""), 16).map_err(|_| bad()))
        .collect()
}

fn option(text: &str) -> Parsed<Option<Opt>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(Some(match words[..] {
        [] | ["nop" | "eol"] => return Ok(None),
        ["mss", n] => Opt::Mss(Num::parse(n)?),
        ["wscale", n] => Opt::Scale(Num::parse(n)?),
        ["sackOK"] => Opt::SackOk,
        ["TS", "val", val, "ecr", ecr] => Opt::Stamps(Num::parse(val)?, Num::parse(ecr)?),
        ["sack", ref blocks @ ..] => {
            Opt::Sack(blocks.iter().map(|b| pair(b)).collect::<Parsed<_>>()?)
        }
        ["uto", n] => Opt::UserTimeout(Num::parse(n)?),
        ["FO"] => Opt::FastOpen(Some(vec![])),
        ["FO", "*"] => Opt::FastOpen(None),
        ["FO", cookie] => match cookie.strip_prefix('$') {
            Some(name) => Opt::FastOpenNamed(name.to_owned()),
            None => Opt::FastOpen(Some(hex(cookie)?)),
        },
        ["raw", bytes] => Opt::Raw(hex(bytes)?),
        _ => {
            return Err(format!(
                "`{text}`: options are mss N, wscale N, sackOK, TS val N ecr N, sack L:R L:R, \
                 uto N, FO [HEX], raw HEX, nop"
            ));
        }
    }))
}

impl Seg {
    /// `expected`: a pattern.
    pub(crate) fn parse(text: &str, expected: bool) -> Parsed<Self> {
        let (text, options) = match text.split_once('<') {
            Some((before, rest)) => {
                let (options, after) = rest.split_once('>').ok_or("the options' `<` has no `>`")?;
                (format!("{before} {after}"), Some(options.to_owned()))
            }
            None => (text.to_owned(), None),
        };
        let mut words = text.split_whitespace();
        let first = words.next().ok_or("flags and numbers of a segment")?;
        let mut seg = Self {
            flags: if first == "*" {
                None
            } else {
                Some(flags(first)?)
            },
            seq: Num::Any,
            len: None,
            ack: None,
            win: None,
            urg: None,
            gso: None,
            ecn: None,
            tos: None,
            ttl: None,
            opts: None,
            more: false,
        };
        let numbers = words.next().ok_or("sequence numbers, like 1:101(100)")?;
        (seg.seq, seg.len) = range(numbers)?;
        while let Some(key) = words.next() {
            let value = words.next().ok_or_else(|| format!("`{key}` of what?"))?;
            let small = || value.parse().map_err(|_| format!("`{value}` is no number"));
            match key {
                "ack" => seg.ack = Some(Num::parse(value)?),
                "win" => seg.win = Some(Num::parse(value)?),
                "urg" => seg.urg = Some(Num::parse(value)?),
                "gso" => seg.gso = Some(small()?),
                "tos" => seg.tos = Some(small()? as u8),
                "ttl" => seg.ttl = Some(small()? as u8),
                "ecn" => {
                    let known = ["none", "ect1", "ect0", "ce"]
                        .iter()
                        .position(|n| *n == value);
                    let bits = known.ok_or("ecn is none, ect0, ect1 or ce")?;
                    seg.ecn = Some(bits as u8);
                }
                _ => {
                    return Err(format!(
                        "`{key}`: after the numbers come ack, win, urg, gso, ecn, tos, ttl"
                    ));
                }
            }
        }
        if let Some(options) = options {
            let mut opts = vec![];
            for text in options.split(',').map(str::trim) {
                if text == "..." {
                    seg.more = true;
                } else {
                    opts.extend(option(text)?);
                }
            }
            seg.opts = Some(opts);
        }
        seg.check(expected)?;
        Ok(seg)
    }

    fn check(&self, expected: bool) -> Parsed<()> {
        let has_ack = self.flags.is_none_or(|f| f.contains(Flags::ACK));
        if !has_ack && self.ack.is_some() && expected {
            return Err("an ack without the flag `.`".to_owned());
        }
        if has_ack && self.ack.is_none() {
            return Err("the flag `.` without an ack number (`ack *` for any)".to_owned());
        }
        if expected {
            return Ok(());
        }
        if self.flags.is_none() || self.seq == Num::Any || self.len.is_none() || self.more {
            return Err("`*` can be expected, not sent".to_owned());
        }
        Ok(())
    }
}
