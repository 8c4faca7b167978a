//! What is wrong with `strata.toml`, where, and what to do about it.

use core::fmt;
use core::ops::Range;
use std::path::{Path, PathBuf};

/// One error or warning about a place in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Bytes of the file it is about; `None` for the file as a whole.
    pub span: Option<Range<usize>>,
    /// What is wrong, on what.
    pub message: String,
    /// The remedy.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic about `span` with its remedy.
    pub(crate) fn at(
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            span: Some(span),
            message: message.into(),
            help: Some(help.into()),
        }
    }

    /// A diagnostic about the file as a whole with its remedy.
    pub(crate) fn whole(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            span: None,
            message: message.into(),
            help: Some(help.into()),
        }
    }

    /// From the parser's error, with a remedy where its message suggests one.
    pub(crate) fn from_toml(error: &toml::de::Error) -> Self {
        let message = error.message().trim_end().to_owned();
        let help = if message.starts_with("unknown field") {
            Some("remove it or correct its spelling; `strata.example.toml` shows every key".into())
        } else if message.starts_with("missing field") {
            Some("add it; `strata.example.toml` shows every key".into())
        } else if message.starts_with("duplicate key") {
            Some("keep one of the two".into())
        } else {
            None
        };
        Self {
            span: error.span(),
            message,
            help,
        }
    }
}

/// A configuration file that cannot be used: every problem that was found in it.
#[derive(Debug, Clone)]
pub struct ConfigError {
    /// The file, as it was named.
    pub path: PathBuf,
    /// Its text, for quoting.
    pub text: String,
    /// What is wrong, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write_diagnostic(f, "error", &self.path, &self.text, diagnostic)?;
        }
        Ok(())
    }
}

impl core::error::Error for ConfigError {}

/// Renders `diagnostic` as a warning, in the same form as an error.
#[must_use]
pub fn render_warning(path: &Path, text: &str, diagnostic: &Diagnostic) -> String {
    struct Warning<'a>(&'a Path, &'a str, &'a Diagnostic);
    impl fmt::Display for Warning<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_diagnostic(f, "warning", self.0, self.1, self.2)
        }
    }
    Warning(path, text, diagnostic).to_string()
}

fn write_diagnostic(
    f: &mut fmt::Formatter<'_>,
    severity: &str,
    path: &Path,
    text: &str,
    diagnostic: &Diagnostic,
) -> fmt::Result {
    let path = path.display();
    let message = &diagnostic.message;
    match &diagnostic.span {
        None => write!(f, "{path}: {severity}: {message}")?,
        Some(span) => {
            let place = Place::of(text, span);
            let (line, column) = (place.line, place.column);
            writeln!(f, "{path}:{line}:{column}: {severity}: {message}")?;
            let gutter = line.to_string().len();
            writeln!(f, " {line} | {}", place.text)?;
            let indent = " ".repeat(column.saturating_sub(1));
            let marks = "^".repeat(place.width.max(1));
            write!(f, " {:gutter$} | {indent}{marks}", "")?;
        }
    }
    if let Some(help) = &diagnostic.help {
        write!(f, "\n  help: {help}")?;
    }
    Ok(())
}

/// A span in the terms of an editor: line and column from 1, in characters.
struct Place<'a> {
    line: usize,
    column: usize,
    /// Characters to underline, within the line.
    width: usize,
    text: &'a str,
}

impl<'a> Place<'a> {
    fn of(text: &'a str, span: &Range<usize>) -> Self {
        let start = floor_boundary(text, span.start);
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = text.get(line_start..).unwrap_or_default();
        let line_text = rest.lines().next().unwrap_or_default();
        let end = floor_boundary(text, span.end).min(line_start + line_text.len());
        let width = text
            .get(start..end)
            .map_or(0, |marked| marked.chars().count());
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            width,
            text: line_text,
        }
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
