//! The page: tables in Markdown and plots in SVG, made of what was measured.

use super::cells::{Cell, Way};
use super::fair::Shares;
use super::plot::{self, SEQUENCE, WINDOW};
use super::table::{Row, Spread};
use super::transfer::Outcome;
use anyhow::{Context, Result};
use nix::sys::utsname::uname;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What is demanded of every cell.
pub(super) const GOAL: f64 = 0.9;

/// Everything that goes onto the page.
#[derive(Debug)]
pub(super) struct Results<'a> {
    pub(super) congestion: &'a str,
    pub(super) seconds: u64,
    pub(super) rows: &'a [Row],
    pub(super) fair_seconds: u64,
    pub(super) shares: &'a [Shares],
    /// Cells whose curves are shown, with a pair of transfers each.
    pub(super) curves: &'a [(Cell, [Outcome; 2])],
}

/// Writes `RESULTS.md` and `results/*.svg` in a directory.
pub(super) fn write(directory: &Path, results: &Results<'_>) -> Result<()> {
    let plots = directory.join("results");
    fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    let mut text = conditions(results);
    text.push_str(&table(results.rows));
    text.push_str(&sharing(results));
    text.push_str(
        "\n## Over time\n\nWhat `TCP_INFO` of the sender said, 50 times a second; ours sends.\n",
    );
    let mut draw = |name: String, title: &str, curve, pair: &[Outcome; 2]| -> Result<()> {
        let file = plots.join(&name);
        fs::write(&file, plot::draw(title, curve, pair)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let _ = writeln!(text, "\n![{title}](results/{name})");
        Ok(())
    };
    for (cell, pair) in results.curves {
        let (slug, title) = (cell.slug(), cell.to_string());
        draw(format!("{slug}-cwnd.svg"), &title, &WINDOW, pair)?;
        draw(format!("{slug}-sequence.svg"), &title, &SEQUENCE, pair)?;
    }
    if let Some((shares, pair)) = results
        .shares
        .get(results.shares.len() / 2)
        .and_then(|shares| Some((shares, shares.pairs.first()?)))
    {
        let title = format!("{}, one of each", shares.cell);
        draw("shared-cwnd.svg".to_owned(), &title, &WINDOW, pair)?;
        draw("shared-sequence.svg".to_owned(), &title, &SEQUENCE, pair)?;
    }
    let page = directory.join("RESULTS.md");
    fs::write(&page, text).with_context(|| format!("cannot write {}", page.display()))
}

fn conditions(results: &Results<'_>) -> String {
    let release = uname().map_or_else(
        |_| "of unknown release".to_owned(),
        |name| name.release().to_string_lossy().into_owned(),
    );
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let congestion = results.congestion;
    let seconds = results.seconds;
    let rows = results.rows;
    let reached = rows.iter().filter(|row| row.ratio().median >= GOAL).count();
    format!(
        "# TCP over bad links, beside Linux\n\n\
         Made by `cargo compare --page tcpd`; do not edit. Goodput of Strata's TCP by goodput of \
         Linux's over the same emulated link in the same run: at least {GOAL} in **{reached} of \
         {} rows**.\n\n\
         {}- Linux {release}, {cores} processors. Every socket has {congestion}, set before it \
         connects. Linux's metrics cache is off; its other settings are its defaults.\n\
         - Strata and a Linux namespace are connected through one link emulator \
         (`strata::link`, the model of `strata impair`) to a second Linux namespace, the peer of \
         both. No interface has offloads: what crosses the link are packets of 1,500 bytes.\n\
         - A row is one link and one way. *sends*: Strata connects and sends to Linux. \
         *receives*: Linux connects and sends to Strata. Beside it Linux does the same.\n\
         - Transfers of {seconds} s from the moment when both ends have the connection, slow start \
         included. Those of a pair have the same seed: the same frames of the same number are lost. \
         Pairs that take little of the processor go at once, each over a link of its own; the \
         others take turns. Queues shorter than a quarter of the path take turns always, for a \
         transfer beside them makes bursts of a millisecond.\n\
         - Loss strikes data and acknowledgements alike, unless noted. The queue holds what waits \
         for the rate, in frames; where not noted the product of rate and round trip, 50 at the \
         least.\n\
         - Every byte is compared where it arrives, and every transfer is carried to its end over \
         the then healed link: a difference or a hang would have failed the run.\n\
         - Rates are low enough for the processors. Lossy links are noisy: where the pairs' ratios \
         differ by more than a tenth, whatever they are, there are more pairs, up to four times as \
         many. The median of their ratios counts, and the range is shown.\n",
        rows.len(),
        commit().map_or_else(String::new, |commit| format!(
            "- Measured at commit {commit}.\n"
        )),
    )
}

/// The commit of the working directory, as `git` names it, if there is one; `-dirty` follows where
/// something is changed. The caller's directory is the project's, as `cargo compare` runs there.
fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["--no-optional-locks", "describe", "--always", "--dirty"])
        .args(["--exclude=*", "--abbrev=12"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let name = String::from_utf8(output.stdout).ok()?;
    let name = name.trim();
    (output.status.success() && !name.is_empty()).then(|| name.to_owned())
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n## Goodput\n\n\
         | link | queue | ours | Strata Mbit/s | Linux Mbit/s | ratio | range | pairs | resent, RTOs: Strata | Linux |\n\
         |---|--:|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        let ratio = row.ratio();
        let bold = if ratio.median < GOAL { "**" } else { "" };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {bold}{:.2}{bold} | {:.2} to {:.2} | {} | {} | {} |",
            row.cell,
            row.cell.frames(),
            row.way,
            rate(row.mbps(0)),
            rate(row.mbps(1)),
            ratio.median,
            ratio.min,
            ratio.max,
            row.pairs.len(),
            repairs(row, 0),
            repairs(row, 1),
        );
    }
    text
}

fn rate(spread: Spread) -> String {
    match spread.median {
        small if small < 1.0 => format!("{small:.3}"),
        large => format!("{large:.1}"),
    }
}

/// Segments sent again and timeouts, of all transfers of one side together.
fn repairs(row: &Row, which: usize) -> String {
    let outcomes = || row.pairs.iter().filter_map(|pair| pair.get(which));
    let resent: u64 = outcomes().map(|o| u64::from(o.info.retransmitted)).sum();
    let timeouts: u64 = outcomes().map(|o| u64::from(o.info.timeouts)).sum();
    format!("{resent}, {timeouts}")
}

fn sharing(results: &Results<'_>) -> String {
    if results.shares.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\n## Sharing a bottleneck\n\n\
         One connection of Strata's and one of Linux's send to the same peer through one queue for \
         {} s, both with {}. Jain's index is 1 when both get the same and 0.5 when one gets all; \
         median and least of the repetitions, of the whole time and of its second half.\n\n\
         | link | queue | Strata Mbit/s | Linux Mbit/s | Jain | least | second half | least |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
        results.fair_seconds, results.congestion
    );
    for shares in results.shares {
        let (jain, late) = (shares.jain(), shares.late_jain());
        let bold = if jain.median < GOAL { "**" } else { "" };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {bold}{:.2}{bold} | {:.2} | {:.2} | {:.2} |",
            shares.cell,
            shares.cell.frames(),
            rate(shares.mbps(0)),
            rate(shares.mbps(1)),
            jain.median,
            jain.min,
            late.median,
            late.min
        );
    }
    text
}

/// Which way the curves are of.
pub(super) const CURVES: Way = Way::Sends;
