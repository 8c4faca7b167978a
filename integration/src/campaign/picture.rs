//! The report as a picture: for each row a line from the median gap over the 99th percentile to
//! the longest, on a logarithmic scale.

use super::Report;
use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Size of a row and of the margins, in pixels.
const ROW: u32 = 22;
const LABELS: u32 = 330;
const WIDTH: u32 = 900;

/// Draws it.
pub(super) fn draw(report: &Report) -> Result<String> {
    let mut svg = String::new();
    // Those of one peer, so that a picture has a page's size.
    let peer = report.rows.values().map(|row| row.peer).min();
    let rows = report.rows.values().filter(|row| Some(row.peer) == peer);
    let rows: Vec<_> = rows.collect();
    let count = u32::try_from(rows.len())?;
    let height = count * ROW + 70;
    let failed = |error: &dyn core::fmt::Display| anyhow!("drawing: {error}");
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE).map_err(|e| failed(&e))?;
        let mut chart = ChartBuilder::on(&area)
            .caption(
                "Longest silence of a receiver around a fault: median, p99, longest",
                ("sans-serif", 15),
            )
            .margin(8)
            .x_label_area_size(30)
            .y_label_area_size(LABELS)
            .build_cartesian_2d((1.0..2000.0f64).log_scale(), 0.0..f64::from(count))
            .map_err(|e| failed(&e))?;
        let name = |at: &f64| {
            let row = (f64::from(count) - at).floor();
            // The label of each row stands at its lower edge plus a half.
            let found = rows.iter().zip(0u32..).find(|(_, i)| f64::from(*i) == row);
            found.map_or_else(String::new, |(row, _)| {
                format!("{}, {} ({})", row.kind.name(), row.target, row.count)
            })
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(rows.len() * 2 + 1)
            .y_label_formatter(&|at| {
                if at.fract() == 0.5 {
                    name(at)
                } else {
                    String::new()
                }
            })
            .x_desc("milliseconds")
            .draw()
            .map_err(|e| failed(&e))?;
        for (row, i) in rows.iter().zip(0u32..) {
            let y = f64::from(count) - f64::from(i) - 0.5;
            let ms = |quantile| {
                let micros = u32::try_from(row.gap(quantile)).unwrap_or(u32::MAX);
                (f64::from(micros) / 1000.0).max(1.0)
            };
            let (median, p99, longest) = (ms(0.5), ms(0.99), ms(1.0));
            chart
                .draw_series(LineSeries::new([(median, y), (longest, y)], BLUE.mix(0.4)))
                .map_err(|e| failed(&e))?;
            let points = [
                (median, BLUE.filled()),
                (p99, RED.filled()),
                (longest, BLACK.into()),
            ];
            chart
                .draw_series(points.map(|(x, style)| Circle::new((x, y), 4, style)))
                .map_err(|e| failed(&e))?;
        }
        area.present().map_err(|e| failed(&e))?;
    }
    Ok(svg)
}
