//! The constellation against the Linux kernel.

#![allow(
    clippy::indexing_slicing,
    reason = "a test: what is out of range fails it, as it should"
)]

use std::process::ExitCode;

mod applications;
mod campaign;
mod corrupt;
mod counters;
mod crash_points;
mod faults;
mod floods;
mod hostile;
mod idle;
mod info;
mod linger;
mod marks;
mod numbers;
mod opening;
mod pacing;
mod path;
mod quarantine;
mod readiness;
mod scribbled;
mod sizes;
mod tcp;
mod udp;
mod urgent;

fn main() -> ExitCode {
    integration::main(|trials| {
        udp::add(trials);
        tcp::add(trials);
        opening::add(trials);
        numbers::add(trials);
        urgent::add(trials);
        linger::add(trials);
        pacing::add(trials);
        path::add(trials);
        info::add(trials);
        sizes::add(trials);
        marks::add(trials);
        readiness::add(trials);
        corrupt::add(trials);
        applications::add(trials);
        scribbled::add(trials);
        counters::add(trials);
        idle::add(trials);
        hostile::add(trials);
        floods::add(trials);
        faults::add(trials);
        crash_points::add(trials);
        campaign::add(trials);
        quarantine::add(trials);
    })
}
