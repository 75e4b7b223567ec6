//! Heads and causal attention on the CPU.

use half::bf16;
use rayon::prelude::*;

use super::activations::Activations;
use super::weights::{CpuMatrix, CpuNorm};
use super::{exp, in_place};
use crate::forward::batch::Span;
use crate::forward::engine::RopeTables;
use crate::forward::error::Error;
use crate::model::{
    Alibi, HeadCounts, HeadNorms, LatentWidths, Pairing, Parts, Projections, QueryTemperature,
    Reach, SelfAttention,
};
use crate::products::{Packed, With};
use crate::simd::widest;

/// Bytes that the attention scores of a chunk of queries may take.
pub(super) const SCORES_BYTES: usize = 32 << 20;

/// Queries of a chunk, at most.
pub(super) const QUERIES: usize = 128;

/// Of each token, cosines and sines of its pairs: `[tokens, pairs]` each.
pub(super) struct RopeTable {
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl RopeTable {
    pub(super) fn new(rotations: &[[f32; 2]]) -> Self {
        let (cosines, sines) = rotations
            .iter()
            .map(|&[cosine, sine]| (cosine, sine))
            .unzip();
        Self { cosines, sines }
    }
}

impl RopeTables<RopeTable> {
    /// Rotates the first features of every head by the position of its token.
    fn apply_rope(&self, x: &mut Activations, head: usize, spans: &[Span]) -> Result<(), Error> {
        let features = x.features();
        let pairs = self.pairs;
        for span in spans {
            let rotations = self.of(span.window, head)?;
            let rows = x.rows_mut(*span).par_chunks_mut(features.max(1));
            rows.enumerate().for_each(|(row, values)| {
                let position = span.position + row;
                let table = position * pairs..(position + 1) * pairs;
                let angles = (&rotations.cosines[table.clone()], &rotations.sines[table]);
                widest(
                    #[inline(always)]
                    || {
                        for head in values.chunks_exact_mut(head) {
                            rotate_head(self.pairing, &mut head[..2 * pairs], angles);
                        }
                    },
                );
            });
        }
        Ok(())
    }
}

#[inline(always)]
fn rotate_head(pairing: Pairing, head: &mut [f32], (cosines, sines): (&[f32], &[f32])) {
    let angles = cosines.iter().zip(sines);
    let rotate = |a: &mut f32, b: &mut f32, (cosine, sine): (&f32, &f32)| {
        (*a, *b) = (*a * cosine - *b * sine, *a * sine + *b * cosine);
    };
    match pairing {
        Pairing::Halves => {
            let (first, second) = head.split_at_mut(cosines.len());
            let pairs = first.iter_mut().zip(second);
            pairs
                .zip(angles)
                .for_each(|((a, b), angle)| rotate(a, b, angle));
        }
        Pairing::Interleaved => {
            let (pairs, _) = head.as_chunks_mut::<2>();
            let pairs = pairs.iter_mut().zip(angles);
            pairs.for_each(|([a, b], angle)| rotate(a, b, angle));
        }
    }
}

/// Queries, keys and values, each `[tokens, heads * features of a head]`.
pub(crate) struct CpuHeads {
    counts: HeadCounts,
    queries: Activations,
    keys: Activations,
    values: Activations,
}

impl CpuHeads {
    /// The heads of a hidden state.
    pub(super) fn of(
        counts: HeadCounts,
        projections: &Projections<impl Parts<Linear = CpuMatrix>>,
        x: &Activations,
    ) -> Result<Self, Error> {
        let [queries, keys, values] = match projections {
            Projections::Separate([q, k, v]) => [q.apply(x)?, k.apply(x)?, v.apply(x)?],
            Projections::Interleaved(all) => {
                let all = all.apply(x)?;
                let parts = [0, 1, 2].map(|part| take(&all, counts.features, part, 3));
                let [queries, keys, values] = parts;
                [queries?, keys?, values?]
            }
            Projections::Latent(_) => {
                let reason = "latent projections have parts".to_owned();
                return Err(Error::Engine(reason));
            }
            Projections::Grouped(layers) => {
                let part = |part| -> Result<Activations, Error> {
                    let groups = layers.iter().skip(part).step_by(3);
                    let groups: Vec<_> = groups
                        .map(|layer| layer.apply(x))
                        .collect::<Result<_, _>>()?;
                    Ok(Activations::concat(&groups))
                };
                [part(0)?, part(1)?, part(2)?]
            }
        };
        Ok(Self {
            counts,
            queries,
            keys,
            values,
        })
    }

    /// The heads out of what latent projections made: of each, now first what rotations.
    pub(super) fn of_latents(
        widths: LatentWidths,
        queries: &Activations,
        rope_key: &Activations,
        keys_and_values: &Activations,
    ) -> Result<Self, Error> {
        let LatentWidths {
            heads,
            rope,
            nope,
            value,
        } = widths;
        let features = rope + nope;
        let found = [queries, rope_key, keys_and_values].map(Activations::features);
        if found != [heads * features, rope, heads * (nope + value)] {
            return Err(Error::Engine(format!(
                "latent projections of {found:?} features do not fit {heads} heads"
            )));
        }
        let tokens = queries.tokens();
        let room = |features| Vec::with_capacity(tokens * heads * features);
        let (mut q, mut k, mut v) = (room(features), room(features), room(value));
        let rows = (queries.values().chunks_exact(heads * features))
            .zip(rope_key.values().chunks_exact(rope))
            .zip(
                keys_and_values
                    .values()
                    .chunks_exact(heads * (nope + value)),
            );
        for ((queries, rope_key), keys_and_values) in rows {
            for head in queries.chunks_exact(features) {
                let (head, rope) = head.split_at(nope);
                q.extend_from_slice(rope);
                q.extend_from_slice(head);
            }
            for head in keys_and_values.chunks_exact(nope + value) {
                let (key, value) = head.split_at(nope);
                k.extend_from_slice(rope_key);
                k.extend_from_slice(key);
                v.extend_from_slice(value);
            }
        }
        let counts = HeadCounts {
            queries: heads,
            keys: heads,
            features,
        };
        Ok(Self {
            counts,
            queries: Activations::new(q, heads * features)?,
            keys: Activations::new(k, heads * features)?,
            values: Activations::new(v, heads * value)?,
        })
    }

    /// Brings every feature within `-clip ..= clip`.
    pub(super) fn clip(&mut self, clip: f32) {
        for x in [&mut self.queries, &mut self.keys, &mut self.values] {
            in_place::change(x, |x| x.iter_mut().for_each(|x| *x = clipped(*x, clip)));
        }
    }

    /// Normalises the queries and the keys: a head, or all of them together, is as wide as their norm.
    pub(super) fn normalise(&mut self, norms: &HeadNorms<CpuNorm>) -> Result<(), Error> {
        let [of_queries, of_keys] = &norms.norms;
        of_queries.normalise(&mut self.queries)?;
        of_keys.normalise(&mut self.keys)
    }

    /// Applies rope to queries and keys by their position.
    pub(super) fn apply_rope(
        &mut self,
        table: &RopeTables<RopeTable>,
        spans: &[Span],
    ) -> Result<(), Error> {
        table.apply_rope(&mut self.queries, self.counts.features, spans)?;
        table.apply_rope(&mut self.keys, self.counts.features, spans)
    }

    /// Causal attention, `[tokens, query heads * features of a value]`. `alibi` is for heads that know their place by it.
    pub(super) fn attend(
        mut self,
        attention: &SelfAttention<impl Parts<Vector = Vec<f32>>>,
        alibi: Option<&Alibi>,
        spans: &[Span],
        cache: &mut Vec<KeysAndValues>,
    ) -> Result<Activations, Error> {
        cache.resize_with(spans.len(), KeysAndValues::default);
        let mut found = Activations::default();
        for (span, seen) in spans.iter().zip(cache) {
            if spans.len() == 1 && seen.keys.tokens() == 0 {
                seen.keys = std::mem::take(&mut self.keys);
                seen.values = std::mem::take(&mut self.values);
            } else {
                seen.keys.append(&self.keys, *span);
                seen.values.append(&self.values, *span);
            }
            let of_key = |key| self.attend_by(key, *span, seen, (attention, alibi));
            let of_keys: Vec<_> = (0..self.counts.keys)
                .into_par_iter()
                .map(of_key)
                .collect::<Result<_, _>>()?;
            let of_span = Activations::concat(&of_keys);
            if spans.len() == 1 {
                found = of_span;
            } else {
                let all = Span { row: 0, ..*span };
                found.append(&of_span, all);
            }
            if span.goes_on() {
                seen.forget_until(attention.reach().first_seen(span.position + span.rows));
            } else {
                *seen = KeysAndValues::default();
            }
        }
        Ok(found)
    }

    /// The same for the query heads of one key head; a chunk of queries at a time against the keys up to its end.
    fn attend_by(
        &self,
        key: usize,
        span: Span,
        seen: &KeysAndValues,
        (attention, alibi): (
            &SelfAttention<impl Parts<Vector = Vec<f32>>>,
            Option<&Alibi>,
        ),
    ) -> Result<Activations, Error> {
        let HeadCounts { features, .. } = self.counts;
        let group = self.counts.queries / self.counts.keys;
        let value_features = seen.values.features() / self.counts.keys;
        let (queries, keys) = (self.queries.matrix()?, seen.keys.matrix()?);
        let values = seen.values.matrix()?;
        let chunk = SCORES_BYTES / (4 * self.counts.queries * span.window.max(1));
        let chunk = chunk.clamp(1, QUERIES);
        let mut found = Activations::zeros(span.rows, group * value_features);
        let (mut scores, mut of_chunk) = (Vec::new(), Vec::new());
        for first in (0..span.rows).step_by(chunk) {
            let rows = chunk.min(span.rows - first);
            let position = span.position + first;
            let start = attention.reach().first_seen(position);
            let count = position + rows - start;
            // Among the keys that are kept.
            let kept = start - seen.start..start - seen.start + count;
            let part = |head: usize, features| head * features..(head + 1) * features;
            let of_keys = keys.slice((kept.clone(), part(key, features)));
            let of_keys = Packed::new(of_keys.transposed());
            scores.resize(group * rows * count, 0.0);
            for (head, scores) in (key * group..).zip(scores.chunks_exact_mut(rows * count)) {
                let own = span.row + first..span.row + first + rows;
                let of_head = queries.slice((own, part(head, features)));
                of_keys.multiply_with(of_head, With::default(), scores)?;
            }
            CausalSoftmax {
                scale: attention.scale,
                soft_cap: attention.soft_cap,
                head: key * group,
                rows,
                first: position - start,
                start,
                reach: attention.reach(),
                temperature: attention.temperature,
                sinks: attention.sinks.as_deref(),
                alibi,
            }
            .apply(&mut scores, count);
            let of_values = values.slice((kept, part(key, value_features)));
            Packed::new(of_values).multiply(&scores, &mut of_chunk)?;
            for (head, of_head) in of_chunk.chunks_exact(rows * value_features).enumerate() {
                let of_rows = of_head.chunks_exact(value_features);
                for (row, of_row) in (first..).zip(of_rows) {
                    let place = (row * group + head) * value_features;
                    found.values_mut()[place..place + value_features].copy_from_slice(of_row);
                }
            }
        }
        Ok(found)
    }
}

/// Keys and values of the tokens of one window that later ones see.
#[derive(Debug, Default)]
pub(crate) struct KeysAndValues {
    /// The position of the first.
    start: usize,
    keys: Activations,
    values: Activations,
}

impl KeysAndValues {
    /// Lets go of those of the tokens before this one, which no query sees any more.
    fn forget_until(&mut self, position: usize) {
        let rows = position.saturating_sub(self.start).min(self.keys.tokens());
        self.keys.forget(rows);
        self.values.forget(rows);
        self.start += rows;
    }
}

/// Within `-clip ..= clip`; what is no number stays none. A limit below zero, which only a damaged configuration has, makes no
/// sense, and no panic.
fn clipped(x: f32, clip: f32) -> f32 {
    match x {
        x if x > clip => clip,
        x if x < -clip => -clip,
        x => x,
    }
}

/// Every so many-th part of each row, from one on, each of so many features.
fn take(x: &Activations, features: usize, part: usize, parts: usize) -> Result<Activations, Error> {
    let mut values = Vec::with_capacity(x.values().len() / parts);
    let all = x.values().chunks_exact(features.max(1));
    all.skip(part)
        .step_by(parts)
        .for_each(|part| values.extend_from_slice(part));
    Activations::new(values, x.features() / parts)
}

/// Softmax over the keys a query may see, in place; the others become 0.
///
/// Rows are queries, `rows` of each head one behind the other; query `r` is key number `first + r`, and the first key is
/// token number `start`.
struct CausalSoftmax<'a> {
    scale: f32,
    soft_cap: Option<f32>,
    /// The number of the first head.
    head: usize,
    rows: usize,
    first: usize,
    start: usize,
    reach: Reach,
    temperature: Option<QueryTemperature>,
    /// Of each head, the score of a key without a value.
    sinks: Option<&'a [f32]>,
    alibi: Option<&'a Alibi>,
}

impl CausalSoftmax<'_> {
    /// Scales the scores of one query of a head, the last of which is with token `query`, and adds their biases.
    fn add_biases(&self, alibi: &Alibi, head: usize, query: usize, scores: &mut [f32]) {
        let slope = alibi.slopes[head];
        let first = query + 1 - scores.len();
        let rounded = |x: f32| bf16::from_f32(x).to_f32();
        let far = |token: usize| rounded(rounded(slope) * rounded(token as f32));
        for (key, score) in (first..).zip(scores) {
            let bias = if alibi.in_bf16 {
                far(key) - far(query)
            } else {
                -slope * (query - key) as f32
            };
            *score = *score * self.scale + bias * alibi.factor;
        }
    }

    /// Over the scores of queries, each with so many keys.
    fn apply(&self, scores: &mut [f32], keys: usize) {
        let rows = scores.par_chunks_mut(keys.max(1));
        rows.enumerate().for_each(|(row, scores)| {
            let end = self.first + row % self.rows + 1;
            let query = self.start + end - 1;
            let start = self.reach.first_seen(query) - self.start;
            let factor = self.temperature.map_or(1.0, |of| of.factor(query));
            let scale = self.scale * factor;
            scores[..start].fill(0.0);
            scores[end..].fill(0.0);
            let seen = &mut scores[start..end];
            let (largest, sum) = match (self.alibi, self.soft_cap) {
                (Some(alibi), _) => {
                    self.add_biases(alibi, self.head + row / self.rows, query, seen);
                    exp::softmax(seen, 1.0)
                }
                (None, Some(cap)) => {
                    exp::soft_cap(seen, scale, cap);
                    exp::softmax(seen, 1.0)
                }
                (None, None) => exp::softmax(seen, scale),
            };
            if let Some(sinks) = self.sinks {
                // Its weight goes nowhere.
                let sink = f64::from(sinks[self.head + row / self.rows] - largest).exp();
                let sum = f64::from(sum);
                let rest = (sum / (sum + sink)) as f32;
                seen.iter_mut().for_each(|weight| *weight *= rest);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_clipped_whatever_the_limit_of_a_configuration() {
        assert_eq!(
            [-3.0, -1.0, 2.0, 9.0].map(|x| clipped(x, 2.0)),
            [-2.0, -1.0, 2.0, 2.0]
        );
        assert!(clipped(f32::NAN, 2.0).is_nan());
        assert!(clipped(0.5, -1.0).is_finite());
    }
}
