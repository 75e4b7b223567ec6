//! Convolutions and recurrences along a window on the CPU: one token after the other, in f32.

use rayon::prelude::*;

use crate::model::{DeltaSizes, Scan, ScanSizes, StateSizes};

/// A causal convolution of each channel for itself.
#[derive(Clone, Debug)]
pub(crate) struct CpuConvolution {
    /// `[channels, width]`; the last factor is that of the token itself.
    pub(super) weight: Vec<f32>,
    /// `[channels]`.
    pub(super) bias: Option<Vec<f32>>,
    pub(super) width: usize,
}

impl CpuConvolution {
    /// Each channel of `x`, `[tokens, channels]`, convolved with the tokens before it: those of `x`, and those of `tail` before
    /// them, which is made the end of both if the window `goes_on`.
    pub(super) fn apply(&self, x: &[f32], y: &mut [f32], goes_on: bool, tail: &mut Vec<f32>) {
        let channels = self.weight.len() / self.width;
        let before = tail.len() / channels;
        let row = |number: usize| match number.checked_sub(before) {
            Some(own) => &x[own * channels..(own + 1) * channels],
            None => &tail[number * channels..(number + 1) * channels],
        };
        let rows = y.par_chunks_mut(channels).enumerate();
        rows.for_each(|(token, y)| {
            let reach = self.width.min(before + token + 1);
            for (channel, y) in y.iter_mut().enumerate() {
                let weight = &self.weight[channel * self.width..(channel + 1) * self.width];
                let mut sum = self.bias.as_ref().map_or(0.0, |bias| bias[channel]);
                for (back, weight) in weight.iter().rev().take(reach).enumerate() {
                    sum += weight * row(before + token - back)[channel];
                }
                *y = sum;
            }
        });
        if goes_on {
            let seen = before + x.len() / channels;
            let kept = seen.saturating_sub(self.width - 1)..seen;
            *tail = kept.flat_map(row).copied().collect();
        }
    }
}

/// What a scan has come to: of each head, what it keeps; nothing before the first token.
#[derive(Clone, Debug, Default)]
pub(crate) struct State(Vec<Vec<f32>>);

/// What comes out of a scan, `[tokens, features]`, of inputs that are each `[tokens, features]`.
pub(super) fn scan(scan: &Scan, inputs: &[&[f32]], state: &mut State, y: &mut [f32]) {
    let (heads, kept) = match scan.sizes {
        ScanSizes::StateSpace(sizes) => (sizes.heads, sizes.features * sizes.states),
        ScanSizes::DeltaNet(sizes) => {
            let kept = sizes.key_features * sizes.value_features;
            (sizes.value_heads, kept)
        }
    };
    state.0.resize_with(heads, || vec![0.0; kept]);
    let states = state.0.par_iter_mut().enumerate();
    let of_heads: Vec<Vec<f32>> = match (scan.sizes, inputs) {
        (ScanSizes::StateSpace(sizes), [x, time_step, b, c]) => states
            .map(|(head, kept)| state_space(scan, sizes, (head, kept), [x, time_step, b, c]))
            .collect(),
        (ScanSizes::DeltaNet(sizes), [q, k, v, time_step, beta]) => states
            .map(|(head, kept)| delta_net(scan, sizes, (head, kept), [q, k, v, time_step, beta]))
            .collect(),
        _ => unreachable!("the wiring gives a scan its inputs"),
    };
    let features = scan.sizes.output();
    let of_head = features / heads;
    for (token, row) in y.chunks_exact_mut(features).enumerate() {
        for (y, head) in row.chunks_exact_mut(of_head).zip(&of_heads) {
            y.copy_from_slice(&head[token * of_head..(token + 1) * of_head]);
        }
    }
}

/// `dt` of a head.
fn step(scan: &Scan, head: usize, time_step: f32) -> f32 {
    let x = time_step + scan.bias[head];
    let softplus = if x > 20.0 { x } else { x.exp().ln_1p() };
    softplus.clamp(scan.limits[0], scan.limits[1])
}

/// One head, `[tokens, features]`. It keeps `[features, states]`.
fn state_space(
    scan: &Scan,
    sizes: StateSizes,
    (head, kept): (usize, &mut [f32]),
    [x, time_step, b, c]: [&[f32]; 4],
) -> Vec<f32> {
    let StateSizes {
        heads,
        features,
        groups,
        states,
    } = sizes;
    let of_head = scan.decays.len() / heads;
    let decays = &scan.decays[head * of_head..(head + 1) * of_head];
    let group = head / (heads / groups);
    let tokens = time_step.len() / heads;
    let mut faded = vec![0.0_f32; states];
    let mut found = Vec::with_capacity(tokens * features);
    for token in 0..tokens {
        let dt = step(scan, head, time_step[token * heads + head]);
        match decays {
            [decay] => faded.fill((decay * dt).exp()),
            _ => {
                let each = faded.iter_mut().zip(decays);
                each.for_each(|(faded, decay)| *faded = (decay * dt).exp());
            }
        }
        let at = (token * groups + group) * states;
        let (b, c) = (&b[at..at + states], &c[at..at + states]);
        let x = &x[(token * heads + head) * features..][..features];
        for (kept, &x) in kept.chunks_exact_mut(states).zip(x) {
            let mut sum = 0.0;
            for (((kept, faded), b), c) in kept.iter_mut().zip(&faded).zip(b).zip(c) {
                *kept = *kept * faded + dt * b * x;
                sum += *kept * c;
            }
            found.push(sum + scan.skip[head] * x);
        }
    }
    found
}

/// One value head, `[tokens, value features]`. It keeps `[key features, value features]`.
fn delta_net(
    scan: &Scan,
    sizes: DeltaSizes,
    (head, kept): (usize, &mut [f32]),
    [q, k, v, time_step, beta]: [&[f32]; 5],
) -> Vec<f32> {
    let DeltaSizes {
        key_heads,
        value_heads,
        key_features,
        value_features,
    } = sizes;
    let key_head = head / (value_heads / key_heads);
    let tokens = time_step.len() / value_heads;
    let mut found = Vec::with_capacity(tokens * value_features);
    for token in 0..tokens {
        let at = (token * key_heads + key_head) * key_features;
        let q = l2_normalize(&q[at..at + key_features]);
        let k = l2_normalize(&k[at..at + key_features]);
        let v = &v[(token * value_heads + head) * value_features..][..value_features];
        let dt = step(scan, head, time_step[token * value_heads + head]);
        let faded = (scan.decays[head] * dt).exp();
        let beta = 1.0 / (1.0 + (-beta[token * value_heads + head]).exp());
        let mut remembered = vec![0.0_f32; value_features];
        for (row, k) in kept.chunks_exact_mut(value_features).zip(&k) {
            for (kept, remembered) in row.iter_mut().zip(&mut remembered) {
                *kept *= faded;
                *remembered += *kept * k;
            }
        }
        let scale = (key_features as f32).powf(-0.5);
        let mut sums = vec![0.0_f32; value_features];
        for ((row, k), q) in kept.chunks_exact_mut(value_features).zip(&k).zip(&q) {
            let news = v.iter().zip(&remembered);
            for ((kept, (v, remembered)), sum) in row.iter_mut().zip(news).zip(&mut sums) {
                *kept += k * (v - remembered) * beta;
                *sum += *kept * (q * scale);
            }
        }
        found.extend(sums);
    }
    found
}

/// A vector, brought to length 1.
fn l2_normalize(x: &[f32]) -> Vec<f32> {
    let squares: f32 = x.iter().map(|x| x * x).sum();
    let factor = 1.0 / (squares + 1e-6).sqrt();
    x.iter().map(|x| x * factor).collect()
}
