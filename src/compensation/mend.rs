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
//!
//! `Z` and `Y` are the two halves of their sum `U = X + Y`: `Z` is `U` where a weight is kept, `Y` is `U` where none is. So what
//! goes from one step to the next is `U` alone, and `Z - Y` is `U` with the signs of the mask. And with the inverse,
//! `X = W + (H + I)^-1 (Z - Y - W)`: one product a step.

use candle_core::{CpuStorage, Device, Result, Storage, Tensor, bail};

use super::hessian::{Hessian, Product};
use super::options::Compensation;
use crate::mask::Mask;
use crate::products;
use crate::simd::widest;

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
#[derive(Clone, Debug, Default)]
pub(crate) struct MendedRows {
    /// `[rows, in_features]`, zero where pruned.
    pub(crate) values: Vec<f32>,
    /// The output error of each row, in the units of `H`, if it were only pruned.
    pub(crate) before: Vec<f64>,
    /// The output error of each row as it is.
    pub(crate) after: Vec<f64>,
}

impl MendedRows {
    /// Puts the rows that come next behind these.
    pub(crate) fn extend(&mut self, next: Self) {
        self.values.extend(next.values);
        self.before.extend(next.before);
        self.after.extend(next.after);
    }
}

impl Mender {
    /// For matrices with this `H`; `None` where it cannot be inverted.
    pub(crate) fn new(hessian: &Hessian, options: Compensation) -> Result<Option<Self>> {
        // Every core has rows of its own.
        products::keep_on_one_core();
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
        let mut values = pruned(&scaled, &kept);
        let mut pruned_alone = None;
        if let Some(inverse) = &self.inverse {
            pruned_alone = Some(self.error(&scaled, &values)?);
            values = self.choose(inverse, &scaled, (mask, &mut kept), values, choose)?;
        }
        let [start, after] = self.descend(&scaled, &kept, &mut values)?;
        let before = pruned_alone.unwrap_or(start);
        self.unscale(&mut values);
        Ok(MendedRows {
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

    /// Weights by the root of their column's `H`, as rows are mended.
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

    /// Rows to multiply with.
    fn tensor(&self, rows: Vec<f32>) -> Result<Tensor> {
        let in_features = self.scale.len();
        let shape = (rows.len() / in_features, in_features);
        Tensor::from_vec(rows, shape, &Device::Cpu)
    }

    /// `H` times rows.
    fn multiplied(&self, rows: &Tensor) -> Result<Vec<f32>> {
        let Product { diagonal, sign, .. } = &self.product;
        with_values(rows, &self.product.thin(rows)?, |rows, thin| {
            let mut all = Vec::with_capacity(rows.len());
            let in_features = diagonal.len();
            let thin = thin.chunks_exact(in_features);
            for (x, thin) in rows.chunks_exact(in_features).zip(thin) {
                all.extend(times(diagonal, x, thin, *sign));
            }
            all
        })
    }

    /// `(v - w)^T H (v - w)` of each row: half a product with `H` is enough.
    fn error(&self, weights: &[f32], values: &[f32]) -> Result<Vec<f64>> {
        let in_features = self.scale.len();
        let error = self.tensor(differences(weights, values))?;
        let Product { diagonal, .. } = &self.product;
        with_values(&error, &self.product.half(&error)?, |error, half| {
            let rank = half.len() * in_features / error.len().max(1);
            let rows = error
                .chunks_exact(in_features)
                .zip(half.chunks_exact(rank.max(1)));
            let mut errors = Vec::with_capacity(rows.len());
            widest(
                #[inline(always)]
                || {
                    errors.extend(rows.map(|(error, half)| {
                        let along: f64 = (error.iter().zip(diagonal))
                            .map(|(&e, &d)| f64::from(e) * f64::from(e) * f64::from(d))
                            .sum();
                        along + dot(half, half)
                    }));
                },
            );
            errors
        })
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
        let in_features = self.scale.len();
        let error = self.tensor(differences(weights, values))?;
        let mut residual = self.multiplied(&error)?;
        let start = with_values(&error, &error, |error, _| self.row_dots(error, &residual))?;
        drop(error);
        for (residual, &kept) in residual.iter_mut().zip(kept) {
            *residual = if kept { *residual } else { 0.0 };
        }
        let mut left = start.clone();
        let mut squares = self.row_dots(&residual, &residual);
        let mut direction = self.tensor(residual.clone())?;
        let Product { diagonal, sign, .. } = &self.product;
        for _ in 0..self.options.steps {
            let thin = self.product.thin(&direction)?;
            let next = with_values(&direction, &thin, |direction, thin| {
                let mut next = Vec::with_capacity(direction.len());
                widest(
                    #[inline(always)]
                    || {
                        let rows = (values.chunks_exact_mut(in_features))
                            .zip(residual.chunks_exact_mut(in_features))
                            .zip(direction.chunks_exact(in_features))
                            .zip(thin.chunks_exact(in_features))
                            .zip(kept.chunks_exact(in_features));
                        let of_rows = squares.iter_mut().zip(&mut left);
                        for (((((value, residual), direction), thin), kept), of_row) in
                            rows.zip(of_rows)
                        {
                            let product = (&diagonal[..], thin, *sign);
                            step(
                                (value, residual),
                                direction,
                                product,
                                kept,
                                of_row,
                                &mut next,
                            );
                        }
                    },
                );
                next
            })?;
            direction = self.tensor(next)?;
        }
        let after = left.iter().map(|left| left.max(0.0)).collect();
        Ok([start, after])
    }

    /// Alternating directions from `start`, the weights that `kept` leaves: the mask, and values to go on from.
    fn choose<E: From<candle_core::Error>>(
        &self,
        inverse: &Product,
        weights: &[f32],
        (mask, kept): (&mut Mask, &mut Vec<bool>),
        start: Vec<f32>,
        choose: &mut dyn FnMut(&[f32]) -> std::result::Result<Mask, E>,
    ) -> std::result::Result<Vec<f32>, E> {
        let in_features = self.scale.len();
        let mut both = start;
        let Product { diagonal, sign, .. } = inverse;
        for _ in 0..self.options.mask_steps {
            let mut wanted = Vec::with_capacity(both.len());
            widest(
                #[inline(always)]
                || {
                    let all = both.iter().zip(weights).zip(kept.iter());
                    wanted.extend(all.map(|((u, w), &kept)| if kept { *u } else { -u } - w));
                },
            );
            let wanted = self.tensor(wanted)?;
            let thin = inverse.thin(&wanted)?;
            let mut scores = Vec::with_capacity(both.len());
            with_values(&wanted, &thin, |wanted, thin| {
                widest(
                    #[inline(always)]
                    || {
                        let rows = (both.chunks_exact_mut(in_features))
                            .zip(weights.chunks_exact(in_features))
                            .zip(kept.chunks_exact(in_features))
                            .zip(wanted.chunks_exact(in_features))
                            .zip(thin.chunks_exact(in_features));
                        for ((((both, weights), kept), wanted), thin) in rows {
                            let change = times(diagonal, wanted, thin, *sign);
                            let of_row = both.iter_mut().zip(weights).zip(kept).zip(change);
                            for (((u, w), &kept), change) in of_row {
                                *u = w + change + if kept { 0.0 } else { *u };
                            }
                            let pairs = both.iter().zip(weights);
                            scores.extend(pairs.map(|(&u, &w)| if w == 0.0 { 0.0 } else { u }));
                        }
                    },
                );
            })?;
            *mask = choose(&scores)?;
            *kept = self::kept(weights, mask);
        }
        Ok(pruned(&both, kept))
    }
}

/// Does something with the numbers of two tensors.
fn with_values<T>(a: &Tensor, b: &Tensor, work: impl FnOnce(&[f32], &[f32]) -> T) -> Result<T> {
    let (a, b) = (a.storage_and_layout().0, b.storage_and_layout().0);
    match (&*a, &*b) {
        (Storage::Cpu(CpuStorage::F32(a)), Storage::Cpu(CpuStorage::F32(b))) => Ok(work(a, b)),
        _ => bail!("rows are f32, on the CPU"),
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

/// One step of one row: along `direction`, whose product with `H` is given in its parts. `square` is that of the residual, `left`
/// the output error. Appends the next direction.
#[inline(always)]
fn step(
    (value, residual): (&mut [f32], &mut [f32]),
    direction: &[f32],
    (diagonal, thin, sign): (&[f32], &[f32], f32),
    kept: &[bool],
    (square, left): (&mut f64, &mut f64),
    next: &mut Vec<f32>,
) {
    let curvature = dot_with_product(direction, diagonal, thin, sign);
    // A row that is there already, or that rounding has worn down.
    if !(curvature > 0.0 && *square > 0.0) {
        next.extend_from_slice(direction);
        return;
    }
    let alpha = *square / curvature;
    *left -= alpha * *square;
    let step = alpha as f32;
    let product = times(diagonal, direction, thin, sign);
    for (((value, residual), &direction), (product, &kept)) in (value.iter_mut())
        .zip(residual.iter_mut())
        .zip(direction)
        .zip(product.zip(kept))
    {
        *value += step * direction;
        *residual -= if kept { step * product } else { 0.0 };
    }
    let now = dot(residual, residual);
    let beta = (now / *square) as f32;
    *square = now;
    let pairs = residual.iter().zip(direction);
    next.extend(pairs.map(|(&residual, &direction)| residual + beta * direction));
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
