//! What the model card says of a run.

use std::path::Path;

use super::error::Error;
use super::event::Event;
use crate::checkpoint::{Checkpoint, Source};
use crate::plan::{Options, Plan};
use crate::report::{Card, REPORT_JSON, Report};
use crate::selection::Selection;
use crate::text::{windows_of, windows_said};
use crate::untrusted::shown_path;

/// Adds the card to an output directory, beside which there is a README.md or none, with the report.
///
/// # Errors
/// [`Error::Report`].
pub(super) fn write(
    report: &mut Report,
    plan: &Plan,
    tell: &(dyn Fn(Event<'_>) + Sync),
) -> Result<(), Error> {
    if !report.output.is_dir() {
        return Ok(());
    }
    let card = card(report, plan.checkpoint(), plan.options());
    let written = card.write(&report.output, report);
    let said = written.map_err(|reason| Error::Report {
        path: report.output.join(REPORT_JSON),
        reason,
    })?;
    if let Some(warning) = said {
        tell(Event::Warning(&warning));
        report.warnings.push(warning);
    }
    Ok(())
}

/// The card of a finished run.
fn card(report: &Report, checkpoint: &Checkpoint, options: &Options) -> Card {
    let percent = |fraction: f64| format!("{:.2} %", 100.0 * fraction);
    let (prunable, all) = (&report.prunable, &report.all_weights);
    let mut facts = vec![
        (
            "zeros",
            format!(
                "{} of {} prunable weights ({}), {} of all",
                prunable.zeros,
                prunable.weights,
                percent(prunable.sparsity),
                percent(all.sparsity)
            ),
        ),
        ("asked", asked(options)),
        ("score", report.score.to_owned()),
    ];
    facts.push((
        "calibration",
        match &report.norms {
            Some(norms) => {
                let text = norms.metadata.get("text");
                let text = text.cloned().unwrap_or_else(|| shown_path(&norms.path));
                let tokens = norms
                    .tokens
                    .map_or_else(String::new, |n| format!(", {n} tokens"));
                let windows = windows_said(&norms.metadata)
                    .map_or_else(String::new, |said| format!(" in {said}"));
                format!("{text}{tokens}{windows}")
            }
            None => "none: by the weights alone".to_owned(),
        },
    ));
    if let Some(compensation) = &report.compensation {
        let left = prunable.output_error_left.map_or_else(String::new, |left| {
            format!(", which leaves {} of the output error", percent(left))
        });
        facts.push((
            "kept weights",
            format!("compensated, rank {}{left}", compensation.rank),
        ));
    }
    facts.push(("device", report.device.to_string()));
    if let Some(evaluation) = &report.evaluation {
        let with_error = |perplexity: f64, error: Option<f64>| {
            let error = error.map_or_else(String::new, |e| format!(" +- {:.2}", perplexity * e));
            format!("{perplexity:.2}{error}")
        };
        let before = with_error(evaluation.perplexity, evaluation.loss_standard_error);
        let after = evaluation
            .against
            .as_ref()
            .map_or_else(String::new, |after| {
                let after = with_error(after.perplexity, after.loss_standard_error);
                format!("{after} (before: {before})")
            });
        let text = &evaluation.text;
        let number = evaluation.windows;
        let windows = windows_of(evaluation.context, &evaluation.prefix);
        facts.push((
            "perplexity",
            format!("{after} on {text}, {number} {windows}"),
        ));
    }
    let base_model = match &checkpoint.source {
        Source::Cache { id, .. } => Some(id.clone()),
        _ => None,
    };
    let directory = checkpoint.source.directory();
    Card {
        facts,
        command: command(&report.command),
        model: base_model
            .clone()
            .unwrap_or_else(|| directory.map_or_else(|| shown_path(&report.input), shown_path)),
        base_model,
        survivors: match report.compensation {
            Some(_) => "The weights that stay were compensated for those that went.",
            None => "The weights that stay keep their bits.",
        },
    }
}

/// The words of the command; the program without the directory that it lies in here.
fn command(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    if let Some(program) = words.first_mut()
        && let Some(name) = Path::new(&*program).file_name()
    {
        *program = name.to_string_lossy().into_owned();
    }
    words
}

fn asked(options: &Options) -> String {
    let rule = match options.selection {
        Selection::Ewma { sparsity, .. } => {
            format!("{} % of each row, moving average", 100.0 * sparsity)
        }
        Selection::Exact { sparsity } => {
            format!("{} % of each row, lowest scores", 100.0 * sparsity)
        }
        Selection::Lambda { lambda, .. } => format!("lambda {lambda}"),
        Selection::Pattern(pattern) => {
            format!("{pattern} ({} kept of every {})", pattern.n(), pattern.m())
        }
    };
    match options.allocation.spread() {
        Some(spread) => format!(
            "{rule}; shared out by {} (spread {spread})",
            options.allocation.name()
        ),
        None => rule,
    }
}
