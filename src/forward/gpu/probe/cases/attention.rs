//! Attention: plain, and with each thing that changes what a query sees or how it weighs it.

use half::bf16;

use super::super::case::{Case, values};
use crate::forward::kernels::AttentionParams;

/// Queries, or keys, of a tile.
const TILE: usize = 16;

/// More than four tiles, and no multiple of one.
const TOKENS: usize = 67;

/// Keys and values beside their queries, without windows, caps, sinks and biases.
fn plain() -> AttentionParams {
    AttentionParams {
        tokens: TOKENS as u32,
        head_dim: 20,
        value_dim: 20,
        query_heads: 2,
        group_size: 1,
        token_stride: 120,
        query_stride: 20,
        key_stride: 20,
        value_stride: 20,
        first_query: 0,
        first_key: 40,
        first_value: 80,
        window: u32::MAX,
        chunk: u32::MAX,
        temperature: 0.0,
        temperature_period: 1,
        scale: 1.0,
        soft_cap: 0.0,
        has_sinks: 0,
        alibi: 0,
        alibi_factor: 0.0,
        first_group_x: 0,
        first_group_y: 0,
    }
}

pub(super) fn cases() -> Vec<Case> {
    let grouped = AttentionParams {
        head_dim: 40,
        value_dim: 33,
        query_heads: 4,
        group_size: 2,
        token_stride: 4 * 40 + 2 * 40 + 2 * 33,
        query_stride: 40,
        key_stride: 40,
        value_stride: 33,
        first_key: 160,
        first_value: 240,
        scale: 0.25,
        ..plain()
    };
    // Each head's query, key and value side by side, behind two numbers of something else.
    let interleaved = AttentionParams {
        tokens: 30,
        token_stride: 122,
        query_stride: 60,
        key_stride: 60,
        value_stride: 60,
        first_query: 2,
        first_key: 22,
        first_value: 42,
        ..plain()
    };
    [
        ("attention", plain(), false),
        ("grouped attention, part by part", grouped, true),
        ("attention of heads side by side", interleaved, false),
        (
            "attention with a window",
            AttentionParams {
                window: 9,
                ..plain()
            },
            false,
        ),
        (
            "attention in chunks",
            AttentionParams {
                chunk: 24,
                ..plain()
            },
            false,
        ),
        (
            "attention with a temperature",
            AttentionParams {
                temperature: 0.5,
                temperature_period: 7,
                ..plain()
            },
            false,
        ),
        (
            "attention with a soft cap",
            AttentionParams {
                soft_cap: 0.75,
                ..plain()
            },
            false,
        ),
        (
            "attention with sinks",
            AttentionParams {
                has_sinks: 1,
                ..plain()
            },
            false,
        ),
        (
            "attention with ALiBi",
            AttentionParams {
                alibi: 1,
                alibi_factor: 1.0,
                ..plain()
            },
            false,
        ),
        (
            "attention with ALiBi in bf16",
            AttentionParams {
                alibi: 2,
                alibi_factor: 0.5,
                ..plain()
            },
            false,
        ),
    ]
    .map(|(what, params, in_parts)| case(what, params, in_parts))
    .into()
}

fn case(what: &str, params: AttentionParams, in_parts: bool) -> Case {
    let (tokens, queries) = (params.tokens as usize, params.query_heads as usize);
    let heads = values(12, tokens * params.token_stride as usize);
    let (sinks, slopes) = (values(25, queries), [0.3_f32, 0.07, 0.5, 0.01]);
    let mut expected = Vec::new();
    for query in 0..tokens {
        for head in 0..queries {
            expected.extend(found(&params, &heads, (query, head), [&sinks, &slopes]));
        }
    }
    let mut case = Case::new("attention", what)
        .with(1, &heads)
        .with(3, &sinks)
        .with(4, &slopes)
        .writes(2, expected);
    let groups = (tokens.div_ceil(TILE), queries);
    if !in_parts {
        return case.run(&params, groups);
    }
    for y in 0..groups.1 {
        // The first workgroups of a head, then the others.
        for (first, count) in [(0, 2), (2, groups.0 - 2)] {
            let part = AttentionParams {
                first_group_x: first as u32,
                first_group_y: y as u32,
                ..params
            };
            case = case.run(&part, (count, 1));
        }
    }
    case
}

/// What the query of a token finds in one head.
fn found(
    params: &AttentionParams,
    heads: &[f32],
    (query, head): (usize, usize),
    [sinks, slopes]: [&[f32]; 2],
) -> Vec<f64> {
    let key_head = head / params.group_size as usize;
    let lies = |token: usize, first: u32, stride: u32, head: usize, features: u32| {
        let at = token * params.token_stride as usize + first as usize + head * stride as usize;
        &heads[at..at + features as usize]
    };
    let of_query = lies(
        query,
        params.first_query,
        params.query_stride,
        head,
        params.head_dim,
    );
    let period = (query as u32 + 1) / params.temperature_period;
    let warmth = 1.0 + f64::from(params.temperature) * f64::from(1 + period).ln();
    let score = |key: usize| -> f64 {
        let of_key = lies(
            key,
            params.first_key,
            params.key_stride,
            key_head,
            params.head_dim,
        );
        let products = of_query.iter().zip(of_key);
        let dot: f64 = products.map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
        let score = dot * f64::from(params.scale) * warmth;
        let cap = f64::from(params.soft_cap);
        let capped = if cap > 0.0 {
            cap * (score / cap).tanh()
        } else {
            score
        };
        capped + bias(params.alibi, slopes[head], query, key) * f64::from(params.alibi_factor)
    };
    let sees = |key: &usize| {
        let is_near = query - key < params.window as usize;
        is_near && key / params.chunk as usize == query / params.chunk as usize
    };
    let seen: Vec<usize> = (0..=query).filter(sees).collect();
    let assignments: Vec<f64> = seen.iter().map(|&key| score(key).exp()).collect();
    let sink = if params.has_sinks == 1 {
        f64::from(sinks[head]).exp()
    } else {
        0.0
    };
    let total = sink + assignments.iter().sum::<f64>();
    let mut sums = vec![0.0; params.value_dim as usize];
    for (&key, assignment) in seen.iter().zip(&assignments) {
        let value = lies(
            key,
            params.first_value,
            params.value_stride,
            key_head,
            params.value_dim,
        );
        for (sum, &value) in sums.iter_mut().zip(value) {
            *sum += assignment / total * f64::from(value);
        }
    }
    sums
}

/// What ALiBi adds to a score.
fn bias(alibi: u32, slope: f32, query: usize, key: usize) -> f64 {
    let in_bf16 = |x: f64| bf16::from_f64(x).to_f64();
    match alibi {
        0 => 0.0,
        1 => -f64::from(slope) * (query - key) as f64,
        _ => {
            let slope = in_bf16(f64::from(slope));
            let of = |position: usize| in_bf16(slope * in_bf16(position as f64));
            of(key) - of(query)
        }
    }
}
