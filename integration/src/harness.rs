//! The `main` of test executables.

use crate::application::become_application_if_asked;
use crate::mix::become_crowd_if_asked;
use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use strata::lab::become_strata_if_asked;
use strata::netns;

/// Collects the trials of an executable.
#[derive(Debug, Default)]
pub struct Trials {
    all: Vec<Trial>,
}

impl Trials {
    /// Adds a trial.
    pub fn add(&mut self, name: &str, run: fn() -> Result<()>) {
        self.all.push(Trial::test(name, move || {
            run().map_err(|error| Failed::from(format!("{error:#}")))
        }));
    }

    /// Adds a trial that needs an installed program or much time; `--ignored` runs it.
    pub fn add_ignored(&mut self, name: &str, run: fn() -> Result<()>) {
        let trial = Trial::test(name, move || {
            run().map_err(|error| Failed::from(format!("{error:#}")))
        });
        self.all.push(trial.with_ignored_flag(true));
    }
}

/// Enters a namespace and runs the trials that the command line selects.
#[must_use]
pub fn main(collect: fn(&mut Trials)) -> ExitCode {
    let role = become_strata_if_asked()
        .or_else(become_crowd_if_asked)
        .or_else(become_application_if_asked);
    if let Some(code) = role {
        return code;
    }
    let mut arguments = Arguments::from_args();
    let mut trials = Trials::default();
    collect(&mut trials);
    if !arguments.list {
        if let Err(error) = netns::enter_private() {
            eprintln!("cannot run here: {error:#}");
            return ExitCode::from(2);
        }
        // They measure time and share two cores with a constellation each.
        arguments.test_threads.get_or_insert(1);
    }
    libtest_mimic::run(&arguments, trials.all).exit_code()
}
