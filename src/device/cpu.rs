//! The CPU device: the twins of the passes, run row by row so that a row's keys stay in the cache.

use super::{DeviceInfo, DeviceKind, Recipe, Rows, Step, Sums};
use crate::dtype::{Dtype, Weight, with_weights};
use crate::mask::{Counts, Mask};
use crate::passes::ewma;
use crate::passes::select::{self, Cut};
use crate::passes::{column_norm, n_of_m, score};
use crate::selection::{Selection, lambda_key};

/// This machine's cores.
#[derive(Debug)]
pub struct Cpu {
    info: DeviceInfo,
    threads: usize,
}

impl Cpu {
    /// The CPU, with as many threads as the process may use.
    pub(super) fn new() -> Self {
        Self::with_threads(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }

    /// The CPU, with so many threads.
    pub(super) fn with_threads(threads: usize) -> Self {
        let plural = if threads == 1 { "" } else { "s" };
        Self {
            info: DeviceInfo {
                index: None,
                name: "CPU".to_owned(),
                backend: "cpu".to_owned(),
                kind: DeviceKind::Cpu,
                driver: format!("{threads} thread{plural}, {}", std::env::consts::ARCH),
            },
            threads,
        }
    }

    pub(super) const fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Threads to prune with.
    #[must_use]
    pub(crate) const fn threads(&self) -> usize {
        self.threads
    }
}

/// The keys of one row, and where it was cut: kept from row to row, the memory to be used again, the cut to look near it.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    order_keys: Vec<u32>,
    threshold_keys: Vec<i16>,
    pruned: Vec<bool>,
    near: Near,
}

/// Where the last row was cut.
#[derive(Debug, Default)]
struct Near {
    threshold: i16,
    order: i32,
}

/// What was decided of a row; the keys it refers to are in the [`Scratch`].
enum Decision {
    Threshold(Cut<i16>),
    Order(Cut<i32>),
    Pruned,
}

impl Near {
    /// Cuts a row of threshold keys.
    #[inline(always)]
    fn cut_threshold(&mut self, keys: &[i16], selection: &Selection) -> Cut<i16> {
        if let Selection::Lambda { lambda, .. } = *selection {
            return select::below(lambda_key(lambda));
        }
        let k = selection.k(keys.len()).unwrap_or(0);
        let cut = select::smallest_k(keys, k, self.threshold);
        self.threshold = cut.threshold;
        cut
    }

    /// Cuts a row of order keys.
    #[inline(always)]
    fn cut_order(&mut self, keys: &[u32], selection: &Selection) -> Cut<i32> {
        let k = selection.k(keys.len()).unwrap_or(0);
        let cut = select::smallest_k(bytemuck::cast_slice(keys), k, self.order);
        self.order = cut.threshold;
        cut
    }

    /// The mask of a row of order keys.
    #[inline(always)]
    fn record_order(
        &mut self,
        keys: &[u32],
        selection: &Selection,
        pruned: &mut Vec<bool>,
        words: &mut [u32],
    ) {
        if let Selection::Pattern(pattern) = *selection {
            pruned.resize(keys.len(), false);
            n_of_m::row(keys, pattern, pruned);
            pack(pruned, words, |_, pruned| pruned);
        } else {
            let cut = self.cut_order(keys, selection);
            record_cut(cut, bytemuck::cast_slice(keys), words);
        }
    }
}

/// The order keys of one row, and whether they are known to be live.
#[inline(always)]
fn score_row<W: Weight>(weights: &[W], row: usize, recipe: &Recipe, keys: &mut [u32]) -> bool {
    let factors = &recipe.factors;
    match &factors.terms {
        None => score::row(weights, &factors.column, keys),
        Some(terms) => score::row_with_terms(
            weights,
            &factors.column,
            &terms.column,
            terms.row[row],
            keys,
        ),
    }
}

impl Scratch {
    #[inline(always)]
    fn decide<W: Weight>(&mut self, weights: &[W], row: usize, recipe: &Recipe) -> Decision {
        let in_features = weights.len();
        self.order_keys.resize(in_features, 0);
        let row_is_live = score_row(weights, row, recipe, &mut self.order_keys);
        let selection = &recipe.selection;
        if let Some(ewma) = selection.ewma() {
            self.threshold_keys.resize(in_features, 0);
            ewma::row(
                &self.order_keys,
                row_is_live,
                ewma,
                &mut self.threshold_keys,
            );
            return Decision::Threshold(self.near.cut_threshold(&self.threshold_keys, selection));
        }
        if let Selection::Pattern(pattern) = *selection {
            self.pruned.resize(in_features, false);
            n_of_m::row(&self.order_keys, pattern, &mut self.pruned);
            return Decision::Pruned;
        }
        Decision::Order(self.near.cut_order(&self.order_keys, selection))
    }

    /// Prunes one row in place.
    #[inline(always)]
    fn prune<W: Weight>(
        &mut self,
        weights: &mut [W],
        row: usize,
        recipe: &Recipe,
        squares: bool,
        counts: &mut Counts,
    ) {
        match self.decide(weights, row, recipe) {
            Decision::Threshold(cut) => {
                apply_cut(cut, &self.threshold_keys, weights, squares, counts)
            }
            Decision::Order(cut) => {
                apply_cut(
                    cut,
                    bytemuck::cast_slice(&self.order_keys),
                    weights,
                    squares,
                    counts,
                );
            }
            Decision::Pruned => counts.zero(weights, &self.pruned, squares, |pruned| pruned),
        }
    }

    /// Marks in the words of a mask's row what [`Self::prune`] would zero.
    #[inline(always)]
    fn record<W: Weight>(&mut self, weights: &[W], row: usize, recipe: &Recipe, words: &mut [u32]) {
        match self.decide(weights, row, recipe) {
            Decision::Threshold(cut) => record_cut(cut, &self.threshold_keys, words),
            Decision::Order(cut) => record_cut(cut, bytemuck::cast_slice(&self.order_keys), words),
            Decision::Pruned => pack(&self.pruned, words, |_, pruned| pruned),
        }
    }
}

#[inline(always)]
fn record_cut<K: select::Key>(cut: Cut<K>, keys: &[K], words: &mut [u32]) {
    pack(keys, words, |column, key| cut.prunes(column, key));
}

/// One bit for each key, the first column in the lowest.
#[inline(always)]
fn pack<K: Copy>(keys: &[K], words: &mut [u32], prunes: impl Fn(usize, K) -> bool) {
    for (index, (keys, word)) in keys.chunks(32).zip(words).enumerate() {
        *word = 0;
        for (bit, &key) in keys.iter().enumerate() {
            *word |= u32::from(prunes(index * 32 + bit, key)) << bit;
        }
    }
}

/// Zeroes what a cut prunes: two stretches, each with one plain comparison.
#[inline(always)]
fn apply_cut<W: Weight, K: select::Key>(
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

/// Prunes whole rows in place; `bytes` begin at row `first_row` of the tensor that the recipe is for.
pub(crate) fn prune(
    dtype: Dtype,
    in_features: usize,
    bytes: &mut [u8],
    first_row: usize,
    recipe: &Recipe,
    squares: bool,
    scratch: &mut Scratch,
) -> Counts {
    let mut counts = Counts::default();
    if in_features > 0 {
        with_weights!(dtype, bytes, cast_slice_mut, |weights| {
            widest(
                #[inline(always)]
                || {
                    for (row, weights) in (first_row..).zip(weights.chunks_exact_mut(in_features)) {
                        scratch.prune(weights, row, recipe, squares, &mut counts);
                    }
                },
            );
        });
    }
    counts
}

/// Runs the same code compiled for the widest vectors this CPU has.
///
/// What is called inside must be inlined into it to be compiled so. Rust neither fuses nor reorders floating-point
/// operations, so the width changes no bit.
#[inline(always)]
fn widest(work: impl FnOnce()) {
    struct Work<F>(F);
    impl<F: FnOnce()> pulp::NullaryFnOnce for Work<F> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            (self.0)();
        }
    }
    pulp::Arch::new().dispatch(Work(work));
}

/// The mask of these rows.
pub(super) fn mask(rows: Rows<'_>, first_row: usize, recipe: &Recipe) -> Mask {
    let mut mask = Mask::empty(rows.rows(), rows.in_features);
    let mut scratch = Scratch::default();
    if rows.in_features > 0 {
        with_weights!(rows.dtype, rows.bytes, cast_slice, |weights| {
            widest(
                #[inline(always)]
                || {
                    for (row, weights) in weights.chunks_exact(rows.in_features).enumerate() {
                        let words = Mask::words_per_row(rows.in_features);
                        let words = &mut mask.words[row * words..(row + 1) * words];
                        scratch.record(weights, first_row + row, recipe, words);
                    }
                },
            );
        });
    }
    mask
}

/// What the passes leave of some rows, each by itself.
#[derive(Debug, Default)]
pub(super) struct Keys {
    order_keys: Vec<u32>,
    threshold_keys: Vec<i16>,
    words: Vec<u32>,
}

impl Keys {
    /// Runs one pass over all rows, on what the passes before it have left. A recipe without threshold keys has no EWMA.
    pub(super) fn run(&mut self, rows: Rows<'_>, first_row: usize, recipe: &Recipe, step: Step) {
        let (count, in_features) = (rows.rows(), rows.in_features);
        if in_features == 0 {
            return;
        }
        let ewma = recipe.selection.ewma();
        match step {
            Step::Score => {
                self.order_keys.resize(count * in_features, 0);
                let order_keys = self.order_keys.chunks_exact_mut(in_features);
                with_weights!(rows.dtype, rows.bytes, cast_slice, |weights| {
                    let weights = weights.chunks_exact(in_features);
                    widest(
                        #[inline(always)]
                        || {
                            for ((row, weights), keys) in (first_row..).zip(weights).zip(order_keys)
                            {
                                score_row(weights, row, recipe, keys);
                            }
                        },
                    );
                });
            }
            Step::Ewma => {
                let Some(ewma) = ewma else { return };
                self.threshold_keys.resize(count * in_features, 0);
                let order_keys = self.order_keys.chunks_exact(in_features);
                let threshold_keys = self.threshold_keys.chunks_exact_mut(in_features);
                widest(
                    #[inline(always)]
                    || {
                        for (order_keys, threshold_keys) in order_keys.zip(threshold_keys) {
                            ewma::row(order_keys, false, ewma, threshold_keys);
                        }
                    },
                );
            }
            Step::Select => {
                let words = Mask::words_per_row(in_features);
                self.words.resize(count * words, 0);
                let words = self.words.chunks_exact_mut(words);
                let order_keys = self.order_keys.chunks_exact(in_features);
                let threshold_keys = self.threshold_keys.chunks_exact(in_features);
                let mut near = Near::default();
                let mut pruned = Vec::new();
                widest(
                    #[inline(always)]
                    || match ewma {
                        Some(_) => {
                            for (keys, words) in threshold_keys.zip(words) {
                                record_cut(
                                    near.cut_threshold(keys, &recipe.selection),
                                    keys,
                                    words,
                                );
                            }
                        }
                        None => {
                            for (keys, words) in order_keys.zip(words) {
                                near.record_order(keys, &recipe.selection, &mut pruned, words);
                            }
                        }
                    },
                );
            }
        }
    }
}

/// What the passes give one by one, up to and with `last`.
pub(super) fn alone(rows: Rows<'_>, first_row: usize, recipe: &Recipe, last: Step) -> Vec<u32> {
    let mut keys = Keys::default();
    for step in [Step::Score, Step::Ewma, Step::Select] {
        if step <= last {
            keys.run(rows, first_row, recipe, step);
        }
    }
    match last {
        Step::Select => keys.words,
        Step::Ewma if recipe.selection.ewma().is_some() => {
            let ranks = keys.threshold_keys.iter();
            ranks.map(|&key| select::Key::rank(key)).collect()
        }
        _ => keys.order_keys,
    }
}

/// The sums of `|W|` over these rows.
pub(crate) fn sums(rows: Rows<'_>) -> Sums {
    let mut sums = Sums {
        column: vec![0; rows.in_features],
        row: Vec::with_capacity(rows.rows()),
    };
    if rows.in_features > 0 {
        with_weights!(rows.dtype, rows.bytes, cast_slice, |weights| {
            widest(
                #[inline(always)]
                || {
                    column_norm::rows(weights, rows.in_features, &mut sums);
                },
            );
        });
    }
    sums
}
