//! `strata compare` in its shortest form: one slow link, both ways, beside the kernel.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: whatever fails shall fail loudly"
)]

use assert_cmd::Command;
use serde_json::Value;

#[test]
fn a_slow_link_is_filled_as_the_kernel_fills_it() {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("strata"));
    command.args([
        "compare",
        "--json",
        "--only",
        "1 Mbit/s, 50 ms",
        "--seconds",
        "2",
        "--pairs",
        "1",
    ]);
    let output = command.assert().success().get_output().stdout.clone();
    let rows: Value = serde_json::from_slice(&output).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 2, "one each way");
    for row in rows {
        let of = |key: &str| row[key]["median"].as_f64().unwrap();
        // The link lets no more through than its rate, and headers take their part.
        for key in ["stack_mbps", "kernel_mbps"] {
            assert!((0.3..1.0).contains(&of(key)), "{row}");
        }
        assert!(of("ratio") > 0.5, "{row}");
    }
}
