//! CONFORMANCE.md names every requirement, and only tests that exist.

use std::collections::BTreeSet;
use std::path::Path;

/// Requirement numbers of RFC 9293 appendix B.
const NUMBERS: [(&str, u32); 4] = [("MUST", 69), ("SHLD", 31), ("MAY", 18), ("REC", 1)];

/// Rows of RFC 1122 4.2.5, and the sections they are of.
const ROWS_1122: usize = 104;
const SECTIONS_1122: [&str; 30] = [
    "4.2.2.2", "4.2.2.3", "4.2.2.4", "4.2.2.5", "4.2.2.6", "4.2.2.7", "4.2.2.9", "4.2.2.10",
    "4.2.2.11", "4.2.2.12", "4.2.2.13", "4.2.2.15", "4.2.2.16", "4.2.2.17", "4.2.2.18", "4.2.2.19",
    "4.2.2.20", "4.2.2.21", "4.2.3.1", "4.2.3.2", "4.2.3.3", "4.2.3.4", "4.2.3.5", "4.2.3.6",
    "4.2.3.7", "4.2.3.8", "4.2.3.9", "4.2.3.10", "4.2.4.1", "4.2.4.2",
];

fn exists(name: &str, tcpd: &Path, scenarios: &BTreeSet<String>) -> Result<(), String> {
    let root = tcpd.parent().unwrap_or(tcpd);
    if let Some((file, function)) = name.split_once("::") {
        let text = std::fs::read_to_string(root.join(file))
            .map_err(|e| format!("`{name}`: {file}: {e}"))?;
        let found = text.contains(&format!("fn {function}("));
        return if found {
            Ok(())
        } else {
            Err(format!("`{name}`: no such function there"))
        };
    }
    if name.ends_with(".rs") {
        let found = root.join(name).exists();
        return if found {
            Ok(())
        } else {
            Err(format!("`{name}`: no such file"))
        };
    }
    if scenarios.contains(name) {
        Ok(())
    } else {
        Err(format!("`{name}`: no such scenario"))
    }
}

/// Everything wrong with the page.
pub(crate) fn check(tcpd: &Path, scenarios: &BTreeSet<String>) -> Result<(), String> {
    let text = std::fs::read_to_string(tcpd.join("CONFORMANCE.md")).map_err(|e| e.to_string())?;
    let mut wrong = vec![];
    let (mut seen, mut cited, mut sections, mut rows) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), 0);
    for line in text.lines().filter(|l| l.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, what, status, shown] = cells[..] else {
            wrong.push(format!("a row has four cells: {line}"));
            continue;
        };
        if number == "Number" || number == "Section" {
            continue;
        }
        let tests: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        for test in &tests {
            wrong.extend(exists(test, tcpd, scenarios).err());
        }
        if number.starts_with("4.2.") {
            rows += 1;
            sections.insert(number.to_owned());
            let is_number = |w: &&str| NUMBERS.iter().any(|(k, _)| w.starts_with(&format!("{k}-")));
            let words = shown.split([' ', ',', ';', '.']);
            cited.extend(words.filter(is_number).map(str::to_owned));
            if shown.is_empty() {
                wrong.push(format!("{number} ({what}) says nothing"));
            }
            continue;
        }
        if !seen.insert(number.to_owned()) {
            wrong.push(format!("{number} is there twice"));
        }
        match status {
            "met" if tests.is_empty() => wrong.push(format!("{number} is met, but by what test?")),
            "deviates" | "not" | "other" if shown.len() < 5 => {
                wrong.push(format!("{number} says no reason"));
            }
            "met" | "deviates" | "not" | "other" => {}
            _ => wrong.push(format!(
                "{number}: met, deviates, not or other, and not `{status}`"
            )),
        }
    }
    for (kind, last) in NUMBERS {
        for n in 1..=last {
            let number = format!("{kind}-{n}");
            if !seen.remove(&number) {
                wrong.push(format!("{number} is missing"));
            }
            cited.remove(&number);
        }
    }
    wrong.extend(
        seen.iter()
            .map(|n| format!("{n} is no number of appendix B")),
    );
    wrong.extend(
        cited
            .iter()
            .map(|n| format!("{n} is cited and no number of appendix B")),
    );
    for section in SECTIONS_1122 {
        if !sections.contains(section) {
            wrong.push(format!("RFC 1122 {section} is missing"));
        }
    }
    if rows != ROWS_1122 {
        wrong.push(format!("RFC 1122: {rows} rows, not {ROWS_1122}"));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n"))
    }
}
