//! Exponentials of whole rows, in lanes: the C library's, one at a time, took a sixth of the forward pass.

use crate::simd::widest;

/// Lanes of a sum; a multiple of every vector's.
const LANES: usize = 16;

/// `e^x` within 2 units in the last place; 0 below -87, and `e^88` above 88.
///
/// Cephes' polynomial (S. Moshier, public domain). Without fused operations, so that every processor gives the same bits,
/// and without branches, so that the loop around it vectorises.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding this rounds to the nearest integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let in_range = x.clamp(-87.0, 88.0);
    let rounded = in_range * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = in_range - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let scale = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    let y = (p * r * r + r + 1.0) * scale;
    if x < -87.0 { 0.0 } else { y }
}

#[inline(always)]
fn largest(xs: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = xs.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max)
}

/// `largest(xs)` and `sum exp(x - largest)`.
pub(super) fn log_sum_exp(xs: &[f32]) -> (f32, f32) {
    struct Task<'a>(&'a [f32]);
    impl pulp::WithSimd for Task<'_> {
        type Output = (f32, f32);

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> (f32, f32) {
            let xs = self.0;
            let largest = largest(xs);
            let mut lanes = [0.0_f32; LANES];
            let chunks = xs.chunks_exact(LANES);
            let rest: f32 = chunks.remainder().iter().map(|&x| exp(x - largest)).sum();
            for chunk in chunks {
                for (lane, &x) in lanes.iter_mut().zip(chunk) {
                    *lane += exp(x - largest);
                }
            }
            (largest, lanes.iter().sum::<f32>() + rest)
        }
    }
    pulp::Arch::new().dispatch(Task(xs))
}

/// Replaces every `x` by its share in the softmax of `scale * x`, with `scale` above 0. Gives `scale * largest(x)` and the
/// denominator, `sum exp(scale * (x - largest))`.
pub(super) fn softmax(xs: &mut [f32], scale: f32) -> (f32, f32) {
    struct Task<'a>(&'a mut [f32], f32);
    impl pulp::WithSimd for Task<'_> {
        type Output = (f32, f32);

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> (f32, f32) {
            let Self(xs, scale) = self;
            let largest = largest(xs);
            xs.iter_mut().for_each(|x| *x = exp((*x - largest) * scale));
            let mut lanes = [0.0_f32; LANES];
            let chunks = xs.chunks_exact(LANES);
            let rest: f32 = chunks.remainder().iter().sum();
            for chunk in chunks {
                for (lane, &x) in lanes.iter_mut().zip(chunk) {
                    *lane += x;
                }
            }
            let sum = lanes.iter().sum::<f32>() + rest;
            let factor = 1.0 / sum;
            xs.iter_mut().for_each(|x| *x *= factor);
            (scale * largest, sum)
        }
    }
    pulp::Arch::new().dispatch(Task(xs, scale))
}

/// Replaces every `x` by `cap tanh(scale x / cap)`.
pub(super) fn soft_cap(xs: &mut [f32], scale: f32, cap: f32) {
    struct Task<'a>(&'a mut [f32], f32, f32);
    impl pulp::WithSimd for Task<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            let Self(xs, scale, cap) = self;
            for x in xs {
                let z = *x * scale / cap;
                let e = exp(-2.0 * z.abs());
                *x = (cap * (1.0 - e) / (1.0 + e)).copysign(z);
            }
        }
    }
    pulp::Arch::new().dispatch(Task(xs, scale, cap));
}

/// Replaces every `x` by `silu(x) = x / (1 + exp(-x))`.
pub(super) fn silu(xs: &mut [f32]) {
    widest(
        #[inline(always)]
        || xs.iter_mut().for_each(|x| *x /= 1.0 + exp(-*x)),
    );
}

/// Replaces every `x` by `x / 2 (1 + tanh(z))` with `z = sqrt(2 / pi) (x + 0.044715 x^3)`, which is `x / (1 + exp(-2 z))`.
pub(super) fn gelu_tanh(xs: &mut [f32]) {
    const SCALE: f32 = 2.0 * 0.797_884_6;
    widest(
        #[inline(always)]
        || {
            let of = |x: f32| x / (1.0 + exp(-SCALE * (x + 0.044_715 * x * x * x)));
            xs.iter_mut().for_each(|x| *x = of(*x));
        },
    );
}

/// Replaces every `gate` by `silu(gate) * up`, with `silu(x) = x / (1 + exp(-x))`.
pub(super) fn silu_gate(gate: &mut [f32], up: &[f32]) {
    struct Task<'a>(&'a mut [f32], &'a [f32]);
    impl pulp::WithSimd for Task<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            for (gate, up) in self.0.iter_mut().zip(self.1) {
                *gate = *gate / (1.0 + exp(-*gate)) * up;
            }
        }
    }
    pulp::Arch::new().dispatch(Task(gate, up));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_that_of_f64_within_two_units() {
        let mut x = -87.0_f32;
        while x <= 88.0 {
            let right = f64::from(x).exp();
            let unit = f64::from(f32::EPSILON) * right;
            assert!((f64::from(exp(x)) - right).abs() <= 2.0 * unit, "{x}");
            x += 0.000_97;
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
    }

    #[test]
    fn a_nan_stays_one() {
        assert!(exp(f32::NAN).is_nan());
        let mut xs = vec![1.0; 40];
        xs[3] = f32::NAN;
        softmax(&mut xs, 1.0);
        assert!(xs.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn softmax_and_its_denominator_agree_with_f64() {
        for len in [1, 5, 16, 100] {
            let xs: Vec<f32> = (0..len)
                .map(|i| ((i * 37 % 23) as f32 - 9.0) * 0.7)
                .collect();
            let (largest, sum) = log_sum_exp(&xs);
            let right: f64 = xs.iter().map(|&x| f64::from(x - largest).exp()).sum();
            assert!((f64::from(sum) / right - 1.0).abs() < 1e-6);
            let mut shares = xs.clone();
            softmax(&mut shares, 1.0);
            for (share, x) in shares.iter().zip(&xs) {
                let right = f64::from(x - largest).exp() / right;
                assert!((f64::from(*share) - right).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_soft_cap_is_that_of_f64_and_keeps_a_nan() {
        let mut xs: Vec<f32> = (-100..100).map(|i| i as f32 * 0.9).collect();
        let right: Vec<f64> = xs
            .iter()
            .map(|&x| 5.0 * (f64::from(x) * 0.3 / 5.0).tanh())
            .collect();
        soft_cap(&mut xs, 0.3, 5.0);
        for (got, right) in xs.iter().zip(right) {
            assert!((f64::from(*got) - right).abs() < 1e-6);
        }
        let mut nan = [f32::NAN];
        soft_cap(&mut nan, 1.0, 1.0);
        assert!(nan[0].is_nan());
    }

    #[test]
    fn a_gate_is_that_of_f64() {
        let mut gate: Vec<f32> = (-50..50).map(|i| i as f32 * 0.9).collect();
        let up: Vec<f32> = (0..100).map(|i| 3.0 - i as f32 * 0.1).collect();
        let right: Vec<f64> = gate
            .iter()
            .zip(&up)
            .map(|(&g, &u)| f64::from(g) / (1.0 + (-f64::from(g)).exp()) * f64::from(u))
            .collect();
        silu_gate(&mut gate, &up);
        for (got, right) in gate.iter().zip(right) {
            assert!((f64::from(*got) - right).abs() <= 1e-6 * right.abs() + 1e-12);
        }
    }
}
