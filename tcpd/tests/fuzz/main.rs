//! The engine under sequences of segments, calls, time steps and kills, from a kept corpus and
//! seeded mutations of it. The same runs serve the instrumented fuzzer (`fuzz/`, target `engine`).
//!
//! `FUZZ_RUNS=1000000 cargo test -p tcpd --release --test fuzz` is the long form; `FUZZ_SEED=n`
//! begins elsewhere. A failure prints the run, made as short as it goes, as hexadecimal digits:
//! `FUZZ_INPUT=digits` runs it again. What is found becomes a line of `found.txt` and a scenario.
//!
//! `corpus.txt` is what the scenarios do, `covering.txt` what the instrumented fuzzer found in
//! addition. The former is made by
//! `SCENARIO_CORPUS=tests/fuzz/corpus.txt cargo test -p tcpd --test scenarios`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test: whatever fails shall fail loudly"
)]

#[path = "../scenarios/invariants.rs"]
mod invariants;
mod mutate;
mod ops;
mod run;

use fastrand::Rng;
use ops::{Header, Op};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.trim().bytes().collect();
    let pairs = digits.chunks_exact(2);
    pairs
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Lines are a name and digits.
fn corpus() -> Vec<(String, (Header, Vec<Op>))> {
    let text = concat!(
        include_str!("corpus.txt"),
        include_str!("covering.txt"),
        include_str!("found.txt")
    );
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, digits) = line.split_once(' ').expect("a name and digits");
            (name.to_owned(), ops::decode(&unhex(digits)))
        });
    lines.chain(pairs()).collect()
}

/// Two engines that talk to each other, with and without the options.
fn pairs() -> impl Iterator<Item = (String, (Header, Vec<Op>))> {
    let end = Op::End { budget: 255 };
    let call = |kind, arg| Op::Call { sock: 0, kind, arg };
    let deliver = Op::Deliver { index: 0, how: 0 };
    let mut ops = vec![
        Op::Switch,
        call(0, 0),
        call(1, 0),
        call(2, 5),
        end,
        Op::Switch,
    ];
    ops.extend([call(0, 0), call(1, 0), call(3, 0), end]);
    for _ in 0..4 {
        // 4,096 << 13 nanoseconds: 34 ms.
        let pass = Op::Pass {
            mantissa: 4_096,
            shift: 13,
        };
        ops.extend([pass, Op::Switch, deliver, deliver, deliver, end]);
        let accepted = Op::Call {
            sock: 1,
            kind: 11,
            arg: 0,
        };
        let back = Op::Words {
            sock: 1,
            written: 3_000,
            consumed: 1_000,
            flags: 4,
        };
        ops.extend([
            accepted,
            back,
            end,
            Op::Switch,
            deliver,
            deliver,
            deliver,
            end,
        ]);
        let there = Op::Words {
            sock: 0,
            written: 20_000,
            consumed: 1_000,
            flags: 0,
        };
        ops.extend([there, end]);
    }
    let bye = Op::Words {
        sock: 0,
        written: 0,
        consumed: 0,
        flags: 2,
    };
    ops.extend([
        bye,
        end,
        Op::Switch,
        deliver,
        deliver,
        Op::Words {
            sock: 1,
            written: 0,
            consumed: 0,
            flags: 2,
        },
    ]);
    ops.extend([
        end,
        Op::Switch,
        deliver,
        deliver,
        end,
        Op::Switch,
        deliver,
        end,
    ]);
    [0x01, 0x2f, 0x3f].into_iter().map(move |features| {
        let header = Header { features, sizes: 4 };
        (format!("pair/{features:x}"), (header, ops.clone()))
    })
}

/// Why a run fails, if it does.
fn failure(header: &Header, ops: &[Op]) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| run::run(header, ops))) {
        Ok(outcome) => outcome.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Some(format!("panicked: {}", text.unwrap_or_default()))
        }
    }
}

/// Fails the test with the shortest form of the run that still fails.
fn report(name: &str, header: &Header, ops: &[Op]) -> ! {
    let mut ops = ops.to_vec();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut size = ops.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + size).min(fewer.len()));
            if failure(header, &fewer).is_some() {
                ops = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    std::panic::set_hook(hook);
    let why = failure(header, &ops).unwrap_or_default();
    let listing: Vec<String> = ops.iter().map(|op| format!("  {op:?}")).collect();
    panic!(
        "{name}: {why}\n{header:?}\n{}\nagain with FUZZ_INPUT={}",
        listing.join("\n"),
        hex(&ops::encode(header, &ops))
    );
}

#[test]
fn the_corpus_holds() {
    if let Ok(digits) = std::env::var("FUZZ_INPUT") {
        let (header, ops) = ops::decode(&unhex(&digits));
        if failure(&header, &ops).is_some() {
            report("FUZZ_INPUT", &header, &ops);
        }
        return;
    }
    let mut states = 0;
    for (name, (header, ops)) in corpus() {
        states |= run::run(&header, &ops).unwrap_or(0);
        let again = ops::decode(&ops::encode(&header, &ops));
        assert_eq!(again, (header, ops.clone()), "{name}");
        if failure(&header, &ops).is_some() {
            report(&name, &header, &ops);
        }
    }
    // CLOSED to TIME_WAIT: else the corpus has gone stale and is to be made again.
    assert_eq!(
        states, 0b1111_1111_1110,
        "states that the corpus reaches: {states:#b}"
    );
    for (name, (header, ops)) in pairs() {
        let states = run::run(&header, &ops).unwrap_or(0);
        assert_eq!(states & 1 << 5, 1 << 5, "{name} is not established");
    }
}

/// Every scenario is a seed.
#[test]
fn the_corpus_is_of_all_scenarios() {
    fn scenarios(dir: &Path, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                scenarios(&path, names);
            } else if path.extension().is_some_and(|e| e == "pkt") {
                let path = path.with_extension("");
                let parts = path.components().rev().take(2);
                let mut parts: Vec<_> = parts.map(|c| c.as_os_str().to_str().unwrap()).collect();
                parts.reverse();
                names.insert(parts.join("/"));
            }
        }
    }
    let mut expected = BTreeSet::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    scenarios(&root, &mut expected);
    let lines = include_str!("corpus.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#'));
    let names: BTreeSet<String> = lines
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    let stale: Vec<_> = expected.symmetric_difference(&names).collect();
    assert!(stale.is_empty(), "make it again (see above): {stale:?}");
}

#[test]
fn mutations_of_the_corpus_hold() {
    let corpus = corpus();
    let seed = number("FUZZ_SEED").unwrap_or(1);
    let runs = number("FUZZ_RUNS").unwrap_or(60_000);
    for index in 0..runs {
        let mut rng = Rng::with_seed(seed.wrapping_add(index));
        let (header, ops) = mutate::mutated(&corpus, &mut rng);
        if failure(&header, &ops).is_some() {
            report(
                &format!("FUZZ_SEED={} FUZZ_RUNS=1", seed.wrapping_add(index)),
                &header,
                &ops,
            );
        }
    }
}
