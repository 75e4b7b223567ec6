//! What a chunk is put through on an adapter: the uniform block, the dispatches, and which buffer holds the result.

use crate::mask::Mask;
use crate::passes::ewma::{BATCH, BLOCK_STATISTICS, MOVING_AVERAGE, NORMALISE};
use crate::passes::fused::{
    CAPACITY, MAX_BLOCKS, PRUNE_GROUPS, PRUNE_ROWS, PRUNE_WIDE_ROWS, RowRule,
};
use crate::passes::n_of_m::N_OF_M;
use crate::passes::params::{Binding, Params};
use crate::passes::score::SCORE;
use crate::passes::select::{BELOW_LAMBDA, SMALLEST_K};
use crate::passes::weight_sums::WEIGHT_SUMS;
use crate::recipe::{Recipe, Rows, Step};
use crate::selection::{Selection, lambda_key};
use crate::shader::EntryPoint;

/// Terms one invocation of `weight_sums` adds up.
const TERMS_PER_TILE: usize = 256;

/// A dispatch: the entry point, and how many workgroups.
pub(crate) type Dispatch = (&'static EntryPoint, (u32, u32));

/// What a chunk is put through.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) params: Params,
    pub(crate) dispatches: Vec<Dispatch>,
    pub(crate) result: Binding,
    pub(crate) result_bytes: u64,
}

impl Work {
    /// From weights to the mask in one dispatch.
    ///
    /// `first_row` is where the rows lie in the recipe's tensor, `capacity` how long they may be to be kept in workgroup
    /// memory.
    pub(crate) fn fused(
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
                &PRUNE_GROUPS,
                (PRUNE_GROUPS.groups(params.mask_words), params.rows),
            ),
            _ if fits => {
                let rule = RowRule::new(recipe);
                let bases = (first_row..first_row + rows.rows()).map(|row| rule.span(row).base);
                params.span_base = bases.max().unwrap_or(0);
                let is_wide = rows.in_features > CAPACITY;
                let entry_point = if is_wide {
                    &PRUNE_WIDE_ROWS
                } else {
                    &PRUNE_ROWS
                };
                (entry_point, (params.rows, 1))
            }
            _ => (&PRUNE_ROWS, (params.rows, 1)),
        };
        Self::new(params, vec![dispatch], Binding::Result)
    }

    /// The passes one by one, up to and with `last`.
    pub(crate) fn alone(rows: Rows<'_>, recipe: &Recipe, last: Step) -> Self {
        let params = params(rows, recipe);
        let (rows, in_features) = (params.rows, params.in_features);
        let mut dispatches = vec![(&SCORE, (SCORE.groups(in_features), rows))];
        let mut result = Binding::OrderKeys;
        if last >= Step::Ewma && params.key_bits == 16 {
            dispatches.extend([
                (&BLOCK_STATISTICS, (params.blocks.div_ceil(BATCH), rows)),
                (&MOVING_AVERAGE, (MOVING_AVERAGE.groups(rows), 1)),
                (&NORMALISE, (NORMALISE.groups(in_features), rows)),
            ]);
            result = Binding::Keys;
        }
        if last >= Step::Select {
            let words = params.mask_words;
            dispatches.push(match recipe.selection {
                Selection::Pattern(_) => (&N_OF_M, (N_OF_M.groups(words), rows)),
                Selection::Lambda { .. } => (&BELOW_LAMBDA, (BELOW_LAMBDA.groups(words), rows)),
                _ => (&SMALLEST_K, (rows, 1)),
            });
            result = Binding::Result;
        }
        Self::new(params, dispatches, result)
    }

    /// `weight_sums` over the columns, or over the rows.
    pub(crate) fn sums(rows: Rows<'_>, columns: bool) -> Self {
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
            dispatches: vec![(
                &WEIGHT_SUMS,
                (WEIGHT_SUMS.groups(sums as u32), tiles as u32),
            )],
            result: Binding::Result,
            result_bytes: tiles as u64 * sums as u64 * 8,
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

    /// The kind of work that it is, for the bound on a submission: the entry point that takes longest.
    pub(crate) fn kind(&self) -> &'static str {
        self.dispatches
            .last()
            .map_or("", |(entry_point, _)| entry_point.name)
    }

    /// Bytes of what the passes leave for each other.
    pub(crate) fn bytes(&self, binding: Binding) -> u64 {
        let uses = |binding| {
            let of = |(entry_point, _): &Dispatch| entry_point.bindings.contains(&(binding as u32));
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
        cubed: u32::from(recipe.factors.cubed),
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
