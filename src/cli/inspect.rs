//! `inspect`: what a checkpoint holds.

use std::io::Write as _;

use anyhow::Context as _;
use swiftprune_wgpu::inspect::{Ability, Error, Inspection, Inspector, Statistics, Totals};
use swiftprune_wgpu::plan::NameFilter;
use swiftprune_wgpu::run::Stop;
use swiftprune_wgpu::untrusted::{shown, shown_path};

use super::args::Inspect;
use super::output;
use super::progress::ByteBar;
use super::prune::print_json;
use super::signals::Signals;
use super::terminal::Terminal;

pub(super) fn run(args: &Inspect, terminal: Terminal) -> anyhow::Result<()> {
    let globs = NameFilter::new(&args.include, &args.exclude)?;
    let inspector = Inspector::new(&args.model, &globs)?;
    let stop = Stop::new();
    let signals = Signals::stopping(&stop).context("cannot install the signal handlers")?;
    let bar = ByteBar::new("reading", inspector.bytes(), terminal);
    let threads = args.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        usize::from,
    );
    let inspection = inspector.run(threads, &|bytes| bar.inc(bytes), &stop);
    bar.finish();
    let inspection = signals.result(inspection, |error| matches!(error, Error::Stopped))?;
    if args.json {
        print_json(&inspection)?;
    } else {
        write!(std::io::stdout(), "{}", text(&inspection))?;
    }
    Ok(())
}

/// Three lines a tensor at most, none wider than 80 columns unless a name or a reason is.
fn text(inspection: &Inspection) -> String {
    let mut text = String::new();
    let model_type = inspection.model_type.as_deref().map(shown);
    text += &format!("model       {}\n", shown_path(&inspection.model));
    text += &format!(
        "files       {}, {}\n",
        inspection.files,
        output::bytes(inspection.bytes)
    );
    text += &format!(
        "model_type  {}\n",
        model_type.map_or_else(
            || "none: there is no config.json that names one".to_owned(),
            |name| name.to_string()
        )
    );
    let ability = |ability: &Ability| match &ability.because {
        None => "yes".to_owned(),
        Some(because) => format!("no: {because}"),
    };
    text += &format!("calibrates  {}\n", ability(&inspection.calibrates));
    text += &format!("evaluates   {}\n", ability(&inspection.evaluates));
    let refused = inspection.refused.as_ref();
    text += &format!(
        "prunes      {}\n",
        refused.map_or_else(|| "yes".to_owned(), |because| format!("no: {because}"))
    );
    for warning in &inspection.warnings {
        text += &format!("index       {warning}\n");
    }
    text.push('\n');
    let head = [
        "", "DTYPE", "SHAPE", "ZEROS", "N:M", "MIN |W|", "MEAN", "MAX",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for tensor in &inspection.tensors {
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        let mut row = vec![
            format!("  {}", tensor.action.name()),
            tensor.dtype.clone(),
            shape.join("x"),
        ];
        match &tensor.statistics {
            Some(statistics) => row.extend(cells(statistics)),
            None => row.push("not counted".to_owned()),
        }
        rows.push(row);
    }
    let table = output::table(&rows, &[3, 5, 6, 7]);
    let mut lines = table.lines();
    text += lines.next().unwrap_or_default();
    text.push('\n');
    for (tensor, line) in inspection.tensors.iter().zip(lines) {
        text += &format!("{}\n{line}\n", shown(&tensor.name));
        if tensor.action.name() != "prune" {
            text += &format!("    {}\n", shown(&tensor.because));
        }
        let non_finite = tensor.statistics.as_ref().map_or(0, |all| all.non_finite);
        if non_finite > 0 {
            text += &format!(
                "    {} weights are NaN or infinite\n",
                output::count(non_finite)
            );
        }
    }
    text += "\n";
    let head = [
        "",
        "TENSORS",
        "BYTES",
        "WEIGHTS",
        "ZEROS",
        "SPARSITY",
        "NOT FINITE",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (what, totals) in [("prunable", &inspection.prunable), ("all", &inspection.all)] {
        rows.push(total(what, totals));
    }
    text += &output::table(&rows, &[1, 2, 3, 4, 5, 6]);
    text
}

fn cells(statistics: &Statistics) -> Vec<String> {
    let patterns = statistics.strongest();
    let pattern = match (
        patterns.split_first(),
        statistics.zeros == statistics.weights,
    ) {
        (_, true) => "all 0".to_owned(),
        (Some((first, _)), _) => (*first).to_owned(),
        (None, _) => "-".to_owned(),
    };
    let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), short);
    vec![
        output::percent(statistics.sparsity),
        pattern,
        number(statistics.min),
        number(statistics.mean),
        number(statistics.max),
    ]
}

/// A number in eight characters at most.
fn short(number: f64) -> String {
    if number == 0.0 {
        "0".to_owned()
    } else if (1e-3..1e5).contains(&number) {
        let digits = 4 - number.log10().floor().max(0.0) as usize;
        format!("{number:.digits$}")
    } else {
        format!("{number:.2e}")
    }
}

fn total(what: &str, totals: &Totals) -> Vec<String> {
    vec![
        what.to_owned(),
        output::count(totals.tensors as u64),
        output::bytes(totals.bytes),
        output::count(totals.weights),
        output::count(totals.zeros),
        output::percent(totals.sparsity),
        output::count(totals.non_finite),
    ]
}
