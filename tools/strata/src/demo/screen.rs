//! What the demonstration prints: numbered steps and lines under them, or nothing if a program
//! reads the result.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell;
use std::io::IsTerminal;

/// Where the story goes.
#[derive(Debug)]
pub(super) struct Screen {
    silent: bool,
    bold: bool,
    step: Cell<u32>,
}

impl Screen {
    pub(super) fn new(silent: bool) -> Self {
        let bold = std::io::stdout().is_terminal();
        Self {
            silent,
            bold,
            step: Cell::new(0),
        }
    }

    /// The next step's heading.
    pub(super) fn step(&self, title: &str) {
        let number = self.step.get() + 1;
        self.step.set(number);
        if self.silent {
            return;
        }
        if self.bold {
            println!("\n\x1b[1m{number}. {title}\x1b[0m");
        } else {
            println!("\n{number}. {title}");
        }
    }

    /// The number of the present step.
    pub(super) fn number(&self) -> u32 {
        self.step.get()
    }

    /// A line, or several.
    pub(super) fn say(&self, text: impl AsRef<str>) {
        if self.silent {
            return;
        }
        for line in text.as_ref().lines() {
            if line.is_empty() {
                println!();
            } else {
                println!("   {line}");
            }
        }
    }

    /// A progress bar of bytes on standard error; none if that is no terminal.
    pub(super) fn progress(&self, name: &'static str, bytes: u64) -> ProgressBar {
        if self.silent || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(
            "   {prefix:10} {bar:36} {percent:>3}% {binary_bytes_per_sec:>12}  {msg}",
        );
        let bar =
            ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr_with_hz(20));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.with_prefix(name)
    }
}
