//! Messages for people, on stderr; the supervisor says where that goes.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Environment variable with the filter, as `info` or `ipd=debug`.
const FILTER: &str = "STRATA_LOG";

/// Sets up tracing and a panic hook that reports through it. A second call does nothing.
pub(crate) fn init() {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("info"));
    let installed = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
    if installed.is_err() {
        return;
    }
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let what = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        tracing::error!(thread = thread.name().unwrap_or("?"), at, "panic: {what}");
    }));
}
