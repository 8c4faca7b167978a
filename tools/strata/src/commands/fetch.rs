//! `strata fetch`: an HTTP download over the stack.

use super::{rundir, table};
use crate::cli::{Cli, Fetch};
use crate::http::{self, HttpError, Url};
use anyhow::Context;
use core::time::Duration;
use indicatif::{ProgressBar, ProgressStyle};
use libsocket::{Stack, TcpStream};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::net::ToSocketAddrs;
use std::time::Instant;

/// What was downloaded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Bytes of the body.
    pub bytes: u64,
    /// Seconds from the connection to the last byte.
    pub seconds: f64,
    /// Bits of the body in a second.
    pub bits_per_second: f64,
    /// SHA-256 of the body in hexadecimal, if it was wanted.
    pub sha256: Option<String>,
}

/// `strata fetch URL`.
pub(super) fn fetch(cli: &Cli, arguments: &Fetch) -> anyhow::Result<()> {
    let url = Url::parse(&arguments.url).map_err(|error| super::Usage(error.to_string()))?;
    let stack = Stack::open(rundir(cli)?.path());
    let stream = connect(&stack, &url, arguments.timeout.0)
        .with_context(|| format!("cannot connect to {}, port {}", url.host, url.port))?;
    let mut sink: Box<dyn Write> = match &arguments.output {
        Some(path) => Box::new(
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
        ),
        None if cli.json => Box::new(io::sink()),
        None => Box::new(io::stdout().lock()),
    };
    let bar = progress(arguments.quiet || !io::stderr().is_terminal());
    let summary = download(stream, &url, &mut sink, arguments.sha256, &bar)
        .with_context(|| arguments.url.clone());
    bar.finish_and_clear();
    let summary = summary?;
    sink.flush()?;
    if cli.json {
        return table::print_json(&summary);
    }
    if !arguments.quiet {
        eprintln!(
            "{} bytes in {:.2} s ({:.2} Gbit/s)",
            summary.bytes,
            summary.seconds,
            summary.bits_per_second / 1e9
        );
    }
    if let Some(digest) = &summary.sha256 {
        match &arguments.output {
            Some(path) => println!("{digest}  {}", path.display()),
            None => eprintln!("{digest}  -"),
        }
    }
    Ok(())
}

/// Connects to the server of `url`. Names are resolved by the system, addresses need nothing.
fn connect(stack: &Stack, url: &Url, timeout: Duration) -> anyhow::Result<TcpStream> {
    let addresses = (url.host.as_str(), url.port)
        .to_socket_addrs()
        .context("the stack resolves no names yet, and the system does not know this one")?;
    let mut last = None;
    for address in addresses {
        match stack.connect_timeout(address, timeout) {
            Ok(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error.into()),
        None => anyhow::bail!("it has no address"),
    }
}

/// Downloads `url` over `stream` into `sink`, hashing on the way if `hash`, and moving `bar`.
///
/// # Errors
/// [`HttpError`].
pub fn download<S: io::Read + Write>(
    stream: S,
    url: &Url,
    sink: &mut impl Write,
    hash: bool,
    bar: &ProgressBar,
) -> Result<Summary, HttpError> {
    let begin = Instant::now();
    let response = http::get(stream, url)?;
    if let Some(length) = response.length() {
        bar.set_length(length);
    }
    let mut digest = hash.then(Sha256::new);
    let bytes = response.body(|piece| {
        if let Some(digest) = &mut digest {
            digest.update(piece);
        }
        bar.inc(piece.len() as u64);
        sink.write_all(piece)
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    #[allow(
        clippy::cast_precision_loss,
        reason = "a rate for people; 53 bits are plenty"
    )]
    let bits = bytes as f64 * 8.0;
    Ok(Summary {
        bytes,
        seconds,
        bits_per_second: bits / seconds.max(1e-9),
        sha256: digest.map(|digest| hex(&digest.finalize())),
    })
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A progress bar of bytes on standard error, or none.
#[must_use]
pub fn progress(hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{bar:32} {percent:>3}% {binary_bytes:>11} of {binary_total_bytes} \
         {binary_bytes_per_sec} {eta}",
    );
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
