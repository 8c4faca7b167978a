//! `strata status`: the layers, and what they know.

use super::{ask, rundir, table};
use crate::admin::{Answer, DaemonStatus, Request, Status, call};
use crate::cli::{Cli, StatusArgs};
use crate::rundir::RunDir;
use abi::control::Query;
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// `strata status`.
pub(super) fn status(cli: &Cli, arguments: &StatusArgs) -> anyhow::Result<()> {
    if arguments.all {
        return all(cli);
    }
    let mut queries = Vec::new();
    if arguments.sockets {
        queries.push(("sockets", Query::Sockets, &["tcpd", "udpd"][..]));
    }
    if arguments.neighbours {
        queries.push(("neighbours", Query::Neighbours, &["ipd"][..]));
    }
    if arguments.routes {
        queries.push(("routes", Query::Routes, &["ipd"][..]));
    }
    if !queries.is_empty() {
        return tables(cli, &queries);
    }
    if arguments.counters {
        return super::counters::counters(cli, None, false);
    }
    if let Answer::Status(status) = ask(cli, &Request::Status)? {
        if cli.json {
            return table::print_json(&status);
        }
        print!("{}", render(&status));
    }
    Ok(())
}

fn tables(cli: &Cli, queries: &[(&str, Query, &[&str])]) -> anyhow::Result<()> {
    let mut object = Map::new();
    let mut printed = false;
    for (name, what, layers) in queries {
        let mut all = Vec::new();
        let mut empty = true;
        for layer in *layers {
            let request = Request::Query {
                layer: (*layer).to_owned(),
                what: *what,
            };
            let Answer::Table { columns, rows } = ask(cli, &request)? else {
                continue;
            };
            let columns: Vec<_> = columns.iter().map(String::as_str).collect();
            if cli.json {
                if let Value::Array(rows) = table::json(&columns, &rows) {
                    all.extend(rows);
                }
            } else if !rows.is_empty() {
                if core::mem::replace(&mut printed, true) {
                    println!();
                }
                empty = false;
                print!("{}", table::render(&columns, &rows));
            }
        }
        if !cli.json && empty {
            println!("no {name}");
            printed = true;
        }
        object.insert((*name).to_owned(), Value::Array(all));
    }
    if cli.json {
        table::print_json(&object)?;
    }
    Ok(())
}

/// Every constellation of this user, one line each.
fn all(cli: &Cli) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for name in RunDir::names() {
        let Ok(Answer::Status(status)) = call(&RunDir::of(&name)?, &Request::Status) else {
            continue;
        };
        let running = status
            .daemons
            .iter()
            .filter(|daemon| daemon.state == crate::admin::DaemonState::Running);
        rows.push(vec![
            status.name.clone(),
            status.pid.to_string(),
            format!("{} of {}", running.count(), status.daemons.len()),
            table::time(status.uptime_ms),
        ]);
    }
    let columns = ["name", "supervisor", "running", "uptime"];
    if cli.json {
        return table::print_json(&table::json(&columns, &rows));
    }
    if rows.is_empty() {
        println!("no constellation is running");
    } else {
        print!("{}", table::render(&columns, &rows));
    }
    // The directory is looked at even for a wrong `--name`, which is an error all the same.
    rundir(cli).map(|_| ())
}

/// A constellation's layers as a table, with what went wrong below.
#[must_use]
pub(super) fn render(status: &Status) -> String {
    let columns = [
        "layer", "pid", "state", "uptime", "restarts", "cpu", "sleeps", "wakes", "pool",
    ];
    let rows: Vec<_> = status.daemons.iter().map(row).collect();
    let mut text = format!(
        "constellation {}, up {} (supervisor {}, keeper {}, {})\n\n",
        status.name,
        table::time(status.uptime_ms),
        status.pid,
        or_dash(status.keeper.map(|pid| pid.to_string())),
        status.run_dir
    );
    text.push_str(&table::render(&columns, &rows));
    for daemon in &status.daemons {
        if let Some(death) = &daemon.last_death {
            let _ = write!(text, "\n{} died last of: {death}", daemon.name);
        }
    }
    for held in &status.quarantined {
        let _ = write!(
            text,
            "\nquarantined for {}: {}, at work in {} crashes of {}{}",
            table::time(held.for_ms),
            held.what,
            held.crashes,
            held.layer,
            held.file
                .as_ref()
                .map_or_else(String::new, |file| format!("; see {file}"))
        );
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn row(daemon: &DaemonStatus) -> Vec<String> {
    let counter = |name: &str| {
        let found = daemon.counters.iter().find(|(counter, _)| counter == name);
        found.map_or(0, |(_, value)| *value).to_string()
    };
    vec![
        daemon.name.clone(),
        or_dash(daemon.pid.map(|pid| pid.to_string())),
        daemon.state.name().to_owned(),
        or_dash(daemon.uptime_ms.map(table::time)),
        daemon.restarts.to_string(),
        format!("{}.{:02}s", daemon.cpu_ms / 1000, daemon.cpu_ms % 1000 / 10),
        counter("rt_to_interrupt"),
        counter("rt_to_polling"),
        format!("{} of {}", daemon.pool_used, daemon.pool_slots),
    ]
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}
