//! `selftest`: does a device give the bits that every device must?
//!
//! One list of cases, each a SHA-256 of what a device computes; what they must be is in `sums.txt`, made by the CPU twins,
//! which the golden tests hold to an independent oracle. The tests run the same list on every adapter they find.
//!
//! Each pass by itself and all joined, every dtype, score and rule, over shapes on either side of every boundary, with
//! weights as awkward as can be and, joined, with such as a model has; then a whole checkpoint, the example model, from
//! file to file.

mod error;
mod model;

pub use error::Error;

use std::fmt;

use crate::checksum::{self, Checksum};
use crate::device::Device;
use crate::dtype::Dtype;
use crate::fixtures::{NamedSelection, Tensor, random_norms, rules, trained_norms};
use crate::recipe::{Recipe, Step};
use crate::scores::{SCORES, Score};
use crate::selection::{Ewma, Selection};

/// What every case must give: a SHA-256 and a case's name a line, as `sha256sum` writes them.
const SUMS: &str = include_str!("sums.txt");

/// Shapes on either side of every boundary: a mask word, a workgroup, a block, a half word of bf16.
pub const SHAPES: [(usize, usize); 17] = [
    (0, 5),
    (1, 1),
    (1, 2),
    (1, 333),
    (65, 1),
    (257, 1),
    (3, 31),
    (3, 32),
    (3, 33),
    (5, 63),
    (3, 127),
    (3, 128),
    (3, 129),
    (2, 255),
    (2, 257),
    (7, 1000),
    (2, 8224), // more than the 256 mask words that a workgroup scans at once
];

/// Shapes on either side of what an adapter keeps of a row in its workgroup memory, two sizes of it.
pub const KEPT: [(usize, usize); 5] = [(4, 4096), (3, 4097), (3, 8200), (3, 14_336), (3, 14_337)];

/// LLaMA-3-405B's `down_proj`.
pub const WIDE: (usize, usize) = (3, 53_248);

/// One thing that every device must do alike.
#[derive(Clone, Copy, Debug)]
pub enum Case {
    /// The sums of `|W|`, over columns and rows.
    ColumnNorm(Dtype),
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
    let mut cases: Vec<Case> = Dtype::ALL.map(Case::ColumnNorm).into();
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
        // One score with terms, and one without.
        for with_terms in [false, true] {
            let score = SCORES.iter().find(|s| s.sums_of_weights == with_terms);
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
            Self::ColumnNorm(of) => write!(f, "column_norm/{}", dtype(of)),
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

    /// What `device` gives: a SHA-256 in hexadecimal.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn sum(&self, device: &Device) -> Result<String, Error> {
        let mut sum = Checksum::default();
        let (dtype, score, rule) = match *self {
            Self::Model(score, rule) => {
                let pruned = model::pruned(device, score, rule.selection)?;
                return Ok(checksum::of_bytes(&pruned));
            }
            Self::ColumnNorm(dtype) => (dtype, &SCORES[0], rules()[0]),
            Self::Alone(_, dtype, score, rule)
            | Self::Mask(dtype, score, rule)
            | Self::Trained(dtype, score, rule) => (dtype, score, rule),
        };
        let is_trained = matches!(self, Self::Trained(..));
        let more_shapes: &[_] = if is_trained { &KEPT } else { &[WIDE] };
        for (seed, &(rows, in_features)) in (1..).zip(SHAPES.iter().chain(more_shapes)) {
            let tensor = if is_trained {
                Tensor::trained(seed, dtype, rows, in_features)
            } else {
                Tensor::random(seed, dtype, rows, in_features, true)
            };
            let words: Vec<u32> = if let Self::ColumnNorm(_) = self {
                let sums = device.sums(tensor.view())?;
                let sums = sums.column.iter().chain(&sums.row);
                sums.flat_map(|&sum| [sum as u32, (sum >> 32) as u32])
                    .collect()
            } else {
                let norms = if is_trained {
                    trained_norms(seed, in_features)
                } else {
                    random_norms(seed, in_features)
                };
                let sums = score.sums_of_weights.then(|| device.sums(tensor.view()));
                let sums = sums.transpose()?;
                let recipe = Recipe::new(
                    rule.selection,
                    score,
                    in_features,
                    Some(&norms),
                    sums.as_ref(),
                );
                match *self {
                    Self::Alone(step, ..) => device.alone(tensor.view(), 0, &recipe, step)?,
                    _ => device.mask(tensor.view(), 0, &recipe)?.words,
                }
            };
            words
                .iter()
                .for_each(|word| sum.update(&word.to_le_bytes()));
        }
        Ok(sum.finish())
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
