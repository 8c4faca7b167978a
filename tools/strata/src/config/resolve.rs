//! From [`File`] to [`Config`]: every value checked, alone and against the others.

use super::diagnostic::Diagnostic;
use super::file::File;
use super::{Config, devices, routes, sections};
use core::ops::Range;

/// Collects problems while the file is walked.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub(super) errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl Problems {
    /// Notes an error at `span`.
    pub(super) fn error(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.errors.push(Diagnostic::at(span, message, help));
    }

    /// Notes a warning at `span`.
    pub(super) fn warn(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.warnings.push(Diagnostic::at(span, message, help));
    }
}

/// Checks `file`; the configuration and the warnings, or the errors.
pub(super) fn resolve(file: &File) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut problems = Problems::default();
    let name = file.name.as_ref().map(|name| {
        if let Err(why) = crate::rundir::check_name(name.get_ref()) {
            problems.error(name.span(), why, "use letters, digits, `-`, `_` and `.`");
        }
        name.get_ref().clone()
    });
    let devices = devices::resolve(file, &mut problems);
    let routes = routes::resolve(file, &devices, &mut problems);
    let config = Config {
        name,
        routes,
        dns: file.dns.servers.clone(),
        restart: sections::restart(&file.restart, &mut problems),
        tcp: sections::tcp(&file.tcp, &mut problems),
        udp: sections::udp(&file.udp, &mut problems),
        pin: sections::pin(&file.cpu, &mut problems),
        nice: sections::nice(&file.cpu, &mut problems),
        sizes: sections::sizes(&file.sizes, &mut problems),
        access_mode: sections::access(&file.access, &mut problems),
        devices,
    };
    if problems.errors.is_empty() {
        Ok((config, problems.warnings))
    } else {
        let place = |d: &Diagnostic| d.span.as_ref().map_or(0, |span| span.start);
        problems.errors.sort_by_key(place);
        Err(problems.errors)
    }
}
