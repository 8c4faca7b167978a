//! `strata impair`: faults on purpose, at run time.

use super::ask;
use crate::admin::{Answer, Request};
use crate::cli::{Cli, Impair};
use crate::config::units::{HumanDuration, Probability};
use abi::config::Impairment;

/// `strata impair DEVICE [--loss …]`.
pub(super) fn impair(cli: &Cli, arguments: &Impair) -> anyhow::Result<()> {
    let probability = |p: Option<Probability>| p.map_or(0.0, |p| p.0);
    let micros = |d: Option<HumanDuration>| {
        d.map_or(0, |d| u32::try_from(d.0.as_micros()).unwrap_or(u32::MAX))
    };
    let impairment = Impairment {
        seed: arguments.seed,
        loss: probability(arguments.loss),
        loss_burst: arguments.loss_burst,
        ecn: arguments.ecn,
        duplicate: probability(arguments.duplicate),
        reorder: probability(arguments.reorder),
        corrupt: probability(arguments.corrupt),
        delay_us: micros(arguments.delay),
        jitter_us: micros(arguments.jitter),
        rate_kbps: arguments.rate.map_or(0, |rate| rate.0),
        queue: arguments.queue,
    };
    let device = arguments.device.clone();
    let request = Request::Impair { device, impairment };
    if let Answer::Done(text) = ask(cli, &request)? {
        println!("{text}");
    }
    Ok(())
}
