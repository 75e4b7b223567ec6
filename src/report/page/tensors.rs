//! The table of all tensors.

use super::data::Run;
use super::html::{count, escape, percent, scroll};

/// The most tensors that are listed; the JSON has all.
const MOST: usize = 1500;

pub(super) fn table(run: &Run) -> Option<String> {
    let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), percent);
    let compensated = run
        .tensors
        .iter()
        .any(|tensor| tensor.totals.output_error_left.is_some());
    let mut rows = String::new();
    for tensor in run.tensors.iter().take(MOST) {
        let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        rows += &format!(
            "<tr><th scope=\"row\">{}</th><td>{} {}</td>",
            escape(&tensor.name),
            escape(&tensor.dtype),
            shape.join(" x ")
        );
        let columns = if compensated { 5 } else { 4 };
        rows += &match &tensor.copied_because {
            Some(reason) => format!(
                "<td colspan=\"{columns}\">copied: {}</td></tr>\n",
                escape(reason)
            ),
            None => {
                let totals = &tensor.totals;
                let mut cells = vec![
                    percent(totals.sparsity),
                    optional(totals.asked),
                    optional(totals.squared_error),
                    optional(totals.output_error),
                ];
                if compensated {
                    cells.push(optional(totals.output_error_left));
                }
                let cells = cells
                    .iter()
                    .map(|cell| format!("<td class=\"n\">{cell}</td>"));
                cells.collect::<String>() + "</tr>\n"
            }
        };
    }
    if rows.is_empty() {
        return None;
    }
    let mut heads = vec![
        "tensor",
        "dtype and shape",
        "zeros, %",
        "asked, %",
        "squared error, %",
        "output error, %",
    ];
    if compensated {
        heads.push("of that left, %");
    }
    let heads: String = (heads.iter())
        .map(|head| format!("<th scope=\"col\">{head}</th>"))
        .collect();
    let more = match run.tensors.len().saturating_sub(MOST) {
        0 => String::new(),
        n => format!("<p>{} more are in the JSON.</p>\n", count(n as u64)),
    };
    let table = format!(
        "<table class=\"plain\"><thead><tr>{heads}</tr></thead><tbody>\n{rows}</tbody></table>"
    );
    Some(format!(
        "<details><summary>{} tensors</summary>\n{}{more}</details>\n",
        count(run.tensors.len() as u64),
        scroll("Every tensor", &table)
    ))
}
