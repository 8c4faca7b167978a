//! `strata counters`: what the layers count.

use super::{ask, table};
use crate::admin::{Answer, Request};
use crate::cli::Cli;

/// `strata counters [LAYER]`.
pub(super) fn counters(cli: &Cli, layer: Option<&str>, zero: bool) -> anyhow::Result<()> {
    let Answer::Table { columns, rows } = ask(cli, &Request::Counters)? else {
        return Ok(());
    };
    let wanted = |row: &Vec<String>| {
        let of_layer = layer.is_none_or(|layer| {
            let name = row.first().map_or("", String::as_str);
            let (role, device) = name.split_once('@').unwrap_or((name, ""));
            layer == name || layer == role || layer == device
        });
        of_layer && (zero || row.get(2).is_none_or(|value| value != "0"))
    };
    let rows: Vec<_> = rows.into_iter().filter(wanted).collect();
    let columns: Vec<_> = columns.iter().map(String::as_str).collect();
    if cli.json {
        return table::print_json(&table::json(&columns, &rows));
    }
    print!("{}", table::render(&columns, &rows));
    Ok(())
}
