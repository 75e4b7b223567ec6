//! The list of cases, and what each must give.

use std::fmt;

use crate::dtype::Dtype;
use crate::fixtures::{NamedSelection, rules};
use crate::recipe::Step;
use crate::scores::{SCORES, Score, WeightsUse};
use crate::selection::{Ewma, Selection};

/// What every case must give: a SHA-256 and a case's name a line, as `sha256sum` writes them.
const SUMS: &str = include_str!("sums.txt");

/// One thing that every device must do alike.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Case {
    /// The sums of `|W|`, over columns and rows.
    WeightSums(Dtype),
    /// A pass by itself.
    Alone(Step, Dtype, &'static Score, NamedSelection),
    /// From weights to the mask.
    Mask(Dtype, &'static Score, NamedSelection),
    /// From weights such as a model has to the mask: their rows are read once and kept, where awkward ones may not be.
    Trained(Dtype, &'static Score, NamedSelection),
    /// The example model, from file to file.
    Model(&'static Score, NamedSelection),
}

/// Rules for weights such as a model has: small and large blocks, few and many pruned.
fn trained_rules() -> [NamedSelection; 5] {
    let ewma = |block_size, gain_shift| Ewma::new(block_size, gain_shift).unwrap_or_default();
    let closed = |sparsity, ewma| Selection::Ewma { sparsity, ewma };
    let lambda = Selection::Lambda {
        lambda: -0.25,
        ewma: ewma(64, 2),
    };
    [
        ("ewma", closed(0.5, Ewma::default())),
        ("ewma-32", closed(0.3, ewma(32, 1))),
        ("ewma-1024", closed(0.9, ewma(1024, 4))),
        ("lambda-64", lambda),
        ("exact", Selection::Exact { sparsity: 0.5 }),
    ]
    .map(|(name, selection)| NamedSelection { name, selection })
}

/// Every case.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Dtype::ALL.map(Case::WeightSums).into();
    let rules = rules();
    let [ewma, ..] = rules;
    for dtype in Dtype::ALL {
        for score in SCORES {
            cases.push(Case::Alone(Step::Score, dtype, score, ewma));
        }
        // The later passes see keys; what these were made of is the score's business.
        let score = &SCORES[0];
        for rule in rules {
            if rule.selection.ewma().is_some() {
                cases.push(Case::Alone(Step::Ewma, dtype, score, rule));
            }
            cases.push(Case::Alone(Step::Select, dtype, score, rule));
        }
        for score in SCORES {
            cases.extend(rules.map(|rule| Case::Mask(dtype, score, rule)));
        }
        // One score without terms, one with terms, one of cubed weights.
        for weights in [WeightsUse::Unused, WeightsUse::Sums, WeightsUse::CubedNorms] {
            let score = SCORES.iter().find(|s| s.weights == weights);
            let trained = |score| trained_rules().map(|rule| Case::Trained(dtype, score, rule));
            cases.extend(score.into_iter().flat_map(trained));
        }
    }
    for score in SCORES {
        cases.extend(rules.map(|rule| Case::Model(score, rule)));
    }
    cases
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = |dtype: &Dtype| dtype.name().to_lowercase();
        match self {
            Self::WeightSums(of) => write!(f, "weight_sums/{}", dtype(of)),
            Self::Alone(Step::Score, of, score, _) => {
                write!(f, "score/{}/{}", dtype(of), score.name)
            }
            Self::Alone(Step::Ewma, of, _, rule) => write!(f, "ewma/{}/{}", dtype(of), rule.name),
            Self::Alone(Step::Select, of, _, rule) => {
                write!(f, "select/{}/{}", dtype(of), rule.name)
            }
            Self::Mask(of, score, rule) => {
                write!(f, "mask/{}/{}/{}", dtype(of), score.name, rule.name)
            }
            Self::Trained(of, score, rule) => {
                write!(f, "trained/{}/{}/{}", dtype(of), score.name, rule.name)
            }
            Self::Model(score, rule) => write!(f, "model/{}/{}", score.name, rule.name),
        }
    }
}

impl Case {
    /// What every device must give; `None` for a case that `sums.txt` does not have.
    #[must_use]
    pub fn expected(&self) -> Option<&'static str> {
        let name = self.to_string();
        SUMS.lines()
            .filter_map(|line| line.split_once("  "))
            .find(|(_, of)| *of == name)
            .map(|(sum, _)| sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_one_sum_and_every_sum_a_case() {
        let names: Vec<String> = cases().iter().map(ToString::to_string).collect();
        let in_table: Vec<&str> = SUMS
            .lines()
            .map(|line| line.split_once("  ").expect("a sum and a name").1)
            .collect();
        assert_eq!(
            names, in_table,
            "docs/testing.md says how the table is written"
        );
    }
}
