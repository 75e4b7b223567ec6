//! The largest features of the inputs, block by block, and those that stand out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::chart::{Axis, horizontal_grid, labels_below, round_values};
use super::data::{Run, RunInput};
use super::html::{escape, legend, number, picture, scroll};
use crate::report::column_norms::OUTLIER_FEATURE;

const WIDTH: u32 = 720;
const HEIGHT: u32 = 300;

/// The most features that are named.
const NAMED: usize = 12;

/// The most lines that can be told apart.
const LINES: usize = 8;

pub(super) fn norms(run: &Run) -> Option<String> {
    if run.inputs.is_empty() {
        return None;
    }
    let mut kinds: Vec<&str> = Vec::new();
    for input in &run.inputs {
        if kinds.len() < LINES && !kinds.contains(&input.kind.as_str()) {
            kinds.push(&input.kind);
        }
    }
    let block = |input: &RunInput| -> Option<f64> {
        let number = input.block.as_deref()?.rsplit('.').next()?;
        Some(f64::from(number.parse::<u32>().ok()?))
    };
    let last = run.inputs.iter().filter_map(block).fold(0.0, f64::max);
    let largest = run
        .inputs
        .iter()
        .map(|input| input.largest)
        .fold(OUTLIER_FEATURE, f64::max);
    let x = Axis::new((0.0, last.max(1.0)), (56.0, f64::from(WIDTH) - 16.0));
    let y = Axis::new(
        (0.0, largest.log10() * 1.05),
        (f64::from(HEIGHT) - 40.0, 12.0),
    );
    let lines: Vec<(f64, String)> = (round_values(1.0, largest).into_iter())
        .map(|value| (value.log10(), format!("x {}", number(value))))
        .collect();
    let mut svg = horizontal_grid(&lines, x, y);
    let outlier = y.at(OUTLIER_FEATURE.log10());
    let _ = write!(
        svg,
        "<path class=\"threshold\" d=\"M{:.0} {outlier:.1}H{:.0}\"/>",
        x.from, x.to
    );
    for (line, kind) in kinds.iter().enumerate() {
        let mut points: Vec<(f64, f64)> = (run.inputs.iter())
            .filter(|input| input.kind == *kind)
            .filter_map(|input| Some((block(input)?, input.largest.max(1.0).log10())))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let path: String = (points.iter().enumerate())
            .map(|(place, &(block, size))| {
                let pen = if place == 0 { 'M' } else { 'L' };
                format!("{pen}{:.0} {:.1}", x.at(block), y.at(size))
            })
            .collect();
        let _ = write!(svg, "<path class=\"line c{line}\" d=\"{path}\"/>");
    }
    let every = ((last / 8.0).ceil() as usize).max(1);
    let marks: Vec<(f64, String)> = (0..=last as usize)
        .step_by(every)
        .map(|block| (block as f64, block.to_string()))
        .collect();
    svg += &labels_below(&marks, x, f64::from(HEIGHT) - 22.0);
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{}\" class=\"middle\">decoder block</text>",
        WIDTH / 2,
        HEIGHT - 4
    );
    let classes: Vec<String> = (0..kinds.len())
        .map(|line| format!("line c{line}"))
        .collect();
    let meanings: Vec<String> = kinds
        .iter()
        .map(|kind| format!("input of {kind}"))
        .collect();
    let mut marks: Vec<(&str, &str)> = (classes.iter().zip(&meanings))
        .map(|(class, meaning)| (class.as_str(), meaning.as_str()))
        .collect();
    let from = format!("{OUTLIER_FEATURE} times a usual one: above it, a feature stands out");
    marks.push(("threshold", &from));
    let said =
        "The largest feature of each input, block by block, in multiples of the input's median.";
    Some(
        legend(&marks)
            + &scroll(said, &picture(WIDTH, HEIGHT, said, &svg))
            + &outliers(&run.inputs),
    )
}

/// The features that stand out in the most blocks.
fn outliers(inputs: &[RunInput]) -> String {
    let mut found: BTreeMap<(&str, usize), (usize, f64)> = BTreeMap::new();
    for input in inputs {
        for &(feature, size) in &input.outliers {
            let (blocks, largest) = found.entry((&input.kind, feature)).or_default();
            *blocks += 1;
            *largest = largest.max(size);
        }
    }
    let all = (inputs.iter()).fold(0, |sum: usize, input| {
        sum.saturating_add(input.outlier_count)
    });
    let usual = inputs
        .iter()
        .map(|input| input.percentile_99)
        .fold(0.0, f64::max);
    let all = format!(
        "<p>{all} features of {} inputs are larger than {OUTLIER_FEATURE} times their input's median; 99 of 100 are below {} times \
         in every input.</p>\n",
        inputs.len(),
        number(usual)
    );
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by(|a, b| (b.1.0).cmp(&a.1.0).then(b.1.1.total_cmp(&a.1.1)));
    let lines: String = (found.iter().take(NAMED))
        .map(|((kind, feature), (blocks, largest))| {
            format!(
                "<li>feature {feature} at the input of {}: in {blocks} {}, up to {} times the median</li>\n",
                escape(kind),
                if *blocks == 1 { "block" } else { "blocks" },
                number(*largest)
            )
        })
        .collect();
    if lines.is_empty() {
        all
    } else {
        format!("{all}<ul>{lines}</ul>\n")
    }
}
