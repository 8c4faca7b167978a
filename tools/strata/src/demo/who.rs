//! Who is running: process, number, what it owns.

use crate::commands::table;
use crate::lab::Lab;
use anyhow::Result;

/// The supervisor, its daemons and this process as a table.
pub(super) fn table(lab: &Lab) -> Result<String> {
    let status = lab.status()?;
    let mut rows = Vec::new();
    for daemon in status.daemons.iter().rev() {
        let pid = daemon
            .pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let mut name = daemon.name.clone();
        // One line for each thing owned; the name stands on the first.
        let mut pid = Some(pid);
        for thing in &daemon.owns {
            rows.push(vec![
                core::mem::take(&mut name),
                pid.take().unwrap_or_default(),
                thing.clone(),
            ]);
        }
    }
    rows.push(vec![
        "supervisor".to_owned(),
        status.pid.to_string(),
        "all shared memory, doorbells, devices and listening sockets".to_owned(),
    ]);
    rows.push(vec![
        "this process".to_owned(),
        std::process::id().to_string(),
        "the application (libsocket) and its peer (kernel sockets)".to_owned(),
    ]);
    Ok(table::render(&["process", "pid", "owns"], &rows))
}
