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
        rows: TOKENS as u32,
        row: 0,
        position: 0,
        key_row: 0,
        capacity: u32::MAX,
        head_dim: 20,
        value_dim: 20,
        query_heads: 2,
        group_size: 1,
        token_stride: 120,
        key_token_stride: 120,
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
        key_token_stride: 4 * 40 + 2 * 40 + 2 * 33,
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
        rows: 30,
        token_stride: 122,
        key_token_stride: 122,
        query_stride: 60,
        key_stride: 60,
        value_stride: 60,
        first_query: 2,
        first_key: 22,
        first_value: 42,
        ..plain()
    };
    // Queries further on in a window, whose keys and values lie by themselves.
    let later = AttentionParams {
        rows: 30,
        row: 5,
        position: 24,
        key_row: 3,
        key_token_stride: 85,
        first_key: 1,
        first_value: 41,
        ..plain()
    };
    [
        ("attention", plain(), false),
        ("attention of a later chunk", later, false),
        (
            "attention in a ring",
            AttentionParams {
                window: 9,
                capacity: 41,
                ..later
            },
            false,
        ),
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
    let (row, rows, heads) = (
        params.row as usize,
        params.rows as usize,
        params.query_heads as usize,
    );
    let queries = values(12, (row + rows) * params.token_stride as usize);
    let keys = (params.position + params.rows).min(params.capacity) + params.key_row;
    let keys_and_values = values(32, (keys * params.key_token_stride) as usize);
    let (sinks, slopes) = (values(25, heads), [0.3_f32, 0.07, 0.5, 0.01]);
    let of_heads = if params.has_sinks == 1 {
        &sinks
    } else {
        &slopes[..heads]
    };
    let first = vec![0.5_f32; row * heads * params.value_dim as usize];
    let mut expected: Vec<f64> = first.iter().map(|&x| f64::from(x)).collect();
    for query in 0..rows {
        for head in 0..heads {
            let place = (query, head);
            expected.extend(found(&params, &queries, &keys_and_values, place, of_heads));
        }
    }
    let room = [
        first,
        vec![f32::NAN; rows * heads * params.value_dim as usize],
    ]
    .concat();
    let mut case = Case::new("attention", what)
        .with(1, &queries)
        .with(3, of_heads)
        .with(4, &keys_and_values)
        .changes(2, &room, expected);
    let groups = (rows.div_ceil(TILE), heads);
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

/// What the query of a row finds in one head.
fn found(
    params: &AttentionParams,
    queries: &[f32],
    keys_and_values: &[f32],
    (row, head): (usize, usize),
    of_heads: &[f32],
) -> Vec<f64> {
    let key_head = head / params.group_size as usize;
    let query = params.position as usize + row;
    let at = (params.row as usize + row) * params.token_stride as usize
        + params.first_query as usize
        + head * params.query_stride as usize;
    let of_query = &queries[at..at + params.head_dim as usize];
    let lies = |position: usize, first: u32, stride: u32, features: u32| {
        let row = params.key_row as usize + position % params.capacity as usize;
        let at =
            row * params.key_token_stride as usize + first as usize + key_head * stride as usize;
        &keys_and_values[at..at + features as usize]
    };
    let period = (query as u32 + 1) / params.temperature_period;
    let warmth = 1.0 + f64::from(params.temperature) * f64::from(1 + period).ln();
    let score = |key: usize| -> f64 {
        let of_key = lies(key, params.first_key, params.key_stride, params.head_dim);
        let products = of_query.iter().zip(of_key);
        let dot: f64 = products.map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
        let score = dot * f64::from(params.scale) * warmth;
        let cap = f64::from(params.soft_cap);
        let capped = if cap > 0.0 {
            cap * (score / cap).tanh()
        } else {
            score
        };
        capped + bias(params.alibi, of_heads[head], query, key) * f64::from(params.alibi_factor)
    };
    let sees = |key: &usize| {
        let is_near = query - key < params.window as usize;
        is_near && key / params.chunk as usize == query / params.chunk as usize
    };
    let seen: Vec<usize> = (0..=query).filter(sees).collect();
    let weights: Vec<f64> = seen.iter().map(|&key| score(key).exp()).collect();
    let sink = if params.has_sinks == 1 {
        f64::from(of_heads[head]).exp()
    } else {
        0.0
    };
    let total = sink + weights.iter().sum::<f64>();
    let mut sums = vec![0.0; params.value_dim as usize];
    for (&key, weight) in seen.iter().zip(&weights) {
        let value = lies(
            key,
            params.first_value,
            params.value_stride,
            params.value_dim,
        );
        for (sum, &value) in sums.iter_mut().zip(value) {
            *sum += weight / total * f64::from(value);
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
