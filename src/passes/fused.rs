//! The fused passes, row by row, so that what is known of a row stays in the core's cache: the twin of
//! `shaders/passes/fused.wgsl`, and what prunes.
//!
//! A row whose scores lie within 64 octaves, which is nearly every row there is, is cut by bounds on their 16-bit
//! logarithms ([`super::row_logs`]); any other, and N:M patterns, by the keys of the passes alone. Both are the same cut.

use super::params::entry_point;
use super::row_logs;
use super::row_logs::ewma::Scales;
use super::row_logs::score::{Logs, Span};
use super::row_logs::select::Bounds;
use super::select::{self, Cut, Key, Near};
use super::{ewma, n_of_m, score};
use crate::counts::Counts;
use crate::dtype::Weight;
use crate::recipe::Recipe;
use crate::selection::{Selection, lambda_key};
use crate::shader::{EntryPoint, Shader, shader};

/// A shader of masks by threshold, up to the entry point's file.
macro_rules! by_threshold {
    (name: $name:literal, summary: $summary:literal, entry_points: [$entry_point:ident] $(,)?) => {
        shader! {
            name: $name,
            summary: $summary,
            files: [
                "shared/params",
                "shared/decode",
                "passes/score",
                "passes/ewma",
                "passes/select",
                "passes/eight",
                "passes/row_logs/score",
                "passes/row_logs/select",
                "passes/row_logs/ewma",
                "passes/fused",
                concat!("entry/fused/", $name),
            ],
            entry_points: [$entry_point],
        }
    };
}

/// Thresholds, with rows of up to [`CAPACITY`] columns in workgroup memory.
pub(crate) static ROWS: Shader = by_threshold! {
    name: "rows",
    summary: "mask of every row, of up to 4096 columns in workgroup memory",
    entry_points: [PRUNE_ROWS],
};

/// Thresholds, with rows of up to [`WIDE_CAPACITY`] columns in [`WIDE_WORKGROUP_BYTES`] of workgroup memory.
pub(crate) static WIDE_ROWS: Shader = by_threshold! {
    name: "wide_rows",
    summary: "mask of every row, of up to 14336 columns in workgroup memory",
    entry_points: [PRUNE_WIDE_ROWS],
};

/// N:M.
pub(crate) static GROUPS: Shader = shader! {
    name: "groups",
    summary: "mask that keeps the N largest of every M columns",
    files: [
        "shared/params",
        "shared/decode",
        "passes/score",
        "passes/eight",
        "passes/n_of_m",
        "entry/fused/groups",
    ],
    entry_points: [PRUNE_GROUPS],
};

/// Workgroup memory of the widest rows, in bytes. Where an adapter has less, these are pruned by keys.
pub const WIDE_WORKGROUP_BYTES: u32 = 32 << 10;

/// Columns of a row that [`ROWS`] keeps: `CAPACITY` of its shader.
pub(crate) const CAPACITY: usize = 4096;
/// Columns of a row that [`WIDE_ROWS`] keeps: `CAPACITY` of its shader.
pub(crate) const WIDE_CAPACITY: usize = 14336;

/// EWMA blocks a row that they keep: `MAX_BLOCKS` of `shaders/passes/row_logs/ewma.wgsl`; a block has 32 columns at least.
pub(crate) const MAX_BLOCKS: u32 = 256;

pub(crate) static PRUNE_ROWS: EntryPoint = entry_point!(
    "prune_rows",
    256,
    [Params, Weights, Factors, Averages, Result]
);
pub(crate) static PRUNE_WIDE_ROWS: EntryPoint = entry_point!(
    "prune_wide_rows",
    256,
    [Params, Weights, Factors, Averages, Result]
);
pub(crate) static PRUNE_GROUPS: EntryPoint =
    entry_point!("prune_groups", 64, [Params, Weights, Factors, Result]);

/// What is known of one row: kept from row to row, the memory to be used again, the cut to look near it.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    logs: Vec<i16>,
    scales: Scales,
    bounds: Bounds,
    order_keys: Vec<u32>,
    threshold_keys: Vec<i16>,
    pruned: Vec<bool>,
    /// Of the bounds, and of the keys of rows that have none.
    near: Near,
    near_keys: Near,
}

/// What was decided of a row; what it refers to is in the [`Scratch`].
enum RowCut {
    /// `bounds` on `logs`.
    Bounds(Logs),
    /// A cut of `threshold_keys`.
    Threshold(Cut<i16>),
    /// A cut of `order_keys`.
    Order(Cut<i32>),
    /// `pruned`.
    Pruned { is_live: bool },
}

/// A tensor's recipe, and what its rows have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowRule<'a> {
    recipe: &'a Recipe,
    largest_factor: f32,
    /// 0 where the score has no terms.
    largest_term: f32,
}

impl<'a> RowRule<'a> {
    pub(crate) fn new(recipe: &'a Recipe) -> Self {
        let largest = |of: &[f32]| of.iter().copied().fold(0.0, f32::max);
        let factors = &recipe.factors;
        Self {
            recipe,
            // The span is for weights up to 4, and for 16 times 4 where these are cubed.
            largest_factor: largest(&factors.column) * if factors.cubed { 16.0 } else { 1.0 },
            largest_term: factors.terms.as_ref().map_or(0.0, |t| largest(&t.column)),
        }
    }

    /// The span that the scores of a row are looked for in.
    #[inline(always)]
    pub(crate) fn span(&self, row: usize) -> Span {
        let terms = self.recipe.factors.terms.as_ref();
        Span::below(terms.map_or(self.largest_factor, |terms| {
            (terms.row[row] + self.largest_term) * self.largest_factor
        }))
    }
}

/// Calls `$row` with the multipliers of one row, and whether weights are cubed.
macro_rules! with_multipliers {
    ($recipe:expr, $row:expr, |$cubed:ident, $multipliers:ident| $body:expr) => {{
        let factors = &$recipe.factors;
        match (&factors.terms, factors.cubed) {
            (None, false) => {
                const $cubed: bool = false;
                let $multipliers = factors.column.iter().copied();
                $body
            }
            (None, true) => {
                const $cubed: bool = true;
                let $multipliers = factors.column.iter().copied();
                $body
            }
            (Some(terms), false) => {
                const $cubed: bool = false;
                let $multipliers =
                    score::with_terms(&factors.column, &terms.column, terms.row[$row]);
                $body
            }
            (Some(terms), true) => {
                const $cubed: bool = true;
                let $multipliers =
                    score::with_terms(&factors.column, &terms.column, terms.row[$row]);
                $body
            }
        }
    }};
}

/// The order keys of one row, and whether all are live.
#[inline(always)]
pub(crate) fn score_row<W: Weight>(
    weights: &[W],
    row: usize,
    recipe: &Recipe,
    keys: &mut [u32],
) -> bool {
    with_multipliers!(recipe, row, |CUBED, multipliers| {
        score::row::<CUBED, W>(weights, multipliers, keys)
    })
}

/// The order key of one weight.
#[inline(always)]
fn order_key<W: Weight>(weights: &[W], row: usize, recipe: &Recipe, column: usize) -> u32 {
    let factor = recipe.factors.column[column];
    let multiplier = recipe.factors.terms.as_ref().map_or(factor, |terms| {
        score::with_term(factor, terms.column[column], terms.row[row])
    });
    let magnitude = weights[column].magnitude_bits();
    if recipe.factors.cubed {
        score::order_key::<true>(magnitude, multiplier)
    } else {
        score::order_key::<false>(magnitude, multiplier)
    }
}

/// The logarithms of one row.
#[inline(always)]
fn logs<W: Weight>(weights: &[W], row: usize, rule: RowRule<'_>, logs: &mut [i16]) -> Option<Logs> {
    let span = rule.span(row);
    with_multipliers!(rule.recipe, row, |CUBED, multipliers| {
        row_logs::score::row::<CUBED, W>(weights, multipliers, span, logs)
    })
}

/// Cuts a row of threshold keys.
#[inline(always)]
pub(crate) fn cut_threshold(keys: &[i16], selection: &Selection, near: &mut Near) -> Cut<i16> {
    if let Selection::Lambda { lambda, .. } = *selection {
        return select::below(lambda_key(lambda));
    }
    select::smallest_k(keys, selection.k(keys.len()).unwrap_or(0), near)
}

/// Cuts a row of order keys.
#[inline(always)]
pub(crate) fn cut_order(keys: &[u32], selection: &Selection, near: &mut Near) -> Cut<i32> {
    let k = selection.k(keys.len()).unwrap_or(0);
    select::smallest_k(bytemuck::cast_slice(keys), k, near)
}

impl Scratch {
    #[inline(always)]
    fn decide<W: Weight>(&mut self, weights: &[W], row: usize, rule: RowRule<'_>) -> RowCut {
        let in_features = weights.len();
        let recipe = rule.recipe;
        if let Selection::Pattern(pattern) = recipe.selection {
            self.order_keys.resize(in_features, 0);
            self.pruned.resize(in_features, false);
            let is_live = score_row(weights, row, recipe, &mut self.order_keys);
            n_of_m::row(&self.order_keys, is_live, pattern, &mut self.pruned);
            return RowCut::Pruned { is_live };
        }
        self.logs.resize(in_features, 0);
        if let Some(kind) = logs(weights, row, rule, &mut self.logs) {
            self.bound(weights, row, rule, kind);
            return RowCut::Bounds(kind);
        }
        self.order_keys.resize(in_features, 0);
        score_row(weights, row, recipe, &mut self.order_keys);
        let near = &mut self.near_keys;
        match recipe.selection.ewma() {
            Some(ewma) => {
                self.threshold_keys.resize(in_features, 0);
                ewma::row(&self.order_keys, ewma, &mut self.threshold_keys);
                let keys = &self.threshold_keys;
                RowCut::Threshold(cut_threshold(keys, &recipe.selection, near))
            }
            None => RowCut::Order(cut_order(&self.order_keys, &recipe.selection, near)),
        }
    }

    /// Decides by the row's logarithms.
    #[inline(always)]
    fn bound<W: Weight>(&mut self, weights: &[W], row: usize, rule: RowRule<'_>, kind: Logs) {
        let selection = &rule.recipe.selection;
        let k = selection.k(self.logs.len()).unwrap_or(0);
        let Some(ewma) = selection.ewma() else {
            let order_key = |column| order_key(weights, row, rule.recipe, column);
            self.bounds
                .cut_exactly(&self.logs, kind, k, &mut self.near, order_key);
            return;
        };
        self.scales.measure(&self.logs, kind, ewma);
        if let Selection::Lambda { lambda, .. } = *selection {
            self.bounds.set_below(lambda_key(lambda), &self.scales);
            self.bounds.count(&self.logs);
        } else {
            self.bounds.cut(&self.logs, &self.scales, k, &mut self.near);
        }
    }

    /// Prunes one row in place.
    #[inline(always)]
    pub(crate) fn prune<W: Weight>(
        &mut self,
        weights: &mut [W],
        row: usize,
        rule: RowRule<'_>,
        squares: bool,
        counts: &mut Counts,
    ) {
        match self.decide(weights, row, rule) {
            RowCut::Bounds(Logs::Live) if !squares => {
                self.bounds.zero_live(&self.logs, weights, counts);
            }
            RowCut::Bounds(_) => {
                self.pruned.resize(weights.len(), false);
                self.bounds.mark(&self.logs, &mut self.pruned);
                counts.zero(weights, &self.pruned, squares, |pruned| pruned);
            }
            RowCut::Threshold(cut) => {
                apply_cut(cut, &self.threshold_keys, weights, squares, counts)
            }
            RowCut::Order(cut) => {
                let keys = bytemuck::cast_slice(&self.order_keys);
                apply_cut(cut, keys, weights, squares, counts);
            }
            RowCut::Pruned { is_live: true } if !squares => counts.zero_live(weights, &self.pruned),
            RowCut::Pruned { .. } => {
                counts.zero(weights, &self.pruned, squares, |pruned| pruned);
            }
        }
    }

    /// Writes to the words of a mask's row what [`Self::prune`] would zero.
    #[inline(always)]
    pub(crate) fn record<W: Weight>(
        &mut self,
        weights: &[W],
        row: usize,
        rule: RowRule<'_>,
        words: &mut [u32],
    ) {
        match self.decide(weights, row, rule) {
            RowCut::Bounds(_) => {
                self.pruned.resize(weights.len(), false);
                self.bounds.mark(&self.logs, &mut self.pruned);
                pack(&self.pruned, words, |_, pruned| pruned);
            }
            RowCut::Threshold(cut) => record_cut(cut, &self.threshold_keys, words),
            RowCut::Order(cut) => record_cut(cut, bytemuck::cast_slice(&self.order_keys), words),
            RowCut::Pruned { .. } => pack(&self.pruned, words, |_, pruned| pruned),
        }
    }
}

/// Writes to the words of a mask's row what a cut prunes.
#[inline(always)]
pub(crate) fn record_cut<K: Key>(cut: Cut<K>, keys: &[K], words: &mut [u32]) {
    pack(keys, words, |column, key| cut.prunes(column, key));
}

/// One bit for each key, the first column in the lowest.
#[inline(always)]
pub(crate) fn pack<K: Copy>(keys: &[K], words: &mut [u32], prunes: impl Fn(usize, K) -> bool) {
    for (index, (keys, word)) in keys.chunks(32).zip(words).enumerate() {
        *word = 0;
        for (bit, &key) in keys.iter().enumerate() {
            *word |= u32::from(prunes(index * 32 + bit, key)) << bit;
        }
    }
}

/// Zeroes what a cut prunes: two stretches, each with one plain comparison.
#[inline(always)]
fn apply_cut<W: Weight, K: Key>(
    cut: Cut<K>,
    keys: &[K],
    weights: &mut [W],
    squares: bool,
    counts: &mut Counts,
) {
    let (keys_ties, keys_rest) = keys.split_at(cut.tie_end);
    let (weights_ties, weights_rest) = weights.split_at_mut(cut.tie_end);
    counts.zero(weights_ties, keys_ties, squares, |key| key <= cut.threshold);
    counts.zero(weights_rest, keys_rest, squares, |key| key < cut.threshold);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_kept_up_to_what_the_shaders_have_room_for() {
        for (shader, capacity) in [(&ROWS, CAPACITY), (&WIDE_ROWS, WIDE_CAPACITY)] {
            for constant in [
                format!("const CAPACITY: u32 = {capacity}u;"),
                format!("const MAX_BLOCKS: u32 = {MAX_BLOCKS}u;"),
                format!("const BATCH: u32 = {}u;", ewma::BATCH),
            ] {
                assert!(
                    shader.wgsl.contains(&constant),
                    "{}: {constant}",
                    shader.name
                );
            }
        }
    }
}
