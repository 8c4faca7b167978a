//! `strata demo` from outside: what it answers to a program, and that nothing stays behind.
//! It makes a namespace for itself, as root and as an ordinary user.
#![allow(
    clippy::unwrap_used,
    reason = "a test: what fails should say so at once"
)]

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs it with its temporary files in `dir`.
fn demo(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strata"))
        .args(["demo", "--json", "--size", "4"])
        .args(arguments)
        .env("TMPDIR", dir)
        .output()
        .unwrap()
}

fn summary(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn everything_arrives_although_layers_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let summary = summary(&demo(dir.path(), &[]));
    assert_eq!(summary["pings"].as_array().unwrap().len(), 2);
    assert_eq!(summary["datagrams"].as_array().unwrap().len(), 2);
    let transfers = summary["transfers"].as_array().unwrap();
    let killed = |transfer: &Value| -> Vec<String> {
        let faults = transfer["faults"].as_array().unwrap().iter();
        faults
            .map(|fault| fault["victim"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = [
        "netdevd",
        "ipd",
        "tcpd",
        "udpd",
        "every layer",
        "supervisor",
    ];
    for (number, transfer) in transfers.iter().enumerate() {
        match number {
            0 | 1 => assert!(killed(transfer).is_empty()),
            _ => assert_eq!(killed(transfer), all),
        }
    }
    assert_eq!(transfers.len(), 4);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "left behind");
}

#[test]
fn a_capture_has_complete_frames() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("demo.pcapng");
    let file = file.to_str().unwrap();
    summary(&demo(dir.path(), &["--no-faults", "--capture", file]));
    let capture = fs::read(file).unwrap();
    // More than what was transferred, in frames that are no longer than an Ethernet frame.
    assert!(capture.len() > 8 << 20, "{}", capture.len());
    let mut at = 0;
    let mut packets = 0;
    while at < capture.len() {
        let word = |n: usize| u32::from_le_bytes(capture[at + n..at + n + 4].try_into().unwrap());
        if word(0) == 6 {
            packets += 1;
            assert!((14..=1514).contains(&word(20)), "{} bytes", word(20));
        }
        at += usize::try_from(word(4)).unwrap();
    }
    assert!(packets > 5_000, "{packets}");
}

/// Killed itself, it can clean up nothing; the supervisor does, when its standard input ends.
#[test]
fn nothing_stays_behind_a_killed_demonstration() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_strata"))
        .args(["demo", "--json", "--size", "60000"])
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let entries = || fs::read_dir(dir.path()).unwrap().count();
    let socket = || {
        let mut labs = fs::read_dir(dir.path()).unwrap();
        labs.any(|lab| lab.unwrap().path().join("lab/tcpd.sock").exists())
    };
    while !socket() {
        assert!(begin.elapsed() < PATIENCE, "it never began");
        sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    while entries() > 0 {
        assert!(begin.elapsed() < PATIENCE, "left behind");
        sleep(Duration::from_millis(5));
    }
}
