//! Tables for people and for programs.

use serde_json::{Map, Value};
use std::fmt::Write as _;

/// Renders rows under their headings: columns as wide as they must be, two spaces between,
/// numbers to the right.
#[must_use]
pub fn render(columns: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |row: &[String], at: usize| row.get(at).cloned().unwrap_or_default();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let cells = rows.iter().map(|row| cell(row, at).chars().count());
            cells.chain([name.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let numeric: Vec<bool> = (0..columns.len())
        .map(|at| {
            !rows.is_empty()
                && rows.iter().all(|row| {
                    let cell = cell(row, at);
                    cell == "-"
                        || cell.starts_with(|c: char| c.is_ascii_digit())
                            && !cell.contains([':', '/'])
                })
        })
        .collect();
    let heading: Vec<String> = columns.iter().map(|name| name.to_uppercase()).collect();
    let mut text = String::new();
    for row in core::iter::once(&heading).chain(rows) {
        let mut line = String::new();
        for (at, (width, numeric)) in widths.iter().zip(&numeric).enumerate() {
            let cell = cell(row, at);
            if at > 0 {
                line.push_str("  ");
            }
            let _ = if *numeric {
                write!(line, "{cell:>width$}")
            } else {
                write!(line, "{cell:<width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Rows as objects, whose numbers are numbers.
#[must_use]
pub fn json(columns: &[&str], rows: &[Vec<String>]) -> Value {
    let value = |cell: &String| {
        cell.parse::<u64>()
            .map_or_else(|_| Value::from(cell.as_str()), Value::from)
    };
    rows.iter()
        .map(|row| {
            columns
                .iter()
                .zip(row)
                .map(|(name, cell)| ((*name).to_owned(), value(cell)))
                .collect::<Map<_, _>>()
        })
        .map(Value::Object)
        .collect()
}

/// Prints a value as JSON.
///
/// # Errors
/// When it cannot be represented.
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A time in milliseconds as people say it.
#[must_use]
pub fn time(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{s}s"),
        60..3600 => format!("{}min {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}min", s / 3600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86_400, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        [["ipd", "7", "running"], ["netdevd@tap0", "12345", "-"]]
            .map(|row| row.map(str::to_owned).to_vec())
            .to_vec()
    }

    #[test]
    fn columns_line_up() {
        insta::assert_snapshot!(render(&["layer", "pid", "state"], &rows()));
        assert_eq!(render(&["a"], &[]), "A\n");
    }

    #[test]
    fn numbers_are_numbers_for_programs() {
        let json = json(&["layer", "pid", "state"], &rows());
        assert_eq!(json[0]["pid"], 7);
        assert_eq!(json[1]["layer"], "netdevd@tap0");
    }

    #[test]
    fn times_are_short() {
        let said: Vec<_> = [5, 1500, 61_000, 3_660_000, 90_000_000].map(time).into();
        assert_eq!(said, ["5ms", "1s", "1min 1s", "1h 1min", "1d 1h"]);
    }
}
