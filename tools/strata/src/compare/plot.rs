//! Curves over time as SVG: congestion window and sequence of both senders.

use super::transfer::{Outcome, Sample};
use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Width and height in pixels.
const SIZE: (u32, u32) = (760, 300);
/// The stack's and the kernel's colour: told apart also by those who see few.
const COLOURS: [RGBColor; 2] = [RGBColor(0, 90, 181), RGBColor(220, 50, 32)];

/// What is plotted of a sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Curve {
    pub(super) title: &'static str,
    pub(super) axis: &'static str,
    pub(super) of: fn(&Sample) -> f64,
}

/// The congestion window.
pub(super) const WINDOW: Curve = Curve {
    title: "Congestion window",
    axis: "segments",
    of: |sample| f64::from(sample.info.cwnd),
};

/// How far the stream has come.
#[allow(clippy::cast_precision_loss, reason = "a curve for people")]
pub(super) const SEQUENCE: Curve = Curve {
    title: "Sequence",
    axis: "MB acknowledged",
    of: |sample| sample.info.acked as f64 / 1e6,
};

/// Draws a curve of the stack's transfer and one of the kernel's.
pub(super) fn draw(title: &str, curve: &Curve, pair: &[Outcome; 2]) -> Result<String> {
    let mut text = String::new();
    paint(&mut text, title, curve, pair)
        .map_err(|error| anyhow!("cannot plot {title}: {error}"))?;
    // Nothing but a line's end at the end of lines.
    Ok(text
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect())
}

fn paint(
    text: &mut String,
    title: &str,
    curve: &Curve,
    pair: &[Outcome; 2],
) -> Result<(), Box<dyn std::error::Error>> {
    let samples = || pair.iter().flat_map(|outcome| &outcome.samples);
    let end = samples().map(|s| s.at).fold(0.1, f64::max);
    let top = samples().map(curve.of).fold(0.1, f64::max) * 1.05;
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{}: {title}", curve.title), ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(34)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("seconds")
        .y_desc(curve.axis)
        .draw()?;
    for ((outcome, colour), name) in pair.iter().zip(COLOURS).zip(["Strata", "Linux"]) {
        let points = outcome.samples.iter().map(|s| (s.at, (curve.of)(s)));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(1)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}
