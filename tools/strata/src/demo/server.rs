//! A plain HTTP/1.1 server on the kernel's own sockets: the peer of the demonstration.
//!
//! `GET /SEED/LENGTH` answers that many bytes of [`Bytes`]; `PUT /` takes a body and answers its
//! SHA-256. One thread a connection, one request a connection.

use super::bytes::Bytes;
use crate::commands::fetch::hex;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// The header in which the server says how long it got no data at the most, in microseconds.
pub const SILENCE: &str = "X-Longest-Silence";

/// The longest time between two arrivals of data.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silence {
    last: Option<Instant>,
    longest: Duration,
}

impl Silence {
    /// Data has come; how long there was none.
    pub fn broken(&mut self) -> Duration {
        let now = Instant::now();
        let lasted = self
            .last
            .replace(now)
            .map_or(Duration::ZERO, |last| now - last);
        self.longest = self.longest.max(lasted);
        lasted
    }

    /// The receiver itself takes nothing for a while: the time until data comes next means
    /// nothing.
    pub fn pause(&mut self) {
        self.last = None;
    }

    /// The longest time so far; none before the first data counts.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }
}

/// Serves until the process ends.
///
/// # Errors
/// When the address cannot be listened on.
pub fn serve(address: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("the peer cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    thread::Builder::new()
        .name("http-peer".to_owned())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                // A connection that fails is the client's to notice.
                let _ = thread::Builder::new()
                    .name("http".to_owned())
                    .spawn(move || answer(&stream));
            }
        })?;
    Ok(address)
}

fn answer(stream: &TcpStream) -> Result<()> {
    let mut reader = BufReader::with_capacity(256 * 1024, stream);
    let mut line = String::new();
    reader.by_ref().take(4096).read_line(&mut line)?;
    let mut words = line.split_ascii_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut length = 0u64;
    loop {
        let mut header = String::new();
        reader.by_ref().take(4096).read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    match method {
        "GET" => send_body(stream, path),
        "PUT" => {
            let (digest, silence) = digest_of(&mut reader, length)?;
            let mut out = stream;
            write!(
                out,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{SILENCE}: {}\r\nConnection: close\r\n\r\n\
                 {digest}",
                digest.len(),
                silence.as_micros()
            )?;
            Ok(())
        }
        other => bail!("method {other} is not served"),
    }
}

fn send_body(mut stream: &TcpStream, path: &str) -> Result<()> {
    let mut parts = path.trim_start_matches('/').split('/');
    let seed = parts.next().unwrap_or("").parse()?;
    let mut left: u64 = parts.next().unwrap_or("").parse()?;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {left}\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Bytes::new(seed);
    let mut buffer = vec![0; 256 * 1024];
    while left > 0 {
        let n = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let Some(piece) = buffer.get_mut(..n) else {
            break;
        };
        bytes.fill(piece);
        stream.write_all(piece)?;
        left -= n as u64;
    }
    Ok(())
}

fn digest_of(reader: &mut impl Read, length: u64) -> Result<(String, Duration)> {
    let mut silence = Silence::default();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut left = length;
    while left > 0 {
        let n = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let Some(place) = buffer.get_mut(..n) else {
            break;
        };
        let got = reader.read(place)?;
        if got == 0 {
            bail!("the body ended {left} bytes early");
        }
        silence.broken();
        hash.update(place.get(..got).unwrap_or_default());
        left -= got as u64;
    }
    Ok((hex(&hash.finalize()), silence.longest()))
}
