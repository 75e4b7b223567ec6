//! The rows of a matrix, mended: the weights that stay make up for those that went.
//!
//! For each row `w`, over the columns `K` that are kept, `v` minimises the output error `(v - w)^T H (v - w)` with `v` zero off
//! `K`. Columns are scaled by the square root of the diagonal of `H`, which then has ones there; conjugate gradients on all rows
//! of a chunk at once do the rest, so that a step is two thin products and elementwise work, and the error never rises.
//!
//! Where the mask is not the score's business alone (N:M), the alternating direction method of multipliers chooses it (as ALPS
//! does with the whole `X^T X`, arXiv 2406.07831):
//!
//! ```text
//!   X = (H + I)^-1 (H W + Z - Y)      Z = X + Y, pruned      Y += X - Z
//! ```

use candle_core::Result;

use super::hessian::{Hessian, Product};
use super::options::Compensation;
use crate::mask::Mask;
use crate::simd::widest;

/// Steps at the end of the alternating directions in which the mask stays.
const SETTLED: usize = 5;

/// What a whole matrix's rows are mended with.
#[derive(Debug)]
pub(crate) struct Mender {
    options: Compensation,
    /// Square roots of the diagonal of `H`, `[in_features]`.
    scale: Vec<f32>,
    product: Product,
    /// `(H + I)^-1`, where the alternating directions choose the mask.
    inverse: Option<Product>,
}

/// Some rows, mended.
#[derive(Clone, Debug)]
pub(crate) struct MendedRows {
    /// `[rows, in_features]`, zero where pruned.
    pub(crate) values: Vec<f32>,
    /// The output error of each row, in the units of `H`, if it were only pruned.
    pub(crate) before: Vec<f64>,
    /// The output error of each row as it is.
    pub(crate) after: Vec<f64>,
}

impl Mender {
    /// For matrices with this `H`; `None` where it cannot be inverted.
    pub(crate) fn new(hessian: &Hessian, options: Compensation) -> Result<Option<Self>> {
        let roots: Vec<f64> = hessian.whole_diagonal().iter().map(|h| h.sqrt()).collect();
        let scale: Vec<f64> = roots.iter().map(|root| 1.0 / root).collect();
        let inverse = if options.mask_steps > 0 {
            match hessian.inverse_product(&scale, 1.0)? {
                Some(inverse) => Some(inverse),
                None => return Ok(None),
            }
        } else {
            None
        };
        Ok(Some(Self {
            options,
            scale: roots.iter().map(|&root| root as f32).collect(),
            product: hessian.product(&scale)?,
            inverse,
        }))
    }

    /// Mends `weights`, `[rows, in_features]` and finite, of which those go that `mask` says. `choose` makes the mask of rows
    /// with such scores; what is zero already is never filled.
    pub(crate) fn mend<E: From<candle_core::Error>>(
        &self,
        weights: &[f32],
        mask: &mut Mask,
        choose: &mut dyn FnMut(&[f32]) -> std::result::Result<Mask, E>,
    ) -> std::result::Result<MendedRows, E> {
        let scaled = self.scaled(weights);
        let mut kept = kept(&scaled, mask);
        let mut values: Vec<f32> = (scaled.iter().zip(&kept))
            .map(|(&w, &kept)| if kept { w } else { 0.0 })
            .collect();
        let mut pruned_alone = None;
        if let Some(inverse) = &self.inverse {
            pruned_alone = Some(self.error(&scaled, &values)?);
            values = self.choose(inverse, &scaled, mask, choose)?;
            kept = self::kept(&scaled, mask);
        }
        let [start, after] = self.descend(&scaled, &kept, &mut values)?;
        let before = pruned_alone.unwrap_or(start);
        for row in values.chunks_exact_mut(self.scale.len()) {
            for (value, scale) in row.iter_mut().zip(&self.scale) {
                *value /= scale;
            }
        }
        Ok(MendedRows {
            values,
            before,
            after,
        })
    }

    fn scaled(&self, weights: &[f32]) -> Vec<f32> {
        let mut scaled = weights.to_vec();
        for row in scaled.chunks_exact_mut(self.scale.len()) {
            for (weight, scale) in row.iter_mut().zip(&self.scale) {
                *weight *= scale;
            }
        }
        scaled
    }

    /// `(v - w)^T H (v - w)` of each row.
    fn error(&self, weights: &[f32], values: &[f32]) -> Result<Vec<f64>> {
        let error: Vec<f32> = weights.iter().zip(values).map(|(w, v)| v - w).collect();
        let product = self.product.of(&error)?;
        Ok(self.row_dots(&error, &product))
    }

    fn row_dots(&self, a: &[f32], b: &[f32]) -> Vec<f64> {
        let in_features = self.scale.len();
        let rows = a.chunks_exact(in_features).zip(b.chunks_exact(in_features));
        let mut dots = Vec::with_capacity(rows.len());
        widest(
            #[inline(always)]
            || dots.extend(rows.map(|(a, b)| dot(a, b))),
        );
        dots
    }

    /// Conjugate gradients from `values`; the output error of each row before and afterwards.
    fn descend(&self, weights: &[f32], kept: &[bool], values: &mut [f32]) -> Result<[Vec<f64>; 2]> {
        let error: Vec<f32> = (weights.iter().zip(values.iter()))
            .map(|(w, v)| w - v)
            .collect();
        let mut residual = self.product.of(&error)?;
        let start = self.row_dots(&error, &residual);
        let mut left = start.clone();
        drop(error);
        for (residual, &kept) in residual.iter_mut().zip(kept) {
            *residual = if kept { *residual } else { 0.0 };
        }
        let mut direction = residual.clone();
        let mut squares = self.row_dots(&residual, &residual);
        for _ in 0..self.options.steps {
            let product = self.product.of(&direction)?;
            widest(
                #[inline(always)]
                || {
                    let in_features = self.scale.len();
                    let rows = (values.chunks_exact_mut(in_features))
                        .zip(residual.chunks_exact_mut(in_features))
                        .zip(direction.chunks_exact_mut(in_features))
                        .zip(product.chunks_exact(in_features))
                        .zip(kept.chunks_exact(in_features));
                    let of_rows = squares.iter_mut().zip(&mut left);
                    for (((((value, residual), direction), product), kept), (square, left)) in
                        rows.zip(of_rows)
                    {
                        step((value, residual, direction), product, kept, (square, left));
                    }
                },
            );
        }
        let after = left.iter().map(|left| left.max(0.0)).collect();
        Ok([start, after])
    }

    /// Alternating directions: the mask, and values to start from.
    fn choose<E: From<candle_core::Error>>(
        &self,
        inverse: &Product,
        weights: &[f32],
        mask: &mut Mask,
        choose: &mut dyn FnMut(&[f32]) -> std::result::Result<Mask, E>,
    ) -> std::result::Result<Vec<f32>, E> {
        let target = self.product.of(weights)?;
        let mut kept = kept(weights, mask);
        let mut pruned: Vec<f32> = (weights.iter().zip(&kept))
            .map(|(&w, &kept)| if kept { w } else { 0.0 })
            .collect();
        let mut dual = vec![0.0_f32; weights.len()];
        for step in 0..self.options.mask_steps {
            let wanted: Vec<f32> = (target.iter().zip(&pruned).zip(&dual))
                .map(|((t, z), y)| t + (z - y))
                .collect();
            let x = inverse.of(&wanted)?;
            let mut sum = wanted;
            for (((sum, x), y), w) in sum.iter_mut().zip(&x).zip(&dual).zip(weights) {
                *sum = if *w == 0.0 { 0.0 } else { x + y };
            }
            if step + SETTLED < self.options.mask_steps {
                *mask = choose(&sum)?;
                kept = self::kept(weights, mask);
            }
            for ((((z, y), sum), x), &kept) in (pruned.iter_mut())
                .zip(&mut dual)
                .zip(&sum)
                .zip(&x)
                .zip(&kept)
            {
                *z = if kept { *sum } else { 0.0 };
                *y += x - *z;
            }
        }
        Ok(pruned)
    }
}

/// One step of one row: along `direction`, whose product with `H` is given. `square` is that of the residual, `left` the output
/// error.
#[inline(always)]
fn step(
    (value, residual, direction): (&mut [f32], &mut [f32], &mut [f32]),
    product: &[f32],
    kept: &[bool],
    (square, left): (&mut f64, &mut f64),
) {
    let curvature = dot(direction, product);
    // A row that is there already, or that rounding has worn down.
    if !(curvature > 0.0 && *square > 0.0) {
        return;
    }
    let alpha = *square / curvature;
    *left -= alpha * *square;
    let step = alpha as f32;
    for (((value, residual), &direction), (&product, &kept)) in (value.iter_mut())
        .zip(residual.iter_mut())
        .zip(direction.iter())
        .zip(product.iter().zip(kept))
    {
        *value += step * direction;
        *residual -= if kept { step * product } else { 0.0 };
    }
    let now = dot(residual, residual);
    let beta = (now / *square) as f32;
    *square = now;
    for (direction, &residual) in direction.iter_mut().zip(residual.iter()) {
        *direction = residual + beta * *direction;
    }
}

/// Whether each weight is kept, and not zero.
fn kept(weights: &[f32], mask: &Mask) -> Vec<bool> {
    let mut kept = Vec::with_capacity(weights.len());
    for (index, row) in weights.chunks_exact(mask.in_features.max(1)).enumerate() {
        let column =
            |(column, &weight): (usize, &f32)| weight != 0.0 && !mask.prunes(index, column);
        kept.extend(row.iter().enumerate().map(column));
    }
    kept
}

/// A sum of products in f64, in eight partial sums.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let (a_eights, a_rest) = a.as_chunks::<8>();
    let (b_eights, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0_f64; 8];
    for (a, b) in a_eights.iter().zip(b_eights) {
        for lane in 0..8 {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    let rest = a_rest.iter().zip(b_rest);
    sums.iter().sum::<f64>()
        + rest
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum::<f64>()
}
