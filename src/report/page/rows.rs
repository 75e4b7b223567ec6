//! Scores along a row, with the moving average, its band and the threshold.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::chart::{Axis, horizontal_grid, labels_below, steps};
use super::data::{Run, RunRow};
use super::html::{escape, legend, number, picture, scroll};

const WIDTH: u32 = 960;
const HEIGHT: u32 = 280;

/// The most rows that are drawn; a report has a few.
const MOST: usize = 32;

pub(super) fn rows(run: &Run) -> Option<String> {
    if run.rows.is_empty() {
        return None;
    }
    let mut marks = vec![("kept", "kept"), ("pruned", "became zero")];
    if run.rows.iter().any(|row| !row.averages.is_empty()) {
        marks.push(("average", "moving average of the scores"));
        marks.push(("band", "its band: one mean deviation to each side"));
    }
    if run
        .rows
        .iter()
        .any(|row| row.lambda.is_some() || row.threshold.is_some())
    {
        marks.push(("threshold", "threshold: lambda deviations from the average"));
    }
    let rows: String = run.rows.iter().take(MOST).map(row).collect();
    Some(legend(&marks) + &rows)
}

fn row(row: &RunRow) -> String {
    let mut finite: Vec<f64> = row
        .scores
        .iter()
        .flatten()
        .copied()
        .filter(|s| s.is_finite())
        .collect();
    finite.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (share * finite.len().saturating_sub(1) as f64) as usize;
        finite.get(place).copied().unwrap_or(0.0)
    };
    // The lowest few scores would take half of the picture; they stand on its edge.
    let (low, high) = (at(0.02).floor() - 1.0, at(1.0).ceil());
    let columns = row.scores.len().max(1);
    let x = Axis::new((0.0, columns as f64), (56.0, f64::from(WIDTH) - 20.0));
    let y = Axis::new((low, high), (f64::from(HEIGHT) - 40.0, 8.0));
    let step = (((high - low) / 6.0).ceil()).max(1.0);
    let middle = at(0.5).round();
    let label = |line: f64| {
        let power = 2_f64.powf((line - middle).abs());
        let power = match power {
            power if power < 1e6 => power.to_string(),
            power => number(power),
        };
        match line - middle {
            0.0 => "median".to_owned(),
            above if above > 0.0 => format!("x {power}"),
            _ => format!("x 1/{power}"),
        }
    };
    let first = low + (middle - low).rem_euclid(step);
    let lines: Vec<(f64, String)> = (steps(first, step, high).into_iter())
        .map(|line| (line, label(line)))
        .collect();
    let mut svg = horizontal_grid(&lines, x, y);
    let block = row.block_size.unwrap_or(columns).max(1);
    let edges = |index: usize| {
        let begin = index.saturating_mul(block);
        let end = begin.saturating_add(block).min(columns);
        (x.at(begin as f64), x.at(end as f64))
    };
    let mut above = String::new();
    let mut below = Vec::new();
    let (mut average, mut threshold) = (String::new(), String::new());
    for (index, &[mean, deviation]) in row.averages.iter().enumerate() {
        let (from, to) = edges(index);
        let pen = if index == 0 { 'M' } else { 'L' };
        let _ = write!(
            above,
            "{pen}{from:.0} {:.1}H{to:.0}",
            y.at(mean + deviation)
        );
        below.push(format!("L{to:.0} {0:.1}H{from:.0}", y.at(mean - deviation)));
        let _ = write!(average, "{pen}{from:.0} {:.1}H{to:.0}", y.at(mean));
        if let Some(lambda) = row.lambda {
            let _ = write!(
                threshold,
                "{pen}{from:.0} {:.1}H{to:.0}",
                y.at(mean + lambda * deviation)
            );
        }
    }
    if let Some(flat) = row.threshold {
        let _ = write!(threshold, "M{:.0} {:.1}H{:.0}", x.from, y.at(flat), x.to);
    }
    below.reverse();
    if !above.is_empty() {
        let _ = write!(
            svg,
            "<path class=\"band\" d=\"{above}{}Z\"/>",
            below.concat()
        );
    }
    let pruned: HashSet<usize> = row.pruned.iter().copied().collect();
    let (mut dots, mut kept) = (String::new(), String::new());
    for (column, score) in row.scores.iter().enumerate() {
        let to = if pruned.contains(&column) {
            &mut dots
        } else {
            &mut kept
        };
        let value = score.unwrap_or(f64::NEG_INFINITY);
        let _ = write!(to, "M{:.0} {:.0}h0", x.at(column as f64 + 0.5), y.at(value));
    }
    let _ = write!(
        svg,
        "<path class=\"kept\" d=\"{kept}\"/><path class=\"pruned\" d=\"{dots}\"/>\
         <path class=\"average\" d=\"{average}\"/><path class=\"threshold\" d=\"{threshold}\"/>"
    );
    let marks: Vec<(f64, String)> = (0..=columns / 128)
        .map(|mark| ((mark * 128) as f64, (mark * 128).to_string()))
        .collect();
    svg += &labels_below(&marks, x, f64::from(HEIGHT) - 22.0);
    let _ = write!(
        svg,
        "<text x=\"{:.0}\" y=\"{}\" class=\"middle\">column of the row (the first {columns} of {})</text>",
        (x.from + x.to) / 2.0,
        HEIGHT - 4,
        row.in_features
    );
    let said = format!(
        "Scores of row {} of {}: {} of the first {columns} weights became zero.",
        row.row,
        row.tensor,
        row.pruned.len()
    );
    let lambda = row
        .lambda
        .map_or_else(String::new, |lambda| format!(", lambda {lambda:.2}"));
    format!(
        "<h3>{}, row {}{lambda}</h3>\n{}",
        escape(&row.tensor),
        row.row,
        scroll(&said, &picture(WIDTH, HEIGHT, &said, &svg))
    )
}
