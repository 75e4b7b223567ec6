//! Heads and causal attention on the adapter.

use wgpu::BufferUsages as Usage;

use super::buffers::GpuTensor;
use super::layers::{self, elementwise, product};
use super::recorder::Recorder;
use super::weights::{GpuMatrix, GpuNorm};
use crate::device::adapter::context::Context;
use crate::device::product::Destination;
use crate::device::recorder::{Groups, Recording};
use crate::device::storage::{buffer, filled};
use crate::forward::batch::Span;
use crate::forward::engine::RopeTables;
use crate::forward::error::Error;
use crate::forward::kernels::{AttentionParams, CopyHeadsParams, HeadsParams};
use crate::model::{
    Alibi, HeadCounts, HeadNorms, LatentWidths, NormedWidth, Pairing, Parts, Projections,
    SelfAttention,
};

/// The longest head `attention.wgsl` has room for.
pub(super) const MAX_HEAD_FEATURES: usize = 256;

/// Cosines and sines of rope, `[tokens, pairs, 2]`.
pub(super) type RopeBuffers = RopeTables<wgpu::Buffer>;

/// The slopes of a model's heads.
pub(super) struct AlibiBuffer {
    slopes: wgpu::Buffer,
    /// `ALIBI_` in `attention.wgsl`.
    kind: u32,
    factor: f32,
}

impl AlibiBuffer {
    pub(super) fn new(context: &Context, alibi: &Alibi) -> Self {
        Self {
            slopes: filled(context, "slopes", &alibi.slopes),
            kind: if alibi.in_bf16 { 2 } else { 1 },
            factor: alibi.factor,
        }
    }
}

/// Queries, keys and values, side by side in each token's row.
pub(crate) struct GpuHeads {
    counts: HeadCounts,
    all: GpuTensor,
    /// Features from one head to the next.
    stride: usize,
    /// Where the first key and the first value of a token lie; the first query is the first of all.
    first_key: usize,
    first_value: usize,
    /// Features of a value, and from one value to the next.
    value_features: usize,
    value_stride: usize,
}

impl GpuHeads {
    /// The heads of a hidden state.
    pub(super) fn of(
        recorder: &Recorder<'_>,
        recording: &mut Recording,
        counts: HeadCounts,
        projections: &Projections<impl Parts<Linear = GpuMatrix>>,
        x: &GpuTensor,
    ) -> Self {
        let features = counts.features;
        let of_token = (counts.queries + 2 * counts.keys) * features;
        let all = recorder.activations(x.tokens, of_token);
        let keys = counts.queries * features;
        let values = keys + counts.keys * features;
        // Where the next query, key and value go.
        let mut next = [0, keys, values];
        for (index, projection) in projections.layers().iter().enumerate() {
            let first = &mut next[index % 3];
            let part = Destination {
                first: *first,
                ..layers::all(&all)
            };
            product(recorder, recording, projection, x, part);
            *first += projection.out_features;
        }
        let (stride, first_key, first_value) = match projections {
            Projections::Separate(_) | Projections::Grouped(_) => (features, keys, values),
            Projections::Interleaved(_) | Projections::Latent(_) => {
                (3 * features, features, 2 * features)
            }
        };
        Self {
            counts,
            all,
            stride,
            first_key,
            first_value,
            value_features: features,
            value_stride: stride,
        }
    }

    /// The heads out of what latent projections made: of each, now first what rotations.
    pub(super) fn of_latents(
        recorder: &Recorder<'_>,
        recording: &mut Recording,
        widths: LatentWidths,
        [queries, rope_key, keys_and_values]: [&GpuTensor; 3],
    ) -> Self {
        let LatentWidths {
            heads,
            rope,
            nope,
            value,
        } = widths;
        let features = rope + nope;
        let (first_key, first_value) = (heads * features, 2 * heads * features);
        let all = recorder.activations(queries.tokens, first_value + heads * value);
        // From where, how far apart heads are there, how many features, to where, how far apart heads are here.
        for (from, from_first, from_stride, count, to_first, to_stride) in [
            (queries, nope, features, rope, 0, features),
            (queries, 0, features, nope, rope, features),
            (rope_key, 0, 0, rope, first_key, features),
            (
                keys_and_values,
                0,
                nope + value,
                nope,
                first_key + rope,
                features,
            ),
            (
                keys_and_values,
                nope,
                nope + value,
                value,
                first_value,
                value,
            ),
        ] {
            let params = CopyHeadsParams {
                features: count as u32,
                from_first: from_first as u32,
                from_token_stride: from.features as u32,
                from_head_stride: from_stride as u32,
                to_first: to_first as u32,
                to_token_stride: all.features as u32,
                to_head_stride: to_stride as u32,
            };
            let buffers = [(1, &from.buffer), (2, &all.buffer)];
            let groups = (heads, all.tokens);
            let steps = count.div_ceil(64);
            recorder.dispatch(recording, "copy_heads", &params, &buffers, groups, steps);
        }
        Self {
            counts: HeadCounts {
                queries: heads,
                keys: heads,
                features,
            },
            all,
            stride: features,
            first_key,
            first_value,
            value_features: value,
            value_stride: value,
        }
    }

    /// Brings every feature within `-clip ..= clip`.
    pub(super) fn clip(&self, recorder: &Recorder<'_>, recording: &mut Recording, clip: f32) {
        let shape = [self.all.tokens, self.all.features];
        let all = (&self.all.buffer, shape);
        elementwise(recorder, recording, "clip_all", [1.0, clip], None, all);
    }

    /// Normalises the queries and the keys. All of them together lie side by side where each has a layer of its own.
    pub(super) fn normalise(
        &self,
        recorder: &Recorder<'_>,
        recording: &mut Recording,
        norms: &HeadNorms<GpuNorm>,
    ) {
        for ((first, count), norm) in self.queries_and_keys().into_iter().zip(&norms.norms) {
            let params = HeadsParams {
                first: first as u32,
                token_stride: self.all.features as u32,
                head_stride: self.stride as u32,
                ..norm.heads_params()
            };
            let bias = norm.bias().unwrap_or(&recorder.nothing);
            let buffers = [(2, &norm.weight), (3, bias), (4, &self.all.buffer)];
            let count = match norms.width {
                NormedWidth::Head => count,
                NormedWidth::AllHeads => 1,
            };
            let groups = (count, self.all.tokens);
            let steps = 3 * norm.features.div_ceil(64);
            recorder.dispatch(
                recording,
                "normalise_heads",
                &params,
                &buffers,
                groups,
                steps,
            );
        }
    }

    /// Applies rope to queries and keys by their position.
    pub(super) fn apply_rope(
        &self,
        recorder: &Recorder<'_>,
        recording: &mut Recording,
        by: &RopeBuffers,
        spans: &[Span],
    ) -> Result<(), Error> {
        for span in spans.iter().filter(|span| span.rows > 0) {
            let rotations = by.of(span.window, self.counts.features)?;
            for (first, count) in self.queries_and_keys() {
                let params = HeadsParams {
                    pairs: by.pairs as u32,
                    interleaved: u32::from(by.pairing == Pairing::Interleaved),
                    position: span.position as u32,
                    ..self.params(first + span.row * self.all.features)
                };
                let buffers = [(1, rotations), (4, &self.all.buffer)];
                let groups = (count, span.rows);
                let steps = by.pairs.div_ceil(64);
                recorder.dispatch(recording, "apply_rope", &params, &buffers, groups, steps);
            }
        }
        Ok(())
    }

    /// The attention output, `[tokens, query heads * features of a value]`. The cache has the keys and values of the tokens before
    /// these in their windows, and gets those of these where a window goes on.
    pub(super) fn attend(
        &self,
        recorder: &Recorder<'_>,
        recording: &mut Recording,
        attention: &SelfAttention<impl Parts<Vector = wgpu::Buffer>>,
        alibi: Option<&AlibiBuffer>,
        (spans, caches): (&[Span], &mut Vec<Option<SpanCache>>),
    ) -> Result<GpuTensor, Error> {
        let HeadCounts {
            queries,
            keys,
            features,
        } = self.counts;
        let of_heads = match (&attention.sinks, alibi) {
            (Some(_), Some(_)) => {
                let reason = "the kernel of attention has either sinks or ALiBi".to_owned();
                return Err(Error::Engine(reason));
            }
            (Some(sinks), None) => sinks,
            (None, Some(alibi)) => &alibi.slopes,
            (None, None) => &recorder.nothing,
        };
        let found = recorder.activations(self.all.tokens, queries * self.value_features);
        caches.resize_with(spans.len(), || None);
        for (span, cache) in spans.iter().zip(caches).filter(|(span, _)| span.rows > 0) {
            if cache.is_none() && span.goes_on() {
                *cache = Some(SpanCache::new(recorder.context, self, attention, *span));
            }
            if let Some(cache) = cache {
                cache.append(recorder, recording, self, *span);
            }
            // Keys beside their queries, or those of the cache.
            let in_place = AttentionParams {
                key_row: span.row as u32,
                capacity: u32::MAX,
                key_token_stride: self.all.features as u32,
                key_stride: self.stride as u32,
                value_stride: self.value_stride as u32,
                first_key: self.first_key as u32,
                first_value: self.first_value as u32,
                ..Default::default()
            };
            let (keys_and_values, lie) = match cache {
                Some(cache) => (&cache.buffer, cache.params(self)),
                None => (&self.all.buffer, in_place),
            };
            let params = |part: Groups| AttentionParams {
                rows: span.rows as u32,
                row: span.row as u32,
                position: span.position as u32,
                head_dim: features as u32,
                value_dim: self.value_features as u32,
                query_heads: queries as u32,
                group_size: (queries / keys) as u32,
                token_stride: self.all.features as u32,
                query_stride: self.stride as u32,
                first_query: 0,
                window: attention.window.map_or(u32::MAX, |window| window as u32),
                chunk: attention.chunk.map_or(u32::MAX, |chunk| chunk as u32),
                temperature: attention.temperature.map_or(0.0, |of| of.strength),
                temperature_period: attention.temperature.map_or(1, |of| of.period as u32),
                scale: attention.scale,
                soft_cap: attention.soft_cap.unwrap_or(0.0),
                has_sinks: u32::from(attention.sinks.is_some()),
                alibi: alibi.map_or(0, |alibi| alibi.kind),
                alibi_factor: alibi.map_or(0.0, |alibi| alibi.factor),
                first_group_x: part.first[0] as u32,
                first_group_y: part.first[1] as u32,
                ..lie
            };
            let buffers = [
                (1, &self.all.buffer),
                (2, &found.buffer),
                (3, of_heads),
                (4, keys_and_values),
            ];
            let groups = [span.rows.div_ceil(16), queries];
            // Of 16 queries, every key and every value.
            let seen = (span.position + span.rows) as u64;
            let work = 16 * seen * (features + self.value_features) as u64;
            recorder.dispatch_in_parts(recording, "attention", params, &buffers, groups, work);
            if !span.goes_on() {
                *cache = None;
            }
        }
        Ok(found)
    }

    /// Where the first of each lies, and how many there are.
    fn queries_and_keys(&self) -> [(usize, usize); 2] {
        [(0, self.counts.queries), (self.first_key, self.counts.keys)]
    }

    fn params(&self, first: usize) -> HeadsParams {
        HeadsParams {
            head_dim: self.counts.features as u32,
            first: first as u32,
            token_stride: self.all.features as u32,
            head_stride: self.stride as u32,
            ..Default::default()
        }
    }
}

/// Keys and values of the tokens of one window that later ones see: a ring where queries see a window alone.
pub(crate) struct SpanCache {
    /// `[capacity, keys and values]`.
    buffer: wgpu::Buffer,
    /// Tokens that there is room for.
    capacity: usize,
}

impl SpanCache {
    /// Room for what the queries of a window see at any time that goes through in chunks like this first one.
    fn new(
        context: &Context,
        heads: &GpuHeads,
        attention: &SelfAttention<impl Parts<Vector = wgpu::Buffer>>,
        chunk: Span,
    ) -> Self {
        let seen = attention.window.unwrap_or(chunk.window);
        let capacity = chunk.window.min(seen.saturating_add(chunk.rows));
        let bytes = 4 * capacity as u64 * Self::features(heads) as u64;
        Self {
            buffer: buffer(context, "cache", bytes, Usage::STORAGE),
            capacity,
        }
    }

    /// Numbers that are kept of a token.
    fn features(heads: &GpuHeads) -> usize {
        heads.counts.keys * (heads.counts.features + heads.value_features)
    }

    /// Takes the keys and values of a span.
    fn append(
        &self,
        recorder: &Recorder<'_>,
        recording: &mut Recording,
        heads: &GpuHeads,
        span: Span,
    ) {
        let HeadCounts { keys, features, .. } = heads.counts;
        let parts = [
            (heads.first_key, heads.stride, features, 0),
            (
                heads.first_value,
                heads.value_stride,
                heads.value_features,
                keys * features,
            ),
        ];
        let mut done = 0;
        while done < span.rows {
            // Up to the end of the ring.
            let slot = (span.position + done) % self.capacity;
            let rows = (self.capacity - slot).min(span.rows - done);
            for (first, stride, features, to) in parts {
                let params = CopyHeadsParams {
                    features: features as u32,
                    from_first: ((span.row + done) * heads.all.features + first) as u32,
                    from_token_stride: heads.all.features as u32,
                    from_head_stride: stride as u32,
                    to_first: (slot * Self::features(heads) + to) as u32,
                    to_token_stride: Self::features(heads) as u32,
                    to_head_stride: features as u32,
                };
                let buffers = [(1, &heads.all.buffer), (2, &self.buffer)];
                let steps = features.div_ceil(64);
                recorder.dispatch(
                    recording,
                    "copy_heads",
                    &params,
                    &buffers,
                    (keys, rows),
                    steps,
                );
            }
            done += rows;
        }
    }

    /// Where the keys and values lie in it.
    fn params(&self, heads: &GpuHeads) -> AttentionParams {
        let HeadCounts { keys, features, .. } = heads.counts;
        AttentionParams {
            key_row: 0,
            capacity: self.capacity as u32,
            key_token_stride: Self::features(heads) as u32,
            key_stride: features as u32,
            value_stride: heads.value_features as u32,
            first_key: 0,
            first_value: (keys * features) as u32,
            ..Default::default()
        }
    }
}
