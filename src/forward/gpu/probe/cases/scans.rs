//! What goes along a window: convolutions, state spaces and delta nets, at once and in parts that hand their state on.

use super::super::case::{Case, values};
use crate::forward::kernels::{ConvolutionParams, DeltaNetParams, StateSpaceParams};

const TOKENS: u32 = 9;

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for of in [
        // From the beginning of a window, and further on in one.
        (ConvolutionParams {
            channels: 70,
            width: 4,
            biased: 1,
            row: 0,
            rows: 9,
            before: 0,
        }),
        (ConvolutionParams {
            channels: 5,
            width: 3,
            biased: 0,
            row: 2,
            rows: 7,
            before: 2,
        }),
        // Fewer tokens than a tail has.
        (ConvolutionParams {
            channels: 5,
            width: 4,
            biased: 0,
            row: 1,
            rows: 1,
            before: 1,
        }),
    ] {
        all.extend(convolution(of));
    }
    all.extend([
        // A decay a head, time steps that are cut off, and more channels than a workgroup has.
        state_space(
            "state space of Mamba 2, in parts",
            StateSpaceParams {
                end: TOKENS,
                heads: 4,
                features: 20,
                groups: 2,
                states: 10,
                decays: 1,
                least: 0.5,
                most: 1.0,
                ..Default::default()
            },
            &[6],
        ),
        // A decay a state.
        state_space(
            "state space of Mamba 1",
            StateSpaceParams {
                end: 5,
                heads: 70,
                features: 1,
                groups: 1,
                states: 6,
                decays: 6,
                least: 0.0,
                most: f32::MAX,
                ..Default::default()
            },
            &[],
        ),
        delta_net(
            "delta net, in parts",
            DeltaNetParams {
                end: TOKENS,
                key_heads: 2,
                value_heads: 4,
                key_features: 10,
                value_features: 20,
                least: 0.5,
                most: 1.0,
                ..Default::default()
            },
            &[6],
        ),
        delta_net(
            "delta net",
            DeltaNetParams {
                end: 5,
                key_heads: 1,
                value_heads: 1,
                key_features: 6,
                value_features: 70,
                least: 0.0,
                most: f32::MAX,
                ..Default::default()
            },
            &[],
        ),
    ]);
    all
}

/// A convolution, and the tail that it leaves.
fn convolution(params: ConvolutionParams) -> [Case; 2] {
    let [channels, width, row, rows, before] = [
        params.channels,
        params.width,
        params.row,
        params.rows,
        params.before,
    ]
    .map(|size| size as usize);
    let x = values(21, (row + rows) * channels);
    let tail = values(33, 3 * channels);
    let numbers = values(22, channels * (width + 1));
    // What came in, from the first token of the tail on.
    let seen = [&tail[..before * channels], &x[row * channels..]].concat();
    let kept = (before + rows).min(width - 1);
    let first = vec![0.5; row * channels];
    let mut expected: Vec<f64> = first.iter().map(|&y| f64::from(y)).collect();
    for token in before..before + rows {
        for channel in 0..channels {
            let back = (0..width.min(token + 1)).map(|back| {
                let weight = numbers[channel * width + width - 1 - back];
                f64::from(weight) * f64::from(seen[(token - back) * channels + channel])
            });
            let bias = f64::from(numbers[channels * width + channel]);
            let bias = if params.biased == 1 { bias } else { 0.0 };
            expected.push(back.sum::<f64>() + bias);
        }
    }
    let room = [first, vec![f32::NAN; rows * channels]].concat();
    let last = &seen[seen.len() - kept * channels..];
    let groups = channels.div_ceil(64);
    [
        Case::new("convolution", "convolution")
            .with(1, &x)
            .with(2, &numbers)
            .with(4, &tail)
            .changes(3, &room, expected)
            .run(&params, (groups, rows)),
        Case::new("tail", "tail of a convolution")
            .with(1, &x)
            .with(4, &tail)
            .writes(3, last.iter().map(|&x| f64::from(x)).collect())
            .run(&params, (groups, kept)),
    ]
}

/// The first token of each part, and the one behind its last.
fn parts(tokens: u32, cuts: &[u32]) -> Vec<[u32; 2]> {
    let bounds: Vec<u32> = [&[0], cuts, &[tokens]].concat();
    bounds.windows(2).map(|part| [part[0], part[1]]).collect()
}

fn softplus(x: f64) -> f64 {
    x.exp().ln_1p()
}

/// Decays are negative.
fn decays(count: usize) -> Vec<f32> {
    values(26, count).iter().map(|x| -0.1 - x.abs()).collect()
}

fn state_space(what: &str, params: StateSpaceParams, cuts: &[u32]) -> Case {
    let [tokens, heads, features, groups, states, of_head] = [
        params.end,
        params.heads,
        params.features,
        params.groups,
        params.states,
        params.decays,
    ]
    .map(|size| size as usize);
    let channels = heads * features;
    let both = groups * states;
    let stride = channels + heads + 2 * both;
    let inputs = values(27, tokens * stride);
    let (decays, others) = (decays(heads * of_head), values(28, 2 * heads));
    let [bias, skip] = [&others[..heads], &others[heads..]];
    let mut state = vec![0.0; channels * states];
    let mut expected = Vec::new();
    for token in inputs.chunks_exact(stride) {
        for channel in 0..channels {
            let head = channel / features;
            let group = head / (heads / groups);
            let x = f64::from(token[channel]);
            let step = f64::from(token[channels + head]) + f64::from(bias[head]);
            let dt = softplus(step).clamp(params.least.into(), params.most.into());
            let mut sum = f64::from(skip[head]) * x;
            for n in 0..states {
                let decay = decays[head * of_head + if of_head > 1 { n } else { 0 }];
                let at = channels + heads + group * states + n;
                let (b, c) = (f64::from(token[at]), f64::from(token[at + both]));
                let h = &mut state[channel * states + n];
                *h = *h * (f64::from(decay) * dt).exp() + dt * b * x;
                sum += c * *h;
            }
            expected.push(sum);
        }
    }
    let kept = vec![f32::NAN; channels * states.next_multiple_of(4)];
    let mut case = Case::new("state_space", what)
        .with(1, &inputs)
        .with(2, &[&decays[..], &others].concat())
        .with(4, &kept)
        .writes(3, expected);
    for [first, end] in parts(params.end, cuts) {
        let part = StateSpaceParams {
            first,
            end,
            resumes: u32::from(first > 0),
            goes_on: u32::from(end < params.end),
            ..params
        };
        case = case.run(&part, (channels.div_ceil(64), 1));
    }
    case
}

fn delta_net(what: &str, params: DeltaNetParams, cuts: &[u32]) -> Case {
    let [tokens, key_heads, value_heads, key_features, value_features] = [
        params.end,
        params.key_heads,
        params.value_heads,
        params.key_features,
        params.value_features,
    ]
    .map(|size| size as usize);
    let (keys, columns) = (key_heads * key_features, value_heads * value_features);
    let stride = 2 * keys + columns + 2 * value_heads;
    let inputs = values(29, tokens * stride);
    let (decays, bias) = (decays(value_heads), values(30, value_heads));
    let mut state = vec![0.0; columns * key_features];
    let mut expected = Vec::new();
    for token in inputs.chunks_exact(stride) {
        for column in 0..columns {
            let head = column / value_features;
            let key_head = head / (value_heads / key_heads);
            let unit = |first: usize| -> Vec<f64> {
                let vector = token[first..first + key_features].iter();
                let vector: Vec<f64> = vector.map(|&x| f64::from(x)).collect();
                let length = (vector.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
                vector.iter().map(|x| x / length).collect()
            };
            let (q, k) = (
                unit(key_head * key_features),
                unit(keys + key_head * key_features),
            );
            let steps = 2 * keys + columns;
            let step = f64::from(token[steps + head]) + f64::from(bias[head]);
            let dt = softplus(step).clamp(params.least.into(), params.most.into());
            let faded = (f64::from(decays[head]) * dt).exp();
            let write = 1.0 / (1.0 + (-f64::from(token[steps + value_heads + head])).exp());
            let own = &mut state[column * key_features..(column + 1) * key_features];
            own.iter_mut().for_each(|s| *s *= faded);
            let remembered: f64 = own.iter().zip(&k).map(|(s, k)| s * k).sum();
            let news = write * (f64::from(token[2 * keys + column]) - remembered);
            own.iter_mut().zip(&k).for_each(|(s, k)| *s += k * news);
            let sum: f64 = own.iter().zip(&q).map(|(s, q)| s * q).sum();
            expected.push(sum / (key_features as f64).sqrt());
        }
    }
    let kept = vec![f32::NAN; columns * key_features.next_multiple_of(4)];
    let mut case = Case::new("delta_net", what)
        .with(1, &inputs)
        .with(2, &[&decays[..], &bias].concat())
        .with(4, &kept)
        .writes(3, expected);
    for [first, end] in parts(params.end, cuts) {
        let part = DeltaNetParams {
            first,
            end,
            resumes: u32::from(first > 0),
            goes_on: u32::from(end < params.end),
            ..params
        };
        case = case.run(&part, (columns.div_ceil(64), 1));
    }
    case
}
