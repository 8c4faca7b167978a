//! Scenario files run against the engine on a virtual clock, one trial a file; README.md beside
//! this file describes them. Each is run a second time with the engine killed and restored after
//! every line, and once more for each line with a kill after that line alone: crash = packet
//! loss, so the peer and the application must not notice.
//!
//! `cargo test -p tcpd --test scenarios close/` runs what has that in its name;
//! `SCENARIO_TRACE=1` prints the traces of what succeeds, too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a test: whatever fails shall fail loudly"
)]

mod calls;
mod config;
mod conformance;
mod fields;
mod flows;
#[path = "../fuzz/run.rs"]
mod fuzzed;
mod invariants;
mod lang;
#[path = "../fuzz/ops.rs"]
mod ops;
mod record;
mod run;
mod selftest;
mod world;

use libtest_mimic::{Arguments, Failed, Trial};
use run::{Kill, Run};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

fn files(folder: &Path, into: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "pkt") {
            into.push(path);
        }
    }
    Ok(())
}

fn once(path: &Path, script: &lang::Script, kill: Kill) -> Result<(), Failed> {
    let mut run = Run::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| run.script(script, kill)));
    let (line, why) = match outcome {
        Ok(Ok(())) => {
            if std::env::var_os("SCENARIO_TRACE").is_some() {
                println!("{}\n{}", path.display(), run.trace);
            }
            return Ok(());
        }
        Ok(Err(failure)) => (failure.line, failure.why),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            (0, format!("panicked: {}", text.unwrap_or_default()))
        }
    };
    let source = script.lines.iter().find(|l| l.number == line);
    let source = source.map_or("", |l| &l.text);
    let killed = match kill {
        Kill::Never => String::new(),
        Kill::Always => "\n(killed and restored after every line)".to_owned(),
        Kill::After(i) => format!(
            "\n(killed and restored after line {})",
            script.lines[i].number
        ),
    };
    Err(format!(
        "{}:{line}: {source}\n{why}{killed}\n\ntrace:\n{}",
        path.display(),
        run.trace
    )
    .into())
}

fn parsed(path: &Path) -> Result<lang::Script, Failed> {
    let text = std::fs::read_to_string(path)?;
    lang::Script::parse(&text)
        .map_err(|m| format!("{}:{}: {}", path.display(), m.line, m.why).into())
}

fn straight(path: &Path) -> Result<(), Failed> {
    once(path, &parsed(path)?, Kill::Never)
}

fn killed(path: &Path) -> Result<(), Failed> {
    let script = parsed(path)?;
    once(path, &script, Kill::Always)?;
    for index in 0..script.lines.len() {
        once(path, &script, Kill::After(index))?;
    }
    Ok(())
}

/// Makes the fuzzer's corpus of what the scenarios do.
fn write_corpus(root: &Path, found: &[PathBuf], to: &Path) {
    let mut text = "# What the scenarios do, in the fuzzer's form: see main.rs.\n".to_owned();
    for path in found {
        let script = parsed(path).expect("the scenarios are well-formed");
        let mut run = Run::new();
        if run.script(&script, Kill::Never).is_ok() {
            let name = path.strip_prefix(root).unwrap_or(path).with_extension("");
            let bytes = run.recorded();
            let (header, ops) = ops::decode(&bytes);
            if let Err(why) = fuzzed::run(&header, &ops) {
                eprintln!("{}: {why}", path.display());
            }
            let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            text += &format!("{} {digits}\n", name.display());
        }
    }
    std::fs::write(to, text).expect("the corpus can be written");
}

fn main() {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut found = vec![];
    files(&root, &mut found).expect("the scenarios can be listed");
    found.sort();
    if let Some(corpus) = std::env::var_os("SCENARIO_CORPUS") {
        write_corpus(&root, &found, Path::new(&corpus));
        return;
    }
    let mut trials = vec![];
    let mut names = BTreeSet::new();
    for path in found {
        let name = path.strip_prefix(&root).unwrap_or(&path).with_extension("");
        let name = name.display().to_string();
        names.insert(name.clone());
        let (one, two) = (path.clone(), path);
        trials.push(Trial::test(name.clone(), move || straight(&one)));
        trials.push(Trial::test(format!("{name} (killed)"), move || {
            killed(&two)
        }));
    }
    trials.push(Trial::test("conformance", move || {
        conformance::check(Path::new(env!("CARGO_MANIFEST_DIR")), &names).map_err(Into::into)
    }));
    trials.push(Trial::test("selftest", || {
        selftest::check().map_err(Into::into)
    }));
    libtest_mimic::run(&arguments, trials).exit();
}
