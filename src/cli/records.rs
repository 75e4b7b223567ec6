//! How records of `bench` look: for a terminal, side by side in a document, and compact for an issue.

use std::collections::HashSet;

use swiftprune_wgpu::bench::{Measurement, Record};
use swiftprune_wgpu::device::DeviceKind;
use swiftprune_wgpu::untrusted::{escaped, shown};

use super::output;

/// What is said of every record of a software adapter.
const SOFTWARE: &str = "a software adapter: these times say nothing of a GPU";

/// What is said of every record of a build for debugging.
const DEBUG: &str = "not a release build: these times say nothing of a release";

/// Which device, then where and when, on a line of their own: what every record's heading says.
pub(super) fn heading(record: &Record) -> String {
    let Record {
        device, machine, ..
    } = record;
    let device = device.in_full();
    let machine = format!(
        "   {} cores of {}, {}, swiftprune-wgpu {}, {}",
        machine.cores, machine.cpu, machine.os, record.version, record.date
    );
    let mut lines = [device, machine]
        .map(|line| escaped(&line).to_string())
        .to_vec();
    if record.device.kind == DeviceKind::Software {
        lines.push(format!("   {SOFTWARE}"));
    }
    if record.debug {
        lines.push(format!("   {DEBUG}"));
    }
    lines.join("\n")
}

/// What is said of a case, each empty where it means nothing.
struct Said {
    what: String,
    median: String,
    spread: String,
    /// Bytes or operations a second.
    rate: String,
    /// Weights or tokens a second.
    amount: String,
    of_copy: String,
    of_product: String,
}

impl Said {
    fn new(record: &Record, case: &Measurement) -> Self {
        let summary = case.summary();
        let spread = summary.as_ref().map_or_else(String::new, |s| {
            let spread = 100.0 * (s.upper_quartile - s.lower_quartile) / s.median;
            let outliers: Vec<String> = s
                .outliers
                .iter()
                .map(|outlier| format!("{:.1}x", outlier / s.median))
                .collect();
            if outliers.is_empty() {
                format!("{spread:.0} %")
            } else {
                format!("{spread:.0} %, also {}", outliers.join(" "))
            }
        });
        let [bytes, operations, tokens, weights] =
            [case.bytes, case.operations, case.tokens, case.weights]
                .map(|amount| case.rate(amount));
        let share = |share: Option<f64>| share.map_or_else(String::new, percent);
        Self {
            what: shown(&case.what).to_string(),
            median: summary.map_or_else(String::new, |s| time(s.median)),
            spread,
            rate: match (operations, bytes) {
                (Some(operations), _) => format!("{} TFLOP/s", figure(operations / 1e12)),
                (None, Some(bytes)) => format!("{} GB/s", figure(bytes / 1e9)),
                (None, None) => String::new(),
            },
            amount: match (tokens, weights) {
                (Some(tokens), _) => format!("{tokens:.0} tokens/s"),
                (None, Some(weights)) => format!("{} G/s", figure(weights / 1e9)),
                (None, None) => String::new(),
            },
            of_copy: share(record.share_of_copy(case)),
            of_product: share(record.share_of_product(case)),
        }
    }

    /// In a cell of a table beside other devices.
    fn in_a_cell(&self) -> String {
        let of = |share: &str, what: &str| match share {
            "" => String::new(),
            share => format!("{share} of {what}"),
        };
        let more = [
            self.rate.clone(),
            of(&self.of_copy, "copy"),
            of(&self.of_product, "product"),
        ];
        let more: Vec<String> = more.into_iter().filter(|part| !part.is_empty()).collect();
        format!("{} ({})", self.median, more.join(", "))
    }
}

/// A share that may be small.
fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    match percent {
        percent if percent >= 9.95 => format!("{percent:.0} %"),
        percent if percent < 0.05 => "< 0.1 %".to_owned(),
        percent => format!("{percent:.1} %"),
    }
}

/// For a terminal: a table for each matrix, and for each model.
pub(super) fn table(record: &Record) -> String {
    let mut text = format!("{}\n", heading(record));
    for of in groups(record) {
        text += &format!("\n{}\n", shown(of));
        let head = [
            "CASE",
            "MEDIAN",
            "SPREAD",
            "RATE",
            "WEIGHTS",
            "OF COPY",
            "OF PRODUCT",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(
            record
                .cases
                .iter()
                .filter(|case| case.of == of)
                .map(|case| {
                    let said = Said::new(record, case);
                    vec![
                        said.what,
                        said.median,
                        said.spread,
                        said.rate,
                        said.amount,
                        said.of_copy,
                        said.of_product,
                    ]
                }),
        );
        text += &output::table(&without_empty_columns(rows), &[1, 3, 4, 5, 6]);
    }
    text + &left_out(record)
}

/// For an issue: what people compare, in a block that keeps its form. Passes that are a part of a fused one are left to the
/// records themselves.
pub(super) fn submit_text(record: &Record) -> String {
    let mut body = format!("{}\n", heading(record));
    for of in groups(record) {
        let is_compared = |case: &&Measurement| {
            let is_alone = case.tokens == 0 && !case.what.contains(' ') && case.what != "copy";
            case.of == of && !is_alone
        };
        body += &format!("\n{}\n", shown(of));
        let cases = record.cases.iter().filter(is_compared);
        let rows = cases.map(|case| {
            let said = Said::new(record, case);
            let of = |share: String, what: &str| {
                if share.is_empty() {
                    share
                } else {
                    format!("{share} of {what}")
                }
            };
            vec![
                format!("  {}", said.what),
                said.median,
                said.rate,
                of(said.of_copy, "copy"),
                of(said.of_product, "product"),
            ]
        });
        body += &output::table(&rows.collect::<Vec<_>>(), &[1, 2, 3, 4]);
    }
    body += &left_out(record);
    // What ends a block does not belong into it.
    format!("```text\n{}```\n", body.replace('`', "'"))
}

/// For a document: the devices, numbered, then a table for each matrix and each model, with a column a device.
pub(super) fn markdown(records: &[Record]) -> String {
    let mut text = String::new();
    for (number, record) in (1..).zip(records) {
        let lines: Vec<String> = heading(record).lines().map(in_markdown).collect();
        text += &format!("{number}. {}\n", lines.join("; "));
    }
    let mut kinds: Vec<&str> = Vec::new();
    for kind in records.iter().flat_map(groups).map(kind) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    for of_kind in kinds {
        text += &format!("\n**{}**\n\n", in_markdown(&shown(of_kind).to_string()));
        text += &side_by_side(records, of_kind);
    }
    text
}

/// What the devices have in common of one matrix or one model, though not all of them took it whole.
fn side_by_side(records: &[Record], of_kind: &str) -> String {
    let mut columns: Vec<(usize, &Record, &str)> = Vec::new();
    for (number, record) in (1..).zip(records) {
        let groups = groups(record).into_iter().filter(|of| kind(of) == of_kind);
        columns.extend(groups.map(|of| (number, record, of)));
    }
    let mut whats: Vec<&str> = Vec::new();
    let mut known = HashSet::new();
    for (_, record, of) in &columns {
        for case in record.cases.iter().filter(|case| case.of == **of) {
            if known.insert(case.what.as_str()) {
                whats.push(&case.what);
            }
        }
    }
    let mut lines = vec![vec![String::new()]];
    lines[0].extend(columns.iter().map(|(number, _, of)| {
        let rest = of[of_kind.len()..].trim_start_matches(", ");
        in_markdown(&format!("{number}: {}", shown(rest)))
    }));
    lines.push(vec!["---".to_owned(); columns.len() + 1]);
    for what in whats {
        let mut line = vec![in_markdown(&shown(what).to_string())];
        line.extend(columns.iter().map(|(_, record, of)| {
            let mut cases = record.cases.iter();
            let case = cases.find(|case| case.of == **of && case.what == what);
            case.map_or_else(String::new, |case| {
                in_markdown(&Said::new(record, case).in_a_cell())
            })
        }));
        lines.push(line);
    }
    let lines = lines
        .iter()
        .map(|cells| format!("| {} |\n", cells.join(" | ")));
    lines.collect()
}

/// A text that no table takes for its own signs.
fn in_markdown(text: &str) -> String {
    text.trim().replace('|', "\\|")
}

/// A matrix without its dtype and shape, a model without what was done to it.
fn kind(of: &str) -> &str {
    of.split(", ").next().unwrap_or(of)
}

/// What the cases are of, in their order.
fn groups(record: &Record) -> Vec<&str> {
    let mut groups: Vec<&str> = record.cases.iter().map(|case| case.of.as_str()).collect();
    groups.dedup();
    groups
}

fn left_out(record: &Record) -> String {
    let left_out = record.left_out.iter();
    left_out
        .map(|what| format!("left out: {}\n", shown(what)))
        .collect()
}

/// Rows, the first of which is the head, without the columns that have nothing below it.
fn without_empty_columns(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let columns = rows.first().map_or(0, Vec::len);
    let is_kept: Vec<bool> = (0..columns)
        .map(|column| rows[1..].iter().any(|row| !row[column].is_empty()))
        .collect();
    let kept = |row: Vec<String>| {
        let cells = row.into_iter().zip(&is_kept);
        cells
            .filter(|(_, kept)| **kept)
            .map(|(cell, _)| cell)
            .collect()
    };
    rows.into_iter().map(kept).collect()
}

/// A number with two digits behind the point, or three figures where that would say less.
fn figure(value: f64) -> String {
    let decimals = match value {
        value if value >= 1.0 => 2,
        value if value >= 0.1 => 3,
        value if value >= 0.01 => 4,
        _ => 5,
    };
    format!("{value:.decimals$}")
}

/// A time with three digits.
pub(super) fn time(seconds: f64) -> String {
    let units = [(1.0, "s"), (1e-3, "ms"), (1e-6, "us")];
    let (unit, name) = units
        .into_iter()
        .find(|&(unit, _)| seconds >= unit)
        .unwrap_or((1e-9, "ns"));
    let value = seconds / unit;
    let digits = if value < 10.0 {
        2
    } else {
        usize::from(value < 100.0)
    };
    format!("{value:.digits$} {name}")
}
