//! The rows of a matrix, compensated: the weights that stay make up for those that went.
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
//!
//! `Z` and `Y` are the two halves of their sum `U = X + Y`: `Z` is `U` where a weight is kept, `Y` is `U` where none is. So what
//! goes from one step to the next is `U` alone, and `Z - Y` is `U` with the signs of the mask. And with the inverse,
//! `X = W + (H + I)^-1 (Z - Y - W)`: one product a step.

use super::hessian::{Hessian, Product, Thin};
use super::options::Compensation;
use crate::mask::Mask;
use crate::products::Error;
use crate::simd::widest;

/// What a whole matrix's rows are compensated with.
#[derive(Debug)]
pub(crate) struct Compensator {
    options: Compensation,
    /// Square roots of the diagonal of `H`, `[in_features]`.
    scale: Vec<f32>,
    product: Product,
    /// `(H + I)^-1`, where the alternating directions choose the mask.
    inverse: Option<Product>,
}

/// Some rows, compensated.
#[derive(Clone, Debug, Default)]
pub(crate) struct CompensatedRows {
    /// `[rows, in_features]`, zero where pruned.
    pub(crate) values: Vec<f32>,
    /// The output error of each row, in the units of `H`, if it were only pruned.
    pub(crate) before: Vec<f64>,
    /// The output error of each row as it is.
    pub(crate) after: Vec<f64>,
}

impl CompensatedRows {
    /// Puts the rows that come next behind these.
    pub(crate) fn extend(&mut self, next: Self) {
        self.values.extend(next.values);
        self.before.extend(next.before);
        self.after.extend(next.after);
    }
}

impl Compensator {
    /// For matrices with this `H`; `None` where it cannot be inverted.
    pub(crate) fn new(hessian: &Hessian, options: Compensation) -> Option<Self> {
        let roots: Vec<f64> = hessian.whole_diagonal().iter().map(|h| h.sqrt()).collect();
        let scale: Vec<f64> = roots.iter().map(|root| 1.0 / root).collect();
        let inverse = match options.mask_steps {
            0 => None,
            _ => Some(hessian.inverse_product(&scale, 1.0)?),
        };
        Some(Self {
            options,
            scale: roots.iter().map(|&root| root as f32).collect(),
            product: hessian.product(&scale),
            inverse,
        })
    }

    /// Compensates `weights`, `[rows, in_features]` and finite, of which `mask` says which go. `choose` makes the mask of rows
    /// with such scores; what is zero already is never filled.
    pub(crate) fn compensate<E: From<Error>>(
        &self,
        weights: &[f32],
        mask: &mut Mask,
        choose: &mut dyn FnMut(&[f32]) -> Result<Mask, E>,
    ) -> Result<CompensatedRows, E> {
        let scaled = self.scaled(weights);
        let mut kept = kept(&scaled, mask);
        let mut values = pruned(&scaled, &kept);
        let mut pruned_alone = None;
        let mut thin = Thin::default();
        if let Some(inverse) = &self.inverse {
            pruned_alone = Some(self.error(&scaled, &values, &mut thin)?);
            let mask = (mask, &mut kept);
            values = self.choose(inverse, &scaled, mask, values, &mut thin, choose)?;
        }
        let [start, after] = self.descend(&scaled, &kept, &mut values, &mut thin)?;
        let before = pruned_alone.unwrap_or(start);
        self.unscale(&mut values);
        Ok(CompensatedRows {
            values,
            before,
            after,
        })
    }

    /// How it goes about it.
    pub(crate) const fn options(&self) -> &Compensation {
        &self.options
    }

    /// `H`, scaled.
    pub(crate) const fn product(&self) -> &Product {
        &self.product
    }

    /// `(H + I)^-1`, where the alternating directions choose the mask.
    pub(crate) const fn inverse(&self) -> Option<&Product> {
        self.inverse.as_ref()
    }

    /// Weights by the root of their column's `H`, as rows are compensated.
    pub(crate) fn scaled(&self, weights: &[f32]) -> Vec<f32> {
        let mut scaled = weights.to_vec();
        for row in scaled.chunks_exact_mut(self.scale.len()) {
            for (weight, scale) in row.iter_mut().zip(&self.scale) {
                *weight *= scale;
            }
        }
        scaled
    }

    /// Turns such rows into weights again.
    pub(crate) fn unscale(&self, values: &mut [f32]) {
        for row in values.chunks_exact_mut(self.scale.len()) {
            for (value, scale) in row.iter_mut().zip(&self.scale) {
                *value /= scale;
            }
        }
    }

    /// `(v - w)^T H (v - w)` of each row: half a product with `H` is enough.
    fn error(&self, weights: &[f32], values: &[f32], thin: &mut Thin) -> Result<Vec<f64>, Error> {
        let error = differences(weights, values);
        self.product.half(&error, thin)?;
        Ok(self.curvatures(&error, &thin.half))
    }

    /// `x^T H x` of each row `x`, with its half of the product.
    fn curvatures(&self, rows: &[f32], half: &[f32]) -> Vec<f64> {
        let Product { diagonal, rank, .. } = &self.product;
        let rows = (rows.chunks_exact(diagonal.len())).zip(half.chunks_exact(*rank));
        let mut curvatures = Vec::with_capacity(rows.len());
        widest(
            #[inline(always)]
            || {
                curvatures.extend(rows.map(|(row, half)| {
                    let along: f64 = (row.iter().zip(diagonal))
                        .map(|(&x, &d)| f64::from(x) * f64::from(x) * f64::from(d))
                        .sum();
                    along + dot(half, half)
                }));
            },
        );
        curvatures
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
    fn descend(
        &self,
        weights: &[f32],
        kept: &[bool],
        values: &mut [f32],
        thin: &mut Thin,
    ) -> Result<[Vec<f64>; 2], Error> {
        let in_features = self.scale.len();
        let Product { diagonal, sign, .. } = &self.product;
        let mut direction = differences(weights, values);
        self.product.thin(&direction, thin)?;
        let mut residual = Vec::with_capacity(direction.len());
        widest(
            #[inline(always)]
            || {
                let rows =
                    (direction.chunks_exact(in_features)).zip(thin.whole.chunks_exact(in_features));
                rows.for_each(|(x, thin)| residual.extend(times(diagonal, x, thin, *sign)));
            },
        );
        let start = self.row_dots(&direction, &residual);
        for (residual, &kept) in residual.iter_mut().zip(kept) {
            *residual = if kept { *residual } else { 0.0 };
        }
        let mut left = start.clone();
        let mut squares = self.row_dots(&residual, &residual);
        direction.copy_from_slice(&residual);
        for _ in 1..self.options.steps {
            self.product.thin(&direction, thin)?;
            widest(
                #[inline(always)]
                || {
                    let rows = (values.chunks_exact_mut(in_features))
                        .zip(residual.chunks_exact_mut(in_features))
                        .zip(direction.chunks_exact_mut(in_features))
                        .zip(thin.whole.chunks_exact(in_features))
                        .zip(kept.chunks_exact(in_features));
                    let of_rows = squares.iter_mut().zip(&mut left);
                    for (((((value, residual), direction), thin), kept), of_row) in
                        rows.zip(of_rows)
                    {
                        let product = (&diagonal[..], thin, *sign);
                        step((value, residual, direction), product, kept, of_row);
                    }
                },
            );
        }
        if self.options.steps > 0 {
            // Nobody asks for the residual after the last step, which half a product is enough for.
            self.product.half(&direction, thin)?;
            let curvatures = self.curvatures(&direction, &thin.half);
            let rows =
                (values.chunks_exact_mut(in_features)).zip(direction.chunks_exact(in_features));
            let of_rows = (curvatures.iter().zip(&squares)).zip(&mut left);
            for ((values, direction), ((&curvature, &square), left)) in rows.zip(of_rows) {
                if let Some(alpha) = step_length(square, curvature) {
                    *left -= alpha * square;
                    let step = alpha as f32;
                    let pairs = values.iter_mut().zip(direction);
                    pairs.for_each(|(value, direction)| *value += step * direction);
                }
            }
        }
        let after = left.iter().map(|left| left.max(0.0)).collect();
        Ok([start, after])
    }

    /// Alternating directions from `start`, the weights that `kept` leaves: the mask, and values to go on from.
    fn choose<E: From<Error>>(
        &self,
        inverse: &Product,
        weights: &[f32],
        (mask, kept): (&mut Mask, &mut Vec<bool>),
        start: Vec<f32>,
        thin: &mut Thin,
        choose: &mut dyn FnMut(&[f32]) -> Result<Mask, E>,
    ) -> Result<Vec<f32>, E> {
        let in_features = self.scale.len();
        let mut both = start;
        let (mut wanted, mut scores) = (vec![0.0; both.len()], vec![0.0; both.len()]);
        let Product { diagonal, sign, .. } = inverse;
        for _ in 0..self.options.mask_steps {
            widest(
                #[inline(always)]
                || {
                    let all = both.iter().zip(weights).zip(kept.iter());
                    for (wanted, ((u, w), &kept)) in wanted.iter_mut().zip(all) {
                        *wanted = if kept { *u } else { -u } - w;
                    }
                },
            );
            inverse.thin(&wanted, thin)?;
            widest(
                #[inline(always)]
                || {
                    let rows = (both.chunks_exact_mut(in_features))
                        .zip(weights.chunks_exact(in_features))
                        .zip(kept.chunks_exact(in_features))
                        .zip(wanted.chunks_exact(in_features))
                        .zip(thin.whole.chunks_exact(in_features))
                        .zip(scores.chunks_exact_mut(in_features));
                    for (((((both, weights), kept), wanted), thin), scores) in rows {
                        let change = times(diagonal, wanted, thin, *sign);
                        let of_row = both.iter_mut().zip(weights).zip(kept).zip(change);
                        for ((((u, w), &kept), change), score) in of_row.zip(scores) {
                            *u = w + change + if kept { 0.0 } else { *u };
                            *score = if *w == 0.0 { 0.0 } else { *u };
                        }
                    }
                },
            );
            *mask = choose(&scores)?;
            *kept = self::kept(weights, mask);
        }
        Ok(pruned(&both, kept))
    }
}

/// `D x + s y` of a row, where `y` is `V V^T x`.
#[inline(always)]
fn times<'r>(
    diagonal: &'r [f32],
    x: &'r [f32],
    thin: &'r [f32],
    sign: f32,
) -> impl ExactSizeIterator<Item = f32> + 'r {
    (diagonal.iter().zip(x).zip(thin)).map(move |((d, x), y)| d * x + sign * y)
}

fn differences(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// The weights that are kept, and zeros.
fn pruned(weights: &[f32], kept: &[bool]) -> Vec<f32> {
    let pruned = |(&weight, &kept): (&f32, &bool)| if kept { weight } else { 0.0 };
    weights.iter().zip(kept).map(pruned).collect()
}

/// How far a step goes; not at all in a row that is there already, or that rounding has worn down.
#[inline(always)]
fn step_length(square: f64, curvature: f64) -> Option<f64> {
    (curvature > 0.0 && square > 0.0).then(|| square / curvature)
}

/// One step of one row: along `direction`, whose product with `H` is given in its parts. `square` is that of the residual, `left`
/// the output error. Leaves the next direction.
#[inline(always)]
fn step(
    (value, residual, direction): (&mut [f32], &mut [f32], &mut [f32]),
    (diagonal, thin, sign): (&[f32], &[f32], f32),
    kept: &[bool],
    (square, left): (&mut f64, &mut f64),
) {
    let curvature = dot_with_product(direction, diagonal, thin, sign);
    let Some(alpha) = step_length(*square, curvature) else {
        return;
    };
    *left -= alpha * *square;
    let step = alpha as f32;
    let product = times(diagonal, direction, thin, sign);
    for (((value, residual), &direction), (product, &kept)) in (value.iter_mut())
        .zip(residual.iter_mut())
        .zip(direction.iter())
        .zip(product.zip(kept))
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
    let in_features = mask.in_features.max(1);
    let words = Mask::words_per_row(in_features);
    let mut kept = Vec::with_capacity(weights.len());
    widest(
        #[inline(always)]
        || {
            let rows = weights.chunks_exact(in_features);
            for (row, words) in rows.zip(mask.words.chunks_exact(words)) {
                for (part, word) in row.chunks(32).zip(words) {
                    let column =
                        |(bit, &weight): (u32, &f32)| weight != 0.0 && word >> bit & 1 == 0;
                    kept.extend((0..).zip(part).map(column));
                }
            }
        },
    );
    kept
}

/// The sum of `direction` times its product with `H`, as [`dot`] of the two.
#[inline(always)]
fn dot_with_product(direction: &[f32], diagonal: &[f32], thin: &[f32], sign: f32) -> f64 {
    let (a_eights, a_rest) = direction.as_chunks::<8>();
    let (d_eights, d_rest) = diagonal.as_chunks::<8>();
    let (y_eights, y_rest) = thin.as_chunks::<8>();
    let mut sums = [0.0_f64; 8];
    for ((a, d), y) in a_eights.iter().zip(d_eights).zip(y_eights) {
        for lane in 0..8 {
            sums[lane] += f64::from(a[lane]) * f64::from(d[lane] * a[lane] + sign * y[lane]);
        }
    }
    let rest = times(d_rest, a_rest, y_rest, sign).zip(a_rest);
    sums.iter().sum::<f64>() + rest.map(|(b, &a)| f64::from(a) * f64::from(b)).sum::<f64>()
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
