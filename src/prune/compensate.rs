//! Rows that are compensated after they were pruned: between the mask that a device gives and the bytes that are written.

use super::compensators::InputCompensator;
use super::error::Error;
use super::shared_recipe::MatrixRecipe;
use crate::compensation::{CompensatedRows, Compensator, decode, round_row};
use crate::counts::Counts;
use crate::device::cpu;
use crate::dtype::Dtype;
use crate::mask::Mask;
use crate::products;
use crate::recipe::{Factors, Recipe, Rows};
use crate::selection::Selection;

/// Bytes that the f32 values of the rows which are compensated together may take: small enough that the steps' other values stay in
/// a core's cache with them.
const VALUES_BYTES: usize = 512 << 10;

/// The fewest rows that are compensated together, so that a product is worth its packing.
const FEWEST_ROWS: usize = 48;

/// How many rows are compensated together. The same on every machine, so that the same bytes come out.
pub(super) const fn rows_together(in_features: usize) -> usize {
    let rows = VALUES_BYTES / (4 * if in_features == 0 { 1 } else { in_features });
    if rows < FEWEST_ROWS {
        FEWEST_ROWS
    } else {
        rows
    }
}

/// Bytes of memory that compensation rows takes: their values and what the steps keep beside them.
pub(super) const fn memory(in_features: usize) -> u64 {
    12 * 4 * rows_together(in_features) as u64 * in_features as u64
}

/// Prunes rows by `mask` where they lie, has them compensated, and counts: `compensate_rows` gets them as f32, `[rows, in_features]` and
/// finite. A row that cannot be compensated (a weight that is not finite, a
/// value that its dtype has no room for) is pruned alone.
pub(super) fn compensate(
    compensate_rows: impl FnOnce(&[f32], &mut Mask) -> Result<CompensatedRows, Error>,
    (dtype, in_features): (Dtype, usize),
    bytes: &mut [u8],
    mut mask: Mask,
    squares: bool,
) -> Result<Counts, Error> {
    let mut weights = decode(dtype, bytes);
    let is_sound: Vec<bool> = weights
        .chunks_exact_mut(in_features)
        .map(|row| {
            let is_finite = row.iter().all(|weight| weight.is_finite());
            if !is_finite {
                row.fill(0.0);
            }
            is_finite
        })
        .collect();
    let of_score = mask.clone();
    let compensated = compensate_rows(&weights, &mut mask)?;

    let mut counts = Counts::default();
    let row_bytes = in_features * dtype.size();
    for (row, bytes) in bytes.chunks_exact_mut(row_bytes).enumerate() {
        let range = row * in_features..(row + 1) * in_features;
        let (values, weights) = (&compensated.values[range.clone()], &weights[range]);
        let (before, after) = (compensated.before[row], compensated.after[row]);
        // An error that has not fallen: f32 has not been enough.
        let is_better = is_sound[row] && after.is_finite() && after <= before;
        let zeros_before = weights.iter().filter(|weight| **weight == 0.0).count();
        if is_better && round_row(dtype, values, bytes) {
            counts.weights += in_features as u64;
            counts.zeros_before += zeros_before as u64;
            counts.error_pruned += before;
            counts.error_compensated += after;
            let stored = decode(dtype, bytes);
            counts.zeros += stored.iter().filter(|value| **value == 0.0).count() as u64;
            if squares {
                for (&stored, &weight) in stored.iter().zip(weights) {
                    let (stored, weight) = (f64::from(stored), f64::from(weight));
                    counts.squares += weight * weight;
                    counts.squares_changed += (weight - stored) * (weight - stored);
                }
            }
        } else {
            counts += of_score.part(row..row + 1).apply(dtype, bytes, squares);
            counts.rows_not_compensated += 1;
        }
    }
    Ok(counts)
}

/// What compensates the rows of a matrix here.
pub(super) fn by_host(
    recipe: &MatrixRecipe,
) -> impl Fn(&InputCompensator, &[f32], &mut Mask) -> Result<CompensatedRows, Error> {
    let selection = recipe.recipe.selection;
    move |of_input, weights, mask| on_host(&of_input.compensator, selection, weights, mask)
}

/// Compensates rows here, a few at a time.
pub(super) fn on_host(
    compensator: &Compensator,
    selection: Selection,
    weights: &[f32],
    mask: &mut Mask,
) -> Result<CompensatedRows, Error> {
    let in_features = mask.in_features;
    // By the rule of the recipe; the scores are the values themselves.
    let by_value = Recipe {
        selection,
        factors: Factors::new(vec![1.0; in_features], None),
    };
    let mut choose = |values: &[f32]| -> Result<Mask, Error> {
        let bytes = bytemuck::cast_slice(values);
        let rows = Rows::new(Dtype::F32, in_features, bytes);
        Ok(cpu::mask(rows, 0, &by_value))
    };
    let mut all: Option<CompensatedRows> = None;
    let rows = rows_together(in_features);
    for (index, weights) in weights.chunks((rows * in_features).max(1)).enumerate() {
        let rows = index * rows..mask.rows.min((index + 1) * rows);
        let mut part = mask.part(rows.clone());
        let compensated = compensator.compensate(weights, &mut part, &mut choose)?;
        mask.set_part(rows.start, &part);
        match &mut all {
            None => all = Some(compensated),
            Some(all) => all.extend(compensated),
        }
    }
    all.map_or_else(|| Ok(CompensatedRows::default()), Ok)
}

impl From<products::Error> for Error {
    fn from(error: products::Error) -> Self {
        Self::Compensating(error.to_string())
    }
}
