//! How much of each tensor goes: the request for the whole model, shared out over its tensors.

use super::error::Error;
use crate::selection::Selection;

/// The selection of every pruned tensor: the same for all.
pub(super) fn uniform(selection: Selection) -> Result<Selection, Error> {
    check_range(&selection)?;
    Ok(selection)
}

fn check_range(selection: &Selection) -> Result<(), Error> {
    match *selection {
        Selection::Ewma { sparsity, .. } | Selection::Exact { sparsity }
            if !(0.0..=1.0).contains(&sparsity) =>
        {
            Err(Error::OutOfRange {
                what: "sparsity",
                value: sparsity,
                range: "between 0 and 1",
            })
        }
        Selection::Lambda { lambda, .. } if !(lambda > -16.0 && lambda < 16.0) => {
            Err(Error::OutOfRange {
                what: "lambda",
                value: lambda,
                range: "between -16 and 16",
            })
        }
        _ => Ok(()),
    }
}
