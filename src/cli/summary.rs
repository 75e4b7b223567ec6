//! What a run did, for humans: the table of kinds and the closing lines.

use swiftprune_wgpu::prune::Survivors;
use swiftprune_wgpu::report::{Report, Totals};
use swiftprune_wgpu::untrusted::{shown, shown_path};

use super::terminal::Terminal;
use super::{eval, output, verify};

/// The most files that are not copied and named one by one.
const MOST_LEFT_OUT: usize = 12;

/// WEIGHTS, ZEROS, TENSORS and ASKED go in this order where a terminal is too narrow for all.
const DISPENSABLE: [usize; 4] = [2, 3, 1, 5];

/// Says the table of kinds, of the run's warnings those that nobody has `told` yet, and what was left out.
pub(super) fn summary(report: &Report, told: &[String], terminal: Terminal) {
    let squares = report.prunable.squared_error.is_some();
    let mut head = vec!["KIND", "TENSORS", "WEIGHTS", "ZEROS", "SPARSITY", "ASKED"];
    if squares {
        head.push("ERROR");
    }
    let line = |row: &Totals| {
        let mut cells = vec![
            shown(&row.kind).to_string(),
            output::count(row.tensors as u64),
            output::count(row.weights),
            output::count(row.zeros),
            output::percent(row.sparsity),
            row.asked.map_or_else(|| "-".to_owned(), output::percent),
        ];
        if squares {
            cells.push(
                row.squared_error
                    .map_or_else(|| "-".to_owned(), output::percent),
            );
        }
        cells
    };
    let mut rows = vec![head.into_iter().map(str::to_owned).collect()];
    rows.extend(report.kinds.iter().chain([&report.prunable]).map(line));
    for left in &report.left_dense {
        let mut cells = vec![
            "left dense".to_owned(),
            output::count(left.tensors() as u64),
            output::count(left.weights),
        ];
        cells.resize(rows[0].len(), "-".to_owned());
        rows.push(cells);
    }
    rows.push(line(&report.all_weights));
    let mut text = output::table_within(terminal.width, &rows, &[1, 2, 3, 4, 5, 6], &DISPENSABLE);
    if !report.blocks.is_empty() {
        let head = ["BLOCK", "TENSORS", "WEIGHTS", "ZEROS", "SPARSITY", "ASKED"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(report.blocks.iter().map(|block| {
            let mut cells = line(block);
            cells.truncate(head.len());
            cells
        }));
        text += &output::table_within(terminal.width, &rows, &[1, 2, 3, 4, 5], &DISPENSABLE);
    }
    if let Some(left) = report.prunable.output_error_left {
        text += &format!(
            "kept weights were compensated: {} of the output error of pruning alone is left (predicted from the sketch)\n",
            output::percent(left)
        );
    }
    terminal.say(text.trim_end());
    let untold = |warning: &&String| !told.contains(warning);
    for warning in report.warnings.iter().filter(untold) {
        terminal.warn(warning);
    }
    let kept = report.prunable.non_finite;
    if kept > 0 {
        let kept = output::count(kept);
        terminal.say(format_args!(
            "{kept} NaN or infinite weights were left unchanged"
        ));
    }
    for (name, reason) in report.left_out.iter().take(MOST_LEFT_OUT) {
        terminal.say(format_args!("not copied: {} ({reason})", shown(name)));
    }
    let more = report.left_out.len().saturating_sub(MOST_LEFT_OUT);
    if more > 0 {
        let all = output::count(report.left_out.len() as u64);
        terminal.say(format_args!(
            "not copied: {more} more, {all} in all (--report lists them)"
        ));
    }
}

/// What flags asked for beside the output: that it was verified, its sums, its perplexity. Empty without such flags.
pub(super) fn results(report: &Report) -> String {
    let mut text = String::new();
    if let Some(verified) = &report.verified {
        let survivors = match report.compensation {
            Some(_) => Survivors::Compensated,
            None => Survivors::Unchanged,
        };
        text += &verify::line(verified, survivors, &shown_path(&report.output));
        text.push('\n');
    }
    for (name, sum) in report.sha256.iter().flatten() {
        text += &format!("sha256 {sum}  {}\n", shown(name));
    }
    if let Some(evaluation) = &report.evaluation {
        text += &eval::lines(evaluation);
    }
    text
}

/// Where the output is, and how long it took.
pub(super) fn closing(report: &Report) -> String {
    format!(
        "{}: {} in {:.2} s ({:.2} GB/s) on {}{}",
        shown_path(&report.output),
        output::bytes(report.bytes),
        report.seconds,
        report.bytes as f64 / 1e9 / report.seconds,
        report.device,
        if report.device_failures.is_empty() {
            ""
        } else {
            " and, after it failed, the CPU"
        }
    )
}
