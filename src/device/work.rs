//! What a chunk is put through on an adapter: the uniform block, the dispatches, and which buffer holds the result.

use super::{Recipe, Rows, Step};
use crate::mask::Mask;
use crate::passes::fused::Rule;
use crate::passes::{CAPACITY, MAX_BLOCKS, Params};
use crate::selection::{Selection, lambda_key};

/// Terms one invocation of `column_norm` adds up.
const TERMS_PER_TILE: usize = 256;

/// A binding of the passes' shaders: the same number is the same thing in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    Params = 0,
    Weights = 1,
    Factors = 2,
    Averages = 3,
    /// The mask, or the sums.
    Result = 4,
    OrderKeys = 5,
    /// What is selected on: threshold keys, or order keys again.
    Keys = 6,
}

/// A dispatch: the entry point, and how many workgroups.
pub(super) type Dispatch = (&'static str, (u32, u32));

/// What a chunk is put through.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) params: Params,
    pub(super) dispatches: Vec<Dispatch>,
    pub(super) result: Binding,
    pub(super) result_bytes: u64,
}

/// The bindings an entry point uses: its pipeline's layout has these and no others.
pub(super) fn bindings(entry_point: &str) -> &'static [Binding] {
    use Binding::{Averages, Factors, Keys, OrderKeys, Params, Result, Weights};
    match entry_point {
        "column_norm" => &[Params, Weights, Result],
        "score" => &[Params, Weights, Factors, OrderKeys],
        "block_statistics" => &[Params, Averages, OrderKeys],
        "moving_average" => &[Params, Averages],
        "normalise" => &[Params, Averages, OrderKeys, Keys],
        "smallest_k" | "below_lambda" => &[Params, Result, Keys],
        "n_of_m" => &[Params, Result, OrderKeys],
        "prune_rows" | "prune_wide_rows" => &[Params, Weights, Factors, Averages, Result],
        "prune_groups" => &[Params, Weights, Factors, Result],
        _ => &[],
    }
}

impl Work {
    /// From weights to the mask in one dispatch.
    ///
    /// `first_row` is where the rows lie in the recipe's tensor, `capacity` how long they may be to be kept in workgroup
    /// memory.
    pub(super) fn fused(
        rows: Rows<'_>,
        first_row: usize,
        recipe: &Recipe,
        capacity: usize,
    ) -> Self {
        let mut params = params(rows, recipe);
        let fits = rows.in_features <= capacity
            && (params.key_bits == 32 || params.block_shift >= 5 && params.blocks <= MAX_BLOCKS);
        let dispatch = match recipe.selection {
            Selection::Pattern(_) => (
                "prune_groups",
                (params.mask_words.div_ceil(64), params.rows),
            ),
            _ if fits => {
                let rule = Rule::new(recipe);
                let windows = (first_row..first_row + rows.rows()).map(|row| rule.window(row).base);
                params.window = windows.max().unwrap_or(0);
                let is_wide = rows.in_features > CAPACITY;
                let entry_point = if is_wide {
                    "prune_wide_rows"
                } else {
                    "prune_rows"
                };
                (entry_point, (params.rows, 1))
            }
            _ => ("prune_rows", (params.rows, 1)),
        };
        Self::new(params, vec![dispatch], Binding::Result)
    }

    /// The passes one by one, up to and with `last`.
    pub(super) fn alone(rows: Rows<'_>, recipe: &Recipe, last: Step) -> Self {
        let params = params(rows, recipe);
        let (rows, in_features) = (params.rows, params.in_features);
        let mut dispatches = vec![("score", (in_features.div_ceil(256), rows))];
        let mut result = Binding::OrderKeys;
        if last >= Step::Ewma && params.key_bits == 16 {
            dispatches.extend([
                ("block_statistics", (params.blocks.div_ceil(8), rows)),
                ("moving_average", (rows.div_ceil(64), 1)),
                ("normalise", (in_features.div_ceil(256), rows)),
            ]);
            result = Binding::Keys;
        }
        if last >= Step::Select {
            let words = (params.mask_words.div_ceil(64), rows);
            dispatches.push(match recipe.selection {
                Selection::Pattern(_) => ("n_of_m", words),
                Selection::Lambda { .. } => ("below_lambda", words),
                _ => ("smallest_k", (rows, 1)),
            });
            result = Binding::Result;
        }
        Self::new(params, dispatches, result)
    }

    /// `column_norm` over the columns, or over the rows.
    pub(super) fn sums(rows: Rows<'_>, columns: bool) -> Self {
        let (count, in_features) = (rows.rows(), rows.in_features);
        let (sums, terms, sum_stride, term_stride) = if columns {
            (in_features, count, 1, in_features)
        } else {
            (count, in_features, in_features, 1)
        };
        let tiles = terms.div_ceil(TERMS_PER_TILE);
        Self {
            params: Params {
                dtype: rows.dtype as u32,
                sums: sums as u32,
                terms: terms as u32,
                terms_per_tile: TERMS_PER_TILE as u32,
                sum_stride: sum_stride as u32,
                term_stride: term_stride as u32,
                ..Params::default()
            },
            dispatches: vec![("column_norm", (sums.div_ceil(64) as u32, tiles as u32))],
            result: Binding::Result,
            result_bytes: (tiles * sums * 8) as u64,
        }
    }

    fn new(params: Params, dispatches: Vec<Dispatch>, result: Binding) -> Self {
        let words = match result {
            Binding::Result => params.mask_words,
            _ => params.in_features,
        };
        Self {
            params,
            dispatches,
            result,
            result_bytes: u64::from(params.rows) * u64::from(words) * 4,
        }
    }

    /// Bytes of what the passes leave for each other.
    pub(super) fn bytes(&self, binding: Binding) -> u64 {
        let uses = |binding| {
            let of = |(entry_point, _): &Dispatch| bindings(entry_point).contains(&binding);
            self.dispatches.iter().any(of)
        };
        let rows = u64::from(self.params.rows);
        match binding {
            Binding::Averages => rows * u64::from(self.params.blocks) * 16,
            Binding::OrderKeys | Binding::Keys if uses(binding) => {
                rows * u64::from(self.params.in_features) * 4
            }
            _ => 0,
        }
    }
}

fn params(rows: Rows<'_>, recipe: &Recipe) -> Params {
    let in_features = rows.in_features;
    let mut params = Params {
        rows: rows.rows() as u32,
        in_features: in_features as u32,
        dtype: rows.dtype as u32,
        row_scored: u32::from(recipe.factors.terms.is_some()),
        k: recipe.selection.k(in_features).unwrap_or(0) as u32,
        key_bits: 32,
        mask_words: Mask::words_per_row(in_features) as u32,
        ..Params::default()
    };
    match recipe.selection {
        Selection::Ewma { ewma, .. } | Selection::Lambda { ewma, .. } => {
            params.block_shift = ewma.block_size().ilog2();
            params.blocks = in_features.div_ceil(ewma.block_size()) as u32;
            params.gain_shift = ewma.gain_shift();
            params.key_bits = 16;
            if let Selection::Lambda { lambda, .. } = recipe.selection {
                // At least 2, as the shaders take 0 for a closed loop.
                params.below = (i32::from(lambda_key(lambda)) + 32768) as u32;
            }
        }
        Selection::Exact { .. } => {}
        Selection::Pattern(pattern) => {
            params.n = pattern.n();
            params.m = pattern.m();
        }
    }
    params
}
