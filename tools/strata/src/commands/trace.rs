//! `strata trace`: the path of packets, layer by layer, with times.

use super::{ask, table};
use crate::admin::{Answer, Request};
use crate::cli::Cli;
use core::time::Duration;

/// `strata trace`.
pub(super) fn trace(cli: &Cli, wait: Duration, packets: u32) -> anyhow::Result<()> {
    ask(cli, &Request::Trace { packets })?;
    std::thread::sleep(wait);
    let traced = ask(cli, &Request::Traces)?;
    ask(cli, &Request::Trace { packets: 0 })?;
    let Answer::Table { columns, rows } = traced else {
        return Ok(());
    };
    let mut names: Vec<_> = columns.iter().map(String::as_str).collect();
    if cli.json {
        return table::print_json(&table::json(&names, &rows));
    }
    // People want to know how long after the first; programs get the clock's own time.
    let at = |row: &Vec<String>| row.first().and_then(|cell| cell.parse::<u64>().ok());
    let begin = rows.first().and_then(at).unwrap_or(0);
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| {
            let after = at(&row).unwrap_or(begin).saturating_sub(begin);
            let time = format!("{}.{:03}us", after / 1000, after % 1000);
            core::iter::once(time)
                .chain(row.into_iter().skip(1))
                .collect()
        })
        .collect();
    if let Some(first) = names.first_mut() {
        *first = "after";
    }
    print!("{}", table::render(&names, &rows));
    Ok(())
}
