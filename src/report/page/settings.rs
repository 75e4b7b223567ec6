//! What was run, and what came of it in a few numbers.

use super::data::{Run, RunSelection};
use super::html::{bytes, count, escape, figure, number, percent, seconds};
use crate::text::{windows_of, windows_said};

/// The end of a path that says which model it is.
pub(super) fn short_name(path: &str) -> String {
    let mut parts = path.rsplit(['/', '\\']).filter(|part| !part.is_empty());
    let last = parts.next().unwrap_or(path);
    // The file's name is the same for all models.
    match (last.starts_with("model"), parts.next()) {
        (true, Some(directory)) => directory.to_owned(),
        _ => last.to_owned(),
    }
}

/// How much was asked for, in words.
pub(super) fn rule(selection: &RunSelection) -> String {
    let mut words = match (&selection.pattern, selection.sparsity, selection.lambda) {
        (Some(pattern), ..) => format!("{pattern}: N of every M weights are kept"),
        (_, Some(sparsity), _) => format!("{} % of each row", percent(sparsity)),
        (_, _, Some(lambda)) => format!("lambda {lambda}"),
        _ => selection.rule.clone(),
    };
    if let (Some(block), Some(gain)) = (selection.block_size, &selection.gain) {
        words += &format!(", by a moving average (blocks of {block}, gain {gain})");
    }
    if let Some(allocation) = &selection.allocation {
        words += &format!("; shared out over the blocks by {allocation}");
        if let Some(spread) = selection.spread {
            words += &format!(" (spread {spread})");
        }
    }
    words
}

/// The run in a few words, where there are several.
pub(super) fn caption(index: usize, run: &Run) -> String {
    let selection = &run.selection;
    let how = match (&selection.pattern, selection.sparsity) {
        (Some(pattern), _) => pattern.clone(),
        (None, Some(sparsity)) => format!("{} %", percent(sparsity)),
        _ => selection.rule.clone(),
    };
    let compensated = if run.compensation.is_some() {
        ", compensated"
    } else {
        ""
    };
    format!("{}. {} {how}{compensated}", index + 1, run.score)
}

/// Perplexity before and after, with its standard error.
pub(super) fn perplexity(run: &Run) -> Option<[String; 2]> {
    let evaluation = run.evaluation.as_ref()?;
    let shown = |perplexity: f64, error: Option<f64>| {
        let error = error.map_or_else(String::new, |error| {
            format!(" \u{b1} {}", number(perplexity * error))
        });
        format!("{}{error}", number(perplexity))
    };
    let before = shown(evaluation.perplexity, evaluation.loss_standard_error);
    let after = evaluation.against.as_ref();
    let after = after.map(|after| shown(after.perplexity, after.loss_standard_error));
    Some([before, after.unwrap_or_else(|| "not measured".to_owned())])
}

pub(super) fn section(runs: &[Run]) -> String {
    let figures: String = (runs.iter().enumerate())
        .map(|(index, run)| {
            let name = (runs.len() > 1).then(|| caption(index, run));
            figure(name.as_deref(), &(tiles(run) + &list(run)))
        })
        .collect();
    super::html::section(
        "What was run",
        "Pruning set the least important weights of the model to zero; these are the settings, and what came of it.",
        &format!("<div class=\"side\">{figures}</div>\n"),
    )
}

/// The few numbers that a reader wants first.
fn tiles(run: &Run) -> String {
    let mut tiles = Vec::new();
    if let Some(prunable) = &run.prunable {
        tiles.push((
            format!("{} %", percent(prunable.sparsity)),
            "of the prunable weights are zero",
        ));
    }
    if let Some([before, after]) = perplexity(run) {
        tiles.push((
            format!("{before} \u{2192} {after}"),
            "perplexity before and after: lower is better",
        ));
    }
    if let Some(error) = run.prunable.as_ref().and_then(|totals| totals.output_error) {
        tiles.push((
            format!("{} %", percent(error)),
            "predicted error of the layers' outputs",
        ));
    }
    tiles.push((seconds(run.seconds), "to prune and write"));
    let tiles = tiles.iter().map(|(value, meaning)| {
        format!(
            "<div><strong>{}</strong><span>{meaning}</span></div>",
            escape(value)
        )
    });
    format!("<div class=\"tiles\">{}</div>\n", tiles.collect::<String>())
}

fn list(run: &Run) -> String {
    let mut facts = vec![
        ("model", run.input.clone()),
        ("output", format!("{} ({})", run.output, bytes(run.bytes))),
        ("pruned", rule(&run.selection)),
        ("score", run.score.clone()),
    ];
    facts.push((
        "norms",
        match &run.norms {
            Some(norms) => {
                let text = norms.metadata.get("text").map_or(&norms.path, |text| text);
                let tokens = norms
                    .tokens
                    .map_or_else(String::new, |n| format!(", {} tokens", count(n)));
                let windows = windows_said(&norms.metadata);
                let windows = windows.map_or_else(String::new, |said| format!(" in {said}"));
                let format = &norms.format;
                format!("{text}{tokens}{windows} ({format})")
            }
            None => "none: by the weights alone".to_owned(),
        },
    ));
    if let Some(compensation) = &run.compensation {
        facts.push((
            "kept weights",
            format!(
                "compensated (rank {}, ridge {})",
                compensation.rank, compensation.ridge
            ),
        ));
    }
    if let Some(device) = &run.device {
        facts.push(("device", device.to_string()));
    }
    if let Some(all) = &run.all_weights {
        facts.push((
            "all weights",
            format!(
                "{} of {} are zero ({} %)",
                count(all.zeros),
                count(all.weights),
                percent(all.sparsity)
            ),
        ));
    }
    if let Some(evaluation) = &run.evaluation {
        let mut text = format!(
            "{}: {} tokens in {} {}",
            evaluation.text,
            count(evaluation.tokens as u64),
            evaluation.windows,
            windows_of(evaluation.context, &evaluation.prefix)
        );
        if let Some(difference) = evaluation
            .against
            .as_ref()
            .and_then(|after| after.difference)
        {
            let after = evaluation.against.as_ref();
            let error = after.and_then(|after| after.standard_error);
            let error = error.map_or_else(String::new, |error| format!(" \u{b1} {error:.4}"));
            text += &format!("; {difference:+.4}{error} nats per token, paired");
        }
        facts.push(("measured on", text));
    }
    if let Some(memory) = run.peak_memory_bytes {
        facts.push(("most memory", bytes(memory)));
    }
    facts.push(("version", run.version.clone()));
    let facts: String = (facts.iter())
        .map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>\n", escape(value)))
        .collect();
    let words: Vec<String> = run.command.iter().map(|word| quoted(word)).collect();
    format!(
        "<dl>{facts}</dl>\n<p>The exact command:</p>\n<pre tabindex=\"0\"><code>{}</code></pre>\n",
        escape(&words.join(" "))
    )
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,%+@".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

pub(super) fn warnings(run: &Run) -> Option<String> {
    let lines: String = (run.warnings.iter())
        .map(|warning| format!("<li>{}</li>\n", escape(warning)))
        .collect();
    (!lines.is_empty()).then(|| format!("<ul>{lines}</ul>\n"))
}
