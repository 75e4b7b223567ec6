//! The CPU device: the twins of the passes, run row by row so that a row's keys stay in the cache.

use super::info::{DeviceInfo, DeviceKind};
use crate::counts::Counts;
use crate::dtype::{Dtype, with_weights};
use crate::mask::Mask;
use crate::passes::fused::{self, RowRule, Scratch};
use crate::passes::select::{self, Near};
use crate::passes::{ewma, n_of_m, weight_sums};
use crate::recipe::{Recipe, Rows, Step, Sums, WeightStatistics};
use crate::scores::{Score, WeightsUse};
use crate::selection::Selection;
use crate::simd::widest;
use crate::squares::Squares;

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
    let rule = RowRule::new(recipe);
    if in_features > 0 {
        with_weights!(dtype, bytes, cast_slice_mut, |weights| {
            widest(
                #[inline(always)]
                || {
                    for (row, weights) in (first_row..).zip(weights.chunks_exact_mut(in_features)) {
                        scratch.prune(weights, row, rule, squares, &mut counts);
                    }
                },
            );
        });
    }
    counts
}

/// The mask of these rows.
pub(crate) fn mask(rows: Rows<'_>, first_row: usize, recipe: &Recipe) -> Mask {
    let mut mask = Mask::empty(rows.rows(), rows.in_features);
    let mut scratch = Scratch::default();
    let rule = RowRule::new(recipe);
    if rows.in_features > 0 {
        with_weights!(rows.dtype, rows.bytes, cast_slice, |weights| {
            widest(
                #[inline(always)]
                || {
                    for (row, weights) in weights.chunks_exact(rows.in_features).enumerate() {
                        let words = Mask::words_per_row(rows.in_features);
                        let words = &mut mask.words[row * words..(row + 1) * words];
                        scratch.record(weights, first_row + row, rule, words);
                    }
                },
            );
        });
    }
    mask
}

/// The same by several threads, which share the rows.
pub(crate) fn mask_by_threads(
    rows: Rows<'_>,
    first_row: usize,
    recipe: &Recipe,
    threads: usize,
) -> Mask {
    let share = rows.rows().div_ceil(threads.max(1)).max(1);
    let row_bytes = (rows.in_features * rows.dtype.size()).max(1);
    let mut all = Mask {
        rows: rows.rows(),
        in_features: rows.in_features,
        words: Vec::new(),
    };
    std::thread::scope(|scope| {
        let shares = rows.bytes.chunks(share * row_bytes).enumerate();
        let threads: Vec<_> = shares
            .map(|(index, bytes)| {
                let part = Rows { bytes, ..rows };
                scope.spawn(move || mask(part, first_row + index * share, recipe))
            })
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(part) => all.words.extend(part.words),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    all
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
                                fused::score_row(weights, row, recipe, keys);
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
                            ewma::row(order_keys, ewma, threshold_keys);
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
                    || {
                        if ewma.is_some() {
                            for (keys, words) in threshold_keys.zip(words) {
                                let cut = fused::cut_threshold(keys, &recipe.selection, &mut near);
                                fused::record_cut(cut, keys, words);
                            }
                        } else if let Selection::Pattern(pattern) = recipe.selection {
                            pruned.resize(in_features, false);
                            for (keys, words) in order_keys.zip(words) {
                                n_of_m::row(keys, false, pattern, &mut pruned);
                                fused::pack(&pruned, words, |_, pruned| pruned);
                            }
                        } else {
                            for (keys, words) in order_keys.zip(words) {
                                let cut = fused::cut_order(keys, &recipe.selection, &mut near);
                                fused::record_cut(cut, bytemuck::cast_slice(keys), words);
                            }
                        }
                    },
                );
            }
        }
    }
}

/// What the passes give one by one, up to and with `last`.
pub(crate) fn alone(rows: Rows<'_>, first_row: usize, recipe: &Recipe, last: Step) -> Vec<u32> {
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

/// What a score takes of these rows; `None` for one that takes nothing.
pub(crate) fn statistics(rows: Rows<'_>, score: &Score) -> Option<WeightStatistics> {
    match score.weights {
        WeightsUse::Unused => None,
        WeightsUse::Sums => Some(WeightStatistics::Sums(sums(rows))),
        WeightsUse::ColumnNorms | WeightsUse::CubedNorms => {
            let squares = Squares::of(rows.dtype, rows.in_features, rows.bytes);
            Some(WeightStatistics::Squares(squares))
        }
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
                    weight_sums::rows(weights, rows.in_features, &mut sums);
                },
            );
        });
    }
    sums
}
