//! Several runs in one table.

use super::data::Run;
use super::html::{escape, percent, scroll, seconds};
use super::settings::{caption, perplexity, rule, short_name};

pub(super) fn table(runs: &[Run]) -> String {
    let totals = |of: &dyn Fn(&super::data::RunTotals) -> Option<f64>| -> Vec<String> {
        let cell = |run: &Run| run.prunable.as_ref().and_then(of);
        let shown = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |v| format!("{} %", percent(v)))
        };
        runs.iter().map(|run| shown(cell(run))).collect()
    };
    let all = |of: &dyn Fn(&Run) -> String| -> Vec<String> { runs.iter().map(of).collect() };
    let measured = |place: usize| {
        all(&|run| {
            perplexity(run).map_or_else(|| "not measured".to_owned(), |both| both[place].clone())
        })
    };
    let rows = [
        ("model", all(&|run| short_name(&run.input))),
        ("pruned", all(&|run| rule(&run.selection))),
        ("score", all(&|run| run.score.clone())),
        (
            "kept weights",
            all(&|run| match &run.compensation {
                Some(compensation) => format!("compensated (rank {})", compensation.rank),
                None => "unchanged".to_owned(),
            }),
        ),
        ("zeros", totals(&|totals| Some(totals.sparsity))),
        ("perplexity before", measured(0)),
        ("perplexity after", measured(1)),
        ("squared error", totals(&|totals| totals.squared_error)),
        (
            "predicted output error",
            totals(&|totals| totals.output_error),
        ),
        (
            "of that left by compensation",
            totals(&|totals| totals.output_error_left),
        ),
        ("time to prune", all(&|run| seconds(run.seconds))),
    ];
    let heads: String = (runs.iter().enumerate())
        .map(|(index, run)| format!("<th scope=\"col\">{}</th>", escape(&caption(index, run))))
        .collect();
    let line = |(name, cells): &(&str, Vec<String>)| {
        let cells = cells
            .iter()
            .map(|cell| format!("<td>{}</td>", escape(cell)));
        format!(
            "<tr><th scope=\"row\">{name}</th>{}</tr>\n",
            cells.collect::<String>()
        )
    };
    let rows: String = (rows.iter())
        .filter(|(_, cells)| {
            cells
                .iter()
                .any(|cell| cell != "-" && cell != "not measured")
        })
        .map(line)
        .collect();
    let table = format!(
        "<table class=\"plain\"><thead><tr><td></td>{heads}</tr></thead><tbody>\n{rows}</tbody></table>"
    );
    scroll("Runs side by side", &table)
}
