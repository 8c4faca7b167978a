//! The models are worth something only if nothing in this crate goes past the shim they replace.
#![cfg(not(feature = "loom"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else {
            into.push(path);
        }
    }
}

#[test]
fn atomics_come_from_the_shim_alone() {
    // A lint cannot tell: it sees through the shim's re-exports.
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    sources(&src, &mut all);
    assert!(all.len() > 10);
    for path in all {
        let text = fs::read_to_string(&path).unwrap();
        let raw = text.lines().filter(|l| !l.trim_start().starts_with("//"));
        let raw = raw.filter(|l| l.contains("sync::atomic") || l.contains("intrinsics::"));
        if !path.starts_with(src.join("sync")) {
            assert_eq!(raw.count(), 0, "{} uses atomics of its own", path.display());
        }
    }
}
