//! What became of the faults: a table for people.

use super::{Fault, Peer, Plan, fault::Kind, picture};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// One row: a kind of fault and whom it met.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) target: String,
    pub(super) peer: Peer,
    pub(super) count: u64,
    transparent: u64,
    /// Connections that these faults have cost.
    lost: u64,
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
    pub(super) rows: BTreeMap<(Kind, String, Peer), Row>,
    /// Connections lost to faults that are to cost none.
    lost: u64,
    wrong: Vec<String>,
    /// Ended before its time, so many faults were planned.
    interrupted: Option<usize>,
}

impl Report {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            rows: BTreeMap::new(),
            lost: 0,
            wrong: Vec::new(),
            interrupted: None,
        }
    }

    /// A fault, the longest silence around it, and whether everything went on.
    pub(super) fn note(&mut self, fault: Fault, peer: Peer, gap: Duration, went_on: bool) {
        let row = self.row(fault, peer);
        row.count += 1;
        row.transparent += u64::from(went_on);
        let micros = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
        row.gaps.push(micros);
    }

    fn row(&mut self, fault: Fault, peer: Peer) -> &mut Row {
        let target = fault.target.name();
        self.rows
            .entry((fault.kind, target.clone(), peer))
            .or_insert_with(|| Row {
                kind: fault.kind,
                target,
                peer,
                count: 0,
                transparent: 0,
                lost: 0,
                gaps: Vec::new(),
            })
    }

    /// Faults of this kind that were noted as transparent have cost so many connections.
    pub(super) fn cost(&mut self, fault: Fault, peer: Peer, connections: u64) {
        let row = self.row(fault, peer);
        row.lost += connections;
        row.transparent = row.transparent.saturating_sub(connections);
    }

    /// So many connections were lost that should not have been.
    pub(super) fn broke(&mut self, connections: u64) {
        self.lost += connections;
    }

    /// It ended before its time.
    pub(super) fn interrupted(&mut self, planned: usize) {
        self.interrupted = Some(planned);
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
        let Plan {
            seed,
            kills,
            idle,
            ref congestion,
            ..
        } = self.plan;
        let scribbled = self.rows.values().map(|row| row.lost).sum::<u64>();
        let mut text = format!(
            "Seed {seed}, {kills} `SIGKILL`s for each layer planned, {idle} idle connections beside \
             the traffic: {} faults. Connections lost to processes that died: {}; to random words \
             in shared memory: {scribbled} (one a word at the most). Congestion control of the \
             kernel as peer: {congestion}. The gap is the longest silence of a receiver: of bulk \
             over TCP for tcpd, of UDP echo (a datagram each millisecond) and ping (each second \
             one) for udpd, of all of these for what serves both.\n",
            self.count(),
            self.lost
        );
        if let (part, parts @ 2..) = self.plan.part {
            let _ = writeln!(text, "Part {} of {parts}.", part + 1);
        }
        if let Some(planned) = self.interrupted {
            let _ = writeln!(
                text,
                "Ended before its time: {planned} faults were planned."
            );
        }
        text.push_str(
            "\n| Fault | Target | Peer | Count | Transparent | Lost | Gap p50 | p99 | Longest |\n\
             |---|---|---|--:|--:|--:|--:|--:|--:|\n",
        );
        for row in self.rows.values() {
            let at = |quantile| milliseconds(row.gap(quantile));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.kind.name(),
                if row.kind == Kind::None {
                    "(for comparison)"
                } else {
                    &row.target
                },
                row.peer.name(),
                row.count,
                row.transparent,
                row.lost,
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
