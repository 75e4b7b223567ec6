//! A sweep: perplexity against sparsity, and the table.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::chart::{Axis, horizontal_grid, labels_below, round_values};
use super::html::{
    count, escape, legend, number, percent, picture, scroll, section as one_section,
};
use crate::report::sweep::{SweepCell, SweepReport};
use crate::text::windows_of;

const WIDTH: u32 = 800;
const HEIGHT: u32 = 400;

/// Colours with their dashes.
const LINES: usize = 8;

/// The most lines that are drawn, and the most cells that are listed; the JSON has all.
const MOST_LINES: usize = 64;
const MOST_CELLS: usize = 1500;

/// How a line is drawn: its colour and dashes, and thinner once they are used up.
fn look(line: usize) -> String {
    let thin = if line >= LINES { " thin" } else { "" };
    format!("c{}{thin}", line % LINES)
}

/// Whether cells of one rule have several ranks, so that a name has to say which.
fn has_ranks(sweep: &SweepReport) -> bool {
    let ranks = |is_pattern: bool| {
        let cells = sweep
            .cells
            .iter()
            .filter(|cell| (cell.rule == "pattern") == is_pattern);
        let ranks = cells.filter_map(|cell| cell.compensation_rank);
        ranks.collect::<std::collections::BTreeSet<usize>>().len()
    };
    ranks(true) > 1 || ranks(false) > 1
}

/// What a line of the picture has in common.
fn series(cell: &SweepCell, with_rank: bool) -> String {
    let mut name = cell.score.clone();
    if let Some(rank) = cell.compensation_rank {
        name += ", compensated";
        if with_rank {
            name += &format!(" (rank {rank})");
        }
    }
    if let Some(spread) = cell.spread {
        name += &format!(", {} {spread}", cell.allocation);
    }
    name
}

/// How much was asked for.
fn pruned(cell: &SweepCell) -> String {
    match cell.pruned.parse::<f64>() {
        Ok(fraction) => format!("{} %", percent(fraction)),
        Err(_) => cell.pruned.clone(),
    }
}

pub(super) fn section(sweep: &SweepReport) -> String {
    let inner = plot(sweep) + &table(sweep) + &facts(sweep);
    one_section(
        &format!(
            "What each way to prune costs: {}",
            super::settings::short_name(&sweep.model)
        ),
        "Each dot is one pruned model, further right the sparser and higher up the worse; choose the rightmost one whose height you can \
         live with.",
        &inner,
    )
}

fn plot(sweep: &SweepReport) -> String {
    // Perplexities that are no numbers have no place in the picture.
    let drawn =
        |cell: &&SweepCell| cell.quality.perplexity.is_finite() && cell.quality.perplexity > 0.0;
    let cells: Vec<&SweepCell> = sweep.cells.iter().filter(drawn).collect();
    let dense = sweep.dense.perplexity;
    if cells.is_empty() || !dense.is_finite() || dense <= 0.0 {
        return String::new();
    }
    let perplexities = || cells.iter().map(|cell| cell.quality.perplexity);
    let low = perplexities().fold(dense, f64::min) * 0.9;
    let high = perplexities().fold(dense, f64::max) * 1.15;
    let sparsities = || cells.iter().map(|cell| cell.sparsity);
    let left = sparsities().fold(1.0, f64::min);
    let right = sparsities().fold(0.0, f64::max);
    let x = Axis::new(
        ((left - 0.05).max(0.0), (right + 0.05).min(1.0)),
        (64.0, f64::from(WIDTH) - 16.0),
    );
    let y = Axis::new(
        (low.log10(), high.log10()),
        (f64::from(HEIGHT) - 44.0, 12.0),
    );
    let lines: Vec<(f64, String)> = (round_values(low, high).into_iter())
        .map(|value| (value.log10(), number(value)))
        .collect();
    let mut svg = horizontal_grid(&lines, x, y);
    let at = y.at(dense.log10());
    let _ = write!(
        svg,
        "<path class=\"threshold\" d=\"M{:.0} {at:.1}H{:.0}\"/>",
        x.from, x.to
    );
    let with_rank = has_ranks(sweep);
    let mut named: HashSet<&str> = HashSet::new();
    let mut names: Vec<String> = Vec::new();
    let mut lines: Vec<Vec<&SweepCell>> = Vec::new();
    for &cell in cells.iter().take(MOST_CELLS) {
        let name = series(cell, with_rank);
        match names.iter().position(|known| *known == name) {
            Some(line) => lines[line].push(cell),
            None if names.len() < MOST_LINES => {
                names.push(name);
                lines.push(vec![cell]);
            }
            None => {}
        }
    }
    for (line, mut of_line) in lines.into_iter().enumerate() {
        of_line.sort_by(|a, b| a.sparsity.total_cmp(&b.sparsity));
        let class = look(line);
        let place = |cell: &SweepCell| (x.at(cell.sparsity), y.at(cell.quality.perplexity.log10()));
        let path: String = (of_line
            .iter()
            .filter(|cell| cell.rule != "pattern")
            .enumerate())
        .map(|(index, cell)| {
            let pen = if index == 0 { 'M' } else { 'L' };
            let (x, y) = place(cell);
            format!("{pen}{x:.1} {y:.1}")
        })
        .collect();
        let _ = write!(svg, "<path class=\"line {class}\" d=\"{path}\"/>");
        for cell in of_line {
            let (left, top) = place(cell);
            if let Some(error) = cell.quality.perplexity_standard_error {
                let perplexity = cell.quality.perplexity;
                let ends =
                    [perplexity - error, perplexity + error].map(|p| y.at(p.max(low).log10()));
                let _ = write!(
                    svg,
                    "<path class=\"line {class}\" d=\"M{left:.1} {:.1}V{:.1}\"/>",
                    ends[0], ends[1]
                );
            }
            if cell.rule == "pattern" {
                let _ = write!(
                    svg,
                    "<path class=\"dot {class}\" d=\"M{left:.1} {:.1}l6 6l-6 6l-6-6z\"/>",
                    top - 6.0
                );
                // All of one pattern stand above each other.
                if named.insert(&cell.pruned) {
                    let _ = write!(
                        svg,
                        "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                        left + 9.0,
                        top + 4.0,
                        escape(&cell.pruned)
                    );
                }
            } else {
                let _ = write!(
                    svg,
                    "<circle class=\"dot {class}\" cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"4\"/>"
                );
            }
        }
    }
    let first = (x.low * 10.0).ceil() as u32;
    let marks: Vec<(f64, String)> = (first..=(x.high * 10.0).floor() as u32)
        .map(|tenth| (f64::from(tenth) / 10.0, format!("{} %", tenth * 10)))
        .collect();
    svg += &labels_below(&marks, x, f64::from(HEIGHT) - 26.0);
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{}\" class=\"middle\">zeros, in percent of the prunable weights; upwards, perplexity (bars: one standard error)</text>",
        WIDTH / 2,
        HEIGHT - 6
    );
    let said = format!(
        "Perplexity of {} pruned models against their sparsity. The dense model has {}. The table below has every number.",
        cells.len(),
        number(dense)
    );
    let classes: Vec<String> = (0..names.len())
        .map(|line| format!("line {}", look(line)))
        .collect();
    let mut marks: Vec<(&str, &str)> = (classes.iter().zip(&names))
        .map(|(class, name)| (class.as_str(), name.as_str()))
        .collect();
    marks.push(("threshold", "the dense model"));
    legend(&marks)
        + &scroll(
            "Perplexity against sparsity",
            &picture(WIDTH, HEIGHT, &said, &svg),
        )
}

fn table(sweep: &SweepReport) -> String {
    let with_error = |value: f64, error: Option<f64>| {
        let error = error.map_or_else(String::new, |error| format!(" \u{b1} {error:.2}"));
        format!("{value:.2}{error}")
    };
    let dense = &sweep.dense;
    let mut rows = format!(
        "<tr><th scope=\"row\">dense</th><td>-</td><td class=\"n\">0.0</td><td class=\"n\">{}</td><td class=\"n\">-</td></tr>\n",
        with_error(dense.perplexity, dense.perplexity_standard_error)
    );
    let with_rank = has_ranks(sweep);
    for cell in sweep.cells.iter().take(MOST_CELLS) {
        let error = cell.difference_standard_error;
        let error = error.map_or_else(String::new, |error| format!(" \u{b1} {error:.4}"));
        rows += &format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{:+.4}{error}</td></tr>\n",
            escape(&series(cell, with_rank)),
            escape(&pruned(cell)),
            percent(cell.sparsity),
            with_error(
                cell.quality.perplexity,
                cell.quality.perplexity_standard_error
            ),
            cell.difference
        );
    }
    let heads = [
        "way to prune",
        "asked",
        "zeros, %",
        "perplexity",
        "nats more than dense",
    ];
    let heads: String = (heads.iter())
        .map(|head| format!("<th scope=\"col\">{head}</th>"))
        .collect();
    let table = format!(
        "<table class=\"plain\"><thead><tr>{heads}</tr></thead><tbody>\n{rows}</tbody></table>"
    );
    let more = match sweep.cells.len().saturating_sub(MOST_CELLS) {
        0 => String::new(),
        n => format!("<p>{} more are in the JSON.</p>\n", count(n as u64)),
    };
    scroll("Every way to prune", &table) + &more
}

fn facts(sweep: &SweepReport) -> String {
    let norms = sweep.norms.as_deref().unwrap_or("none");
    format!(
        "<p>Measured on {}: {} tokens in {} {}, on {}. Norms: {}. \u{b1} is the standard error over windows; the difference is \
         paired, window by window.</p>\n<pre tabindex=\"0\"><code>{}</code></pre>\n",
        escape(&sweep.text),
        count(sweep.tokens as u64),
        count(sweep.windows as u64),
        escape(&windows_of(sweep.context, &sweep.prefix)),
        escape(&sweep.device),
        escape(norms),
        escape(&sweep.command.join(" "))
    )
}
