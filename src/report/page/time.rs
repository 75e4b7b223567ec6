//! Where the time went, beside a plain copy.

use super::chart::share;
use super::data::Run;
use super::html::{bytes, escape, scroll, seconds};

pub(super) fn time(run: &Run) -> Option<String> {
    if run.phases.is_empty() && run.seconds == 0.0 {
        return None;
    }
    let mut bars: Vec<(String, f64, bool)> = Vec::new();
    let names = [
        ("calibrate", "measuring the inputs (calibration)"),
        ("allocate", "sharing out the sparsity"),
        ("prune", "pruning, and writing the output"),
        ("verify", "verifying the output"),
        ("checksum", "hashing the output"),
        ("evaluate", "perplexity before and after"),
    ];
    for (phase, name) in names {
        if let Some(&time) = run.phases.get(phase) {
            bars.push((name.to_owned(), time, false));
        }
    }
    if bars.is_empty() {
        bars.push((names[2].1.to_owned(), run.seconds, false));
    }
    let mut note = String::new();
    if let Some(copy) = run.plain_copy.as_ref().filter(|copy| copy.bytes > 0) {
        let whole = copy.seconds * run.bytes as f64 / copy.bytes as f64;
        bars.push(("a plain copy, for comparison".to_owned(), whole, true));
        note = format!(
            "<p>A copy of the first {} took {}; the bar is that for all {}.</p>\n",
            bytes(copy.bytes),
            seconds(copy.seconds),
            bytes(run.bytes)
        );
    }
    let longest = bars.iter().map(|bar| bar.1).fold(1e-9, f64::max);
    let rows: String = (bars.iter())
        .map(|(name, time, is_copy)| {
            format!(
                "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"wide\"><span class=\"bar{}\" style=\"width:{:.1}%\">\
                 </span></td></tr>\n",
                escape(name),
                seconds(*time),
                if *is_copy { " copy" } else { "" },
                100.0 * share(time / longest)
            )
        })
        .collect();
    let heads = "<thead><tr><th scope=\"col\">part</th><th scope=\"col\">time</th><th scope=\"col\">beside the longest</th></tr></thead>";
    let table = format!("<table class=\"bars\">{heads}<tbody>{rows}</tbody></table>");
    let stages: Vec<String> = (run.stages.iter())
        .filter(|(_, time)| **time > 0.0)
        .map(|(stage, time)| format!("{} {}", escape(stage), seconds(*time)))
        .collect();
    let stages = if stages.is_empty() {
        String::new()
    } else {
        format!(
            "<p>Pruning by stage, summed over threads, which work at the same time: {}.</p>\n",
            stages.join(", ")
        )
    };
    Some(scroll("Time by part of the run", &table) + &note + &stages)
}
