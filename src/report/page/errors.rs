//! Heat maps of errors: of the weights, of the output as the norms predict it, and what compensation got back.

use super::data::{Run, RunTotals};
use super::heat_map::{Cells, mean};
use super::html::percent;

/// `sum dW^2 / sum W^2`.
pub(super) fn squared(run: &Run) -> Option<String> {
    map(
        run,
        "Relative squared error by block and kind of layer",
        |totals| totals.squared_error,
    )
}

/// `sum n dW^2 / sum n W^2`.
pub(super) fn output(run: &Run) -> Option<String> {
    map(
        run,
        "Predicted output error by block and kind of layer",
        |totals| totals.output_error,
    )
}

/// The part of the output error that compensation took away.
pub(super) fn got_back(run: &Run) -> Option<String> {
    let of = |totals: &RunTotals| totals.output_error_left.map(|left| 1.0 - left);
    map(
        run,
        "Output error that compensation took away, by block and kind of layer",
        of,
    )
}

fn map(run: &Run, label: &str, of: impl Fn(&RunTotals) -> Option<f64>) -> Option<String> {
    let values = run.tensors.iter().filter_map(|tensor| of(&tensor.totals));
    let largest = values.fold(0.0, f64::max).max(1e-9);
    Cells::of(run).table(label, |tensors| {
        let value = mean(tensors, |tensor| of(&tensor.totals))?;
        Some((percent(value), value / largest))
    })
}
