//! The scenario language: text to [`Script`]. README.md beside the runner describes it.

mod call;
mod number;
mod segment;

pub(crate) use call::{Call, Check};
pub(crate) use number::{Num, duration};
pub(crate) use segment::{Opt, Seg, flags_text};

/// A scenario file.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) lines: Vec<Line>,
}

/// One line that does something.
#[derive(Debug)]
pub(crate) struct Line {
    /// In the file, from 1.
    pub(crate) number: usize,
    pub(crate) text: String,
    pub(crate) when: When,
    pub(crate) what: What,
}

/// When a line happens, in nanoseconds. Of a range, the line is good anywhere in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// At the time of the line before.
    Now,
    /// So long after the line before.
    After(u64, u64),
    /// So long after the beginning.
    At(u64, u64),
}

/// What a line does.
#[derive(Debug)]
pub(crate) enum What {
    /// A segment of the peer; `hold`: the batch goes on.
    In {
        flow: String,
        hold: bool,
        seg: Box<Seg>,
    },
    /// A segment of the engine.
    Out { flow: String, seg: Box<Seg> },
    /// Whatever the engine sent by now.
    OutRest,
    /// A call or an assertion; `socket` is the name it is about.
    Call {
        socket: String,
        call: Call,
        /// The errno expected.
        error: Option<String>,
        /// Only while nothing is killed between the lines.
        strict: bool,
    },
}

/// What is wrong with a file, and where.
#[derive(Debug)]
pub(crate) struct Malformed {
    pub(crate) line: usize,
    pub(crate) why: String,
}

type Parsed<T> = Result<T, String>;

impl Script {
    /// Reads a file.
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        let head: Vec<&str> = text.lines().take(2).collect();
        let is_head = |line: Option<&&str>| line.is_some_and(|l| l.starts_with("# "));
        if !is_head(head.first()) {
            let why = "the first line is the title: `# What is shown`".to_owned();
            return Err(Malformed { line: 1, why });
        }
        if !is_head(head.get(1)) {
            let why = "the second line says why: `# RFC 9293 3.5`".to_owned();
            return Err(Malformed { line: 2, why });
        }
        let mut lines = vec![];
        for (index, whole) in text.lines().enumerate() {
            let number = index + 1;
            let code = whole.split_once("//").map_or(whole, |(code, _)| code);
            let code = code.trim();
            if code.is_empty() || code.starts_with('#') {
                continue;
            }
            let (when, what) = line(code).map_err(|why| Malformed { line: number, why })?;
            let text = whole.trim().to_owned();
            lines.push(Line {
                number,
                text,
                when,
                what,
            });
        }
        Ok(Self { lines })
    }
}

fn line(code: &str) -> Parsed<(When, What)> {
    let (when, rest) = when(code)?;
    Ok((when, what(rest)?))
}

fn when(code: &str) -> Parsed<(When, &str)> {
    let (first, rest) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
    let after = first.strip_prefix('+');
    let number = after.unwrap_or(first);
    if !number.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Ok((When::Now, code));
    }
    let (from, to) = match number.split_once('~') {
        Some((from, to)) => (duration(from)?, duration(to)?),
        None => (duration(number)?, duration(number)?),
    };
    if from > to {
        return Err(format!("`{first}` ends before it begins"));
    }
    let rest = rest.trim_start();
    if rest.is_empty() {
        return Err("a time without anything to do (perhaps `wait`)".to_owned());
    }
    let when = match after {
        Some(_) => When::After(from, to),
        None => When::At(from, to),
    };
    Ok((when, rest))
}

fn what(code: &str) -> Parsed<What> {
    let (first, rest) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
    let rest = rest.trim();
    if let Some(flow) = first.strip_suffix("<<") {
        return incoming(flow, true, rest);
    }
    if let Some(flow) = first.strip_suffix('<') {
        return incoming(flow, false, rest);
    }
    if let Some(flow) = first.strip_suffix('>') {
        if rest == "..." {
            return Ok(What::OutRest);
        }
        let seg = Box::new(Seg::parse(rest, true)?);
        let flow = flow.to_owned();
        return Ok(What::Out { flow, seg });
    }
    let (strict, code) = match code.strip_prefix("strict ") {
        Some(rest) => (true, rest.trim_start()),
        None => (false, code),
    };
    let (code, error) = match code.rsplit_once(" = E") {
        Some((code, error)) => (code.trim(), Some(format!("E{}", error.trim()))),
        None => (code, None),
    };
    let (verb, args) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
    let (socket, verb) = verb.split_once('.').unwrap_or(("s", verb));
    Ok(What::Call {
        socket: socket.to_owned(),
        call: Call::parse(verb, args.trim())?,
        error,
        strict,
    })
}

fn incoming(flow: &str, hold: bool, rest: &str) -> Parsed<What> {
    Ok(What::In {
        flow: flow.to_owned(),
        hold,
        seg: Box::new(Seg::parse(rest, false)?),
    })
}
