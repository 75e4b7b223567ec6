//! How normalised scores are spread, with lambda.

use std::fmt::Write as _;

use super::chart::{Axis, labels_below};
use super::data::Run;
use super::html::{count, legend, picture, scroll};

const WIDTH: u32 = 720;
const HEIGHT: u32 = 260;

pub(super) fn histogram(run: &Run) -> Option<String> {
    let histogram = run.histogram.as_ref()?;
    let [least, lambda, most] = histogram.lambda;
    let largest = histogram.counts.iter().copied().max().unwrap_or(0).max(1);
    let x = Axis::new(
        (histogram.from, histogram.to),
        (16.0, f64::from(WIDTH) - 16.0),
    );
    let y = Axis::new((0.0, largest as f64), (f64::from(HEIGHT) - 40.0, 24.0));
    let bars = histogram.counts.len().max(1);
    let width = (histogram.to - histogram.from) / bars as f64;
    let (mut pruned, mut kept) = (String::new(), String::new());
    for (bar, &scores) in histogram.counts.iter().enumerate() {
        let from = histogram.from + bar as f64 * width;
        let to = if from + width / 2.0 < lambda {
            &mut pruned
        } else {
            &mut kept
        };
        let (left, right) = (x.at(from), x.at(from + width));
        let _ = write!(
            to,
            "M{left:.1} {:.1}V{:.1}H{right:.1}V{:.1}Z",
            y.from,
            y.at(scores as f64),
            y.from
        );
    }
    let mut svg = format!(
        "<path class=\"bar-kept\" d=\"{kept}\"/><path class=\"bar-pruned\" d=\"{pruned}\"/>\
         <path class=\"axis\" d=\"M{:.0} {:.0}H{:.0}\"/>",
        x.from, y.from, x.to
    );
    let at = x.at(lambda);
    let _ = write!(
        svg,
        "<path class=\"threshold\" d=\"M{at:.1} {:.0}V18\"/><text x=\"{at:.1}\" y=\"13\" class=\"middle\">lambda {lambda:.2}</text>",
        y.from
    );
    let marks: Vec<(f64, String)> = (-3..=3)
        .map(|mark| (f64::from(mark * 2), (mark * 2).to_string()))
        .collect();
    svg += &labels_below(&marks, x, f64::from(HEIGHT) - 22.0);
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{}\" class=\"middle\">deviations from the moving average</text>",
        WIDTH / 2,
        HEIGHT - 4
    );
    let all = (histogram.counts.iter()).fold(0, |sum: u64, &count| sum.saturating_add(count));
    let said = format!(
        "{} scores of {} rows. The rows' lambdas go from {least:.2} to {most:.2}, with a mean of {lambda:.2}.",
        count(all),
        histogram.rows
    );
    let marks = [
        ("bar-kept", "kept"),
        ("bar-pruned", "became zero (in a row with the mean lambda)"),
    ];
    Some(
        legend(&marks)
            + &scroll("Spread of scores", &picture(WIDTH, HEIGHT, &said, &svg))
            + &format!("<p>{said}</p>\n"),
    )
}
