//! What became of the faults: a table for people.

use super::{Fault, Plan, fault::Kind, picture};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// One row: a kind of fault and whom it met.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) target: String,
    pub(super) count: u64,
    transparent: u64,
    /// Longest silences in microseconds.
    gaps: Vec<u64>,
}

impl Row {
    /// The gap that the share `quantile` of the faults did not exceed, in microseconds.
    pub(super) fn gap(&self, quantile: f64) -> u64 {
        let mut gaps = self.gaps.clone();
        gaps.sort_unstable();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a rank among thousands"
        )]
        let rank = (quantile * gaps.len() as f64).ceil() as usize;
        gaps.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }
}

/// The report.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    pub(super) rows: BTreeMap<(Kind, String), Row>,
    /// Parts of the traffic that failed.
    lost: u64,
    wrong: Vec<String>,
}

impl Report {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            plan: *plan,
            rows: BTreeMap::new(),
            lost: 0,
            wrong: Vec::new(),
        }
    }

    /// A fault, the longest silence around it, and whether everything went on.
    pub(super) fn note(&mut self, fault: Fault, gap: Duration, went_on: bool) {
        let target = fault.target.name();
        let row = self
            .rows
            .entry((fault.kind, target.clone()))
            .or_insert_with(|| Row {
                kind: fault.kind,
                target,
                count: 0,
                transparent: 0,
                gaps: Vec::new(),
            });
        row.count += 1;
        row.transparent += u64::from(went_on);
        let micros = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
        row.gaps.push(micros);
    }

    /// The traffic of a round did not end well, in so many places.
    pub(super) fn broke(&mut self, places: usize) {
        self.lost += places as u64;
    }

    pub(super) fn leaked(&mut self, text: String) {
        self.wrong.push(format!("leaked: {text}"));
    }

    pub(super) fn wrong(&mut self, text: String) {
        self.wrong.push(text);
    }

    /// Faults so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        let real = self.rows.values().filter(|row| row.kind != Kind::None);
        real.map(|row| row.count).sum()
    }

    /// Whether everything was transparent and nothing leaked.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.wrong.is_empty() && self.lost == 0
    }

    /// What went wrong.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.wrong
    }

    /// As Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let Plan { seed, kills, idle } = self.plan;
        let mut text = format!(
            "Seed {seed}, {kills} `SIGKILL`s for each layer, {idle} idle connections beside the \
             traffic: {} faults, {} parts of the traffic failed.\n\n\
             | Fault | Target | Count | Transparent | Gap p50 | p99 | Longest |\n\
             |---|---|--:|--:|--:|--:|--:|\n",
            self.count(),
            self.lost
        );
        for row in self.rows.values() {
            let at = |quantile| milliseconds(row.gap(quantile));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                row.kind.name(),
                if row.kind == Kind::None {
                    "(for comparison)"
                } else {
                    &row.target
                },
                row.count,
                row.transparent,
                at(0.5),
                at(0.99),
                at(1.0),
            );
        }
        text
    }

    /// As a picture.
    ///
    /// # Errors
    /// When it cannot be drawn.
    pub fn svg(&self) -> anyhow::Result<String> {
        picture::draw(self)
    }
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}
