//! The cells of a sweep: every combination of what was asked for that there is.

use super::error::Error;
use super::request::{CompensationRequest, SweepRequest};
use crate::plan::{Allocation, Compensation, Options, Selection};

/// The cells, scores outermost, then compensations, rules of allocation and selections.
pub(super) fn cells(request: &SweepRequest) -> Result<Vec<Options>, Error> {
    let is_pattern = |selection: &Selection| matches!(selection, Selection::Pattern(_));
    let is_uniform = |allocation: &Allocation| *allocation == Allocation::Uniform;
    if request.selections.iter().all(is_pattern)
        && !request.allocations.iter().all(is_uniform)
        && !request.selections.is_empty()
    {
        return Err(Error::PatternsAlone);
    }
    let mut cells = Vec::new();
    for score in &request.scores {
        for asked in &request.compensations {
            for (place, allocation) in request.allocations.iter().enumerate() {
                for selection in &request.selections {
                    // A pattern is there once, beside the first rule.
                    if is_pattern(selection) && place > 0 {
                        continue;
                    }
                    let mut options = Options::new(*selection);
                    options.score = *score;
                    options.compensation = asked.map(|asked| compensation(selection, asked));
                    if !is_pattern(selection) {
                        options.allocation = allocation.clone();
                    }
                    options.targets = request.targets.clone();
                    options.keep_non_finite = request.keep_non_finite;
                    cells.push(options);
                }
            }
        }
    }
    if cells.is_empty() {
        Err(Error::NothingToDo)
    } else {
        Ok(cells)
    }
}

fn compensation(selection: &Selection, asked: CompensationRequest) -> Compensation {
    let mut compensation = Compensation::new(selection);
    compensation.rank = asked.rank.unwrap_or(compensation.rank);
    compensation.ridge = asked.ridge.unwrap_or(compensation.ridge);
    compensation
}

/// How much is asked for: a fraction of each row, or `N:M`; and the rule's name.
pub(super) fn pruned(selection: &Selection) -> (String, &'static str) {
    match selection {
        Selection::Ewma { sparsity, .. } => (sparsity.to_string(), "ewma"),
        Selection::Exact { sparsity } => (sparsity.to_string(), "exact"),
        Selection::Lambda { lambda, .. } => (format!("lambda {lambda}"), "lambda"),
        Selection::Pattern(pattern) => (pattern.to_string(), "pattern"),
    }
}

/// A cell in a few words.
pub(super) fn described(options: &Options) -> String {
    let (pruned, _) = pruned(&options.selection);
    let mut words = match options.score {
        Some(score) => format!("{} {pruned}", score.name),
        None => pruned,
    };
    if let Some(compensation) = options.compensation {
        words += &format!(", compensated ({})", compensation.rank);
    }
    if options.allocation != Allocation::Uniform {
        words += &format!(", {}", options.allocation.name());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Pattern, Score};

    fn request() -> SweepRequest {
        let two_of_four = Selection::Pattern(Pattern::new(2, 4).unwrap());
        let half = Selection::Exact { sparsity: 0.5 };
        SweepRequest::new("model", vec![half, two_of_four])
    }

    #[test]
    fn every_combination_is_a_cell_and_a_pattern_is_shared_out_by_no_rule() {
        let mut request = request();
        request.scores = vec![Score::by_name("wanda"), Score::by_name("ria")];
        request.compensations = vec![None, Some(CompensationRequest::default())];
        request.allocations = vec![Allocation::Uniform, Allocation::ATP];
        let cells = cells(&request).unwrap();
        let named: Vec<String> = cells.iter().map(described).collect();
        assert_eq!(cells.len(), 12);
        assert_eq!(
            named[..6],
            [
                "wanda 0.5",
                "wanda 2:4",
                "wanda 0.5, atp",
                "wanda 0.5, compensated (128)",
                "wanda 2:4, compensated (192)",
                "wanda 0.5, compensated (128), atp",
            ]
        );
    }

    #[test]
    fn what_makes_no_cell_is_an_error() {
        let mut request = request();
        request.selections.remove(0);
        request.allocations = vec![Allocation::ATP];
        assert!(matches!(cells(&request), Err(Error::PatternsAlone)));
        request.selections.clear();
        assert!(matches!(cells(&request), Err(Error::NothingToDo)));
    }
}
