//! As much of HTTP/1.1 as a download takes (RFC 9112): one GET, a body by length, in chunks or
//! until the connection closes. Over anything that reads and writes.

#[cfg(test)]
mod tests;

use std::io::{self, BufRead, BufReader, Read, Write};

/// Longest response head in bytes, and longest line of a chunked body.
const MAX_HEAD: u64 = 64 * 1024;

/// Bytes read at a time.
const BUFFER: usize = 256 * 1024;

/// An `http` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Host: an address (IPv6 ones without their brackets) or a name.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query, beginning with `/`.
    pub path: String,
}

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not a URL that can be fetched.
    #[error("`{url}`: {why}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server does not speak HTTP/1.
    #[error("not an HTTP/1 response: {0}")]
    Malformed(&'static str),
    /// The server says no.
    #[error("the server says {status}{}", .location.as_ref().map(|l| format!(" (it moved to {l})")).unwrap_or_default())]
    Status {
        /// Status code and reason.
        status: String,
        /// Where it moved to, for redirects.
        location: Option<String>,
    },
    /// The connection closed before the body was complete.
    #[error("the connection closed after {got} of {expected} bytes")]
    Short {
        /// Bytes received.
        got: u64,
        /// Bytes promised.
        expected: u64,
    },
}

impl Url {
    /// Parses `http://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// [`HttpError::Url`].
    pub fn parse(url: &str) -> Result<Self, HttpError> {
        let wrong = |why| HttpError::Url {
            url: url.to_owned(),
            why,
        };
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(wrong("https is not there yet (no TLS); use an http URL"));
            }
            Some(_) => return Err(wrong("only http URLs can be fetched")),
            None => url,
        };
        let rest = rest.split('#').next().unwrap_or(rest);
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        if path.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(wrong("a space or control character must be written as %XX"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => match v6.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or(port))),
                None => return Err(wrong("`[` without `]`")),
            },
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            Some(port) => port
                .parse()
                .map_err(|_| wrong("the port is not a number up to 65535"))?,
            None => 80,
        };
        if host.is_empty() || host.contains(['@', ' ', ':']) && !host.contains("::") {
            return Err(wrong(
                "there is no host in it; write http://ADDRESS[:PORT]/PATH",
            ));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            path,
        })
    }

    /// The `Host` header (RFC 9110 7.2).
    fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match self.port {
            80 => host,
            port => format!("{host}:{port}"),
        }
    }
}

/// How a body ends (RFC 9112 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// A response whose body has not been read yet.
#[derive(Debug)]
pub struct Response<S> {
    reader: BufReader<S>,
    framing: Framing,
}

/// Requests `url` over `stream`, and reads the head of the response.
///
/// # Errors
/// [`HttpError`]; a status that is not 2xx among them.
pub fn get<S: Read + Write>(mut stream: S, url: &Url) -> Result<Response<S>, HttpError> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: strata/{}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        url.path,
        url.authority(),
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut reader = BufReader::with_capacity(BUFFER, stream);
    loop {
        let head = Head::read(&mut reader)?;
        // RFC 9110 15.2: interim responses may come before the final one.
        if !head.status.starts_with('1') {
            let framing = head.framing()?;
            return Ok(Response { reader, framing });
        }
    }
}

struct Head {
    status: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> Result<Self, HttpError> {
        let mut reader = reader.take(MAX_HEAD);
        let first = line(&mut reader)?;
        let status = first
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split_once(' '))
            .map(|(_, status)| status.to_owned())
            .filter(|status| {
                status
                    .get(..3)
                    .is_some_and(|code| code.parse::<u16>().is_ok())
            })
            .ok_or(HttpError::Malformed("no status line"))?;
        let mut headers = Vec::new();
        loop {
            let line = line(&mut reader)?;
            if line.is_empty() {
                return Ok(Self { status, headers });
            }
            let (name, value) = line
                .split_once(':')
                .ok_or(HttpError::Malformed("a header without a colon"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name);
        values.next().map(|(_, value)| value.as_str())
    }

    fn framing(&self) -> Result<Framing, HttpError> {
        if !self.status.starts_with('2') {
            return Err(HttpError::Status {
                status: self.status.clone(),
                location: self.header("location").map(str::to_owned),
            });
        }
        if self.status.starts_with("204") {
            return Ok(Framing::Length(0));
        }
        // RFC 9112 6.3: Transfer-Encoding overrides Content-Length.
        if let Some(encoding) = self.header("transfer-encoding") {
            return if encoding.eq_ignore_ascii_case("chunked") {
                Ok(Framing::Chunked)
            } else {
                Err(HttpError::Malformed("an unknown transfer encoding"))
            };
        }
        match self.header("content-length") {
            Some(length) => length
                .parse()
                .map(Framing::Length)
                .map_err(|_| HttpError::Malformed("a length that is no number")),
            None => Ok(Framing::UntilClose),
        }
    }
}

impl<S: Read> Response<S> {
    /// Bytes of the body, if the server said.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }

    /// Gives the body to `sink`, piece by piece. How many bytes it had.
    ///
    /// # Errors
    /// [`HttpError`]; also what `sink` fails with.
    pub fn body(mut self, mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> Result<u64, HttpError> {
        match self.framing {
            Framing::Length(expected) => {
                let got = copy(&mut self.reader, expected, &mut sink)?;
                if got < expected {
                    return Err(HttpError::Short { got, expected });
                }
                Ok(got)
            }
            Framing::UntilClose => Ok(copy(&mut self.reader, u64::MAX, &mut sink)?),
            Framing::Chunked => chunked(&mut self.reader, &mut sink),
        }
    }
}

/// Gives up to `limit` bytes to `sink` without another copy; how many there were.
fn copy(
    reader: &mut impl BufRead,
    limit: u64,
    sink: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let mut got = 0;
    while got < limit {
        let piece = match reader.fill_buf() {
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if piece.is_empty() {
            break;
        }
        let room = usize::try_from(limit - got).unwrap_or(usize::MAX);
        let piece = piece.get(..room.min(piece.len())).unwrap_or(piece);
        sink(piece)?;
        let len = piece.len();
        reader.consume(len);
        got += len as u64;
    }
    Ok(got)
}

/// RFC 9112 7.1.
fn chunked(
    reader: &mut impl BufRead,
    sink: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<u64, HttpError> {
    let mut all: u64 = 0;
    loop {
        let size = line(&mut reader.take(MAX_HEAD))?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16)
            .map_err(|_| HttpError::Malformed("a chunk without a size"))?;
        if size == 0 {
            while !line(&mut reader.take(MAX_HEAD))?.is_empty() {}
            return Ok(all);
        }
        let got = copy(reader, size, sink)?;
        all = all.saturating_add(got);
        if got < size {
            let expected = all.saturating_add(size - got);
            return Err(HttpError::Short { got: all, expected });
        }
        if !line(&mut reader.take(MAX_HEAD))?.is_empty() {
            return Err(HttpError::Malformed("a chunk longer than its size"));
        }
    }
}

fn line(reader: &mut impl BufRead) -> Result<String, HttpError> {
    let mut bytes = Vec::new();
    reader.read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(HttpError::Malformed(
            "it ends, or is too long, within a line",
        ));
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| HttpError::Malformed("a line that is no text"))
}
