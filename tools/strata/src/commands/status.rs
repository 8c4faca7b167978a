//! `strata status`: the layers, and what they know.

use super::{ask, rundir, table};
use crate::admin::{Answer, DaemonState, DaemonStatus, Request, Status, call};
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
            .filter(|daemon| daemon.state == DaemonState::Running);
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
        "layer", "pid", "spare", "state", "uptime", "restarts", "cpu", "sleeps", "wakes", "pool",
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
            text.push_str(&prospects(daemon));
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

/// What comes after a death: nothing to say of one that runs again.
fn prospects(daemon: &DaemonStatus) -> String {
    let streak = match daemon.streak {
        0 | 1 => String::new(),
        n => format!("; {n} deaths in a row"),
    };
    match daemon.state {
        DaemonState::Waiting => {
            let wait = daemon.starts_in_ms.unwrap_or(0);
            format!("{streak}; started again in {}", table::time(wait))
        }
        DaemonState::Starting => format!("{streak}; being started again"),
        DaemonState::Failed => format!(
            "{streak}; given up on: `strata restart {}` tries again",
            daemon.name
        ),
        DaemonState::Running | DaemonState::Draining | DaemonState::Down => String::new(),
    }
}

fn row(daemon: &DaemonStatus) -> Vec<String> {
    let counter = |name: &str| {
        let found = daemon.counters.iter().find(|(counter, _)| counter == name);
        found.map_or(0, |(_, value)| *value).to_string()
    };
    vec![
        daemon.name.clone(),
        or_dash(daemon.pid.map(|pid| pid.to_string())),
        or_dash(daemon.spare.map(|pid| pid.to_string())),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Quarantined;

    fn daemon(state: DaemonState) -> DaemonStatus {
        let lives = !matches!(
            state,
            DaemonState::Waiting | DaemonState::Failed | DaemonState::Down
        );
        DaemonStatus {
            name: "tcpd".to_owned(),
            pid: lives.then_some(7),
            spare: lives.then_some(8),
            state,
            uptime_ms: (state == DaemonState::Running).then_some(1500),
            restarts: 6,
            last_death: Some("killed by SIGSEGV".to_owned()),
            streak: 6,
            starts_in_ms: (state == DaemonState::Waiting).then_some(800),
            cpu_ms: 1230,
            turns: 5,
            counters: Vec::new(),
            pool_used: 1,
            pool_slots: 10,
            stored: 0,
            owns: Vec::new(),
        }
    }

    fn lines(state: DaemonState) -> (String, String) {
        let status = Status {
            name: "lab".to_owned(),
            pid: 1,
            keeper: None,
            uptime_ms: 2000,
            run_dir: "/run/lab".to_owned(),
            daemons: vec![daemon(state)],
            quarantined: Vec::new(),
        };
        let text = render(&status);
        let line = |begin: &str| {
            let mut all = text.lines().filter(|line| line.starts_with(begin));
            all.next().unwrap_or_default().to_owned()
        };
        (line("tcpd "), line("tcpd died"))
    }

    #[test]
    fn each_state_says_what_comes_next() {
        let died = "tcpd died last of: killed by SIGSEGV";
        let cases = [
            (DaemonState::Running, "running", ""),
            (DaemonState::Draining, "draining", ""),
            (DaemonState::Down, "down", ""),
            (
                DaemonState::Starting,
                "starting",
                "; 6 deaths in a row; being started again",
            ),
            (
                DaemonState::Waiting,
                "waiting",
                "; 6 deaths in a row; started again in 800ms",
            ),
            (
                DaemonState::Failed,
                "failed",
                "; 6 deaths in a row; given up on: `strata restart tcpd` tries again",
            ),
        ];
        for (state, name, next) in cases {
            let (row, death) = lines(state);
            assert!(row.split_whitespace().any(|word| word == name), "{row}");
            assert_eq!(death, format!("{died}{next}"));
        }
    }

    #[test]
    fn what_is_quarantined_is_shown_with_its_file() {
        let status = Status {
            name: "lab".to_owned(),
            pid: 1,
            keeper: Some(2),
            uptime_ms: 2000,
            run_dir: "/run/lab".to_owned(),
            daemons: Vec::new(),
            quarantined: vec![Quarantined {
                layer: "ipd".to_owned(),
                what: "UDP 10.0.0.1:5 to 10.0.0.2:6".to_owned(),
                crashes: 3,
                for_ms: 61_000,
                file: Some("x.pcapng".to_owned()),
            }],
        };
        let text = render(&status);
        let line = "quarantined for 1min 1s: UDP 10.0.0.1:5 to 10.0.0.2:6, at work in 3 crashes \
                    of ipd; see x.pcapng\n";
        assert!(text.ends_with(line), "{text}");
    }
}
