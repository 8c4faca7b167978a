//! The TCP engine under sequences of segments, calls, time steps and kills; invariants after every
//! batch. The runs are tcpd's own (`tcpd/tests/fuzz`), which replays the corpus on any compiler.
#![no_main]

#[path = "../../tcpd/tests/scenarios/invariants.rs"]
mod invariants;
#[allow(dead_code)]
#[path = "../../tcpd/tests/fuzz/ops.rs"]
mod ops;
#[allow(dead_code)]
#[path = "../../tcpd/tests/fuzz/run.rs"]
mod run;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (header, ops) = ops::decode(data);
    if let Err(why) = run::run(&header, &ops) {
        panic!("{why}");
    }
});
