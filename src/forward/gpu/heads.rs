//! Heads and causal attention on the adapter.

use super::buffers::GpuTensor;
use super::layers::{self, elementwise, product};
use super::recorder::Recorder;
use super::weights::{GpuMatrix, GpuNorm};
use crate::device::adapter::context::Context;
use crate::device::product::Destination;
use crate::device::recorder::{Groups, Sequence};
use crate::device::storage::filled;
use crate::forward::engine::RopeTables;
use crate::forward::error::Error;
use crate::forward::kernels::{AttentionParams, CopyHeadsParams, HeadsParams};
use crate::model::{
    Alibi, HeadCounts, HeadNorms, LatentWidths, NormedWidth, Pairing, Projections, SelfAttention,
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

/// Queries, keys and values of one sequence, side by side in each token's row.
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
        sequence: &mut Sequence,
        counts: HeadCounts,
        projections: &Projections<GpuMatrix, GpuNorm>,
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
            product(recorder, sequence, projection, x, part);
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
        sequence: &mut Sequence,
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
            recorder.dispatch(sequence, "copy_heads", &params, &buffers, groups, steps);
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
    pub(super) fn clip(&self, recorder: &Recorder<'_>, sequence: &mut Sequence, clip: f32) {
        let shape = [self.all.tokens, self.all.features];
        let all = (&self.all.buffer, shape);
        elementwise(recorder, sequence, "clip_all", [1.0, clip], None, all);
    }

    /// Normalises the queries and the keys. All of them together lie side by side where each has a layer of its own.
    pub(super) fn normalise(
        &self,
        recorder: &Recorder<'_>,
        sequence: &mut Sequence,
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
                sequence,
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
        sequence: &mut Sequence,
        by: &RopeBuffers,
    ) -> Result<(), Error> {
        let rotations = by.of(self.all.tokens, self.counts.features)?;
        for (first, count) in self.queries_and_keys() {
            let params = HeadsParams {
                pairs: by.pairs as u32,
                interleaved: u32::from(by.pairing == Pairing::Interleaved),
                ..self.params(first)
            };
            let buffers = [(1, rotations), (4, &self.all.buffer)];
            let groups = (count, self.all.tokens);
            let steps = by.pairs.div_ceil(64);
            recorder.dispatch(sequence, "apply_rope", &params, &buffers, groups, steps);
        }
        Ok(())
    }

    /// What each query finds, `[tokens, query heads * features of a value]`.
    pub(super) fn attend<L, N>(
        &self,
        recorder: &Recorder<'_>,
        sequence: &mut Sequence,
        attention: &SelfAttention<L, N, Vec<f32>>,
        alibi: Option<&AlibiBuffer>,
    ) -> GpuTensor {
        let HeadCounts {
            queries,
            keys,
            features,
        } = self.counts;
        let tokens = self.all.tokens;
        let found = recorder.activations(tokens, queries * self.value_features);
        let params = |part: Groups| AttentionParams {
            tokens: tokens as u32,
            head_dim: features as u32,
            value_dim: self.value_features as u32,
            query_heads: queries as u32,
            group_size: (queries / keys) as u32,
            token_stride: self.all.features as u32,
            query_stride: self.stride as u32,
            key_stride: self.stride as u32,
            value_stride: self.value_stride as u32,
            first_query: 0,
            first_key: self.first_key as u32,
            first_value: self.first_value as u32,
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
        };
        let sinks = attention.sinks.as_ref();
        let sinks = sinks.map(|sinks| filled(recorder.context, "sinks", sinks));
        let sinks = sinks.as_ref().unwrap_or(&recorder.nothing);
        let slopes = alibi.map_or(&recorder.nothing, |alibi| &alibi.slopes);
        let buffers = [
            (1, &self.all.buffer),
            (2, &found.buffer),
            (3, sinks),
            (4, slopes),
        ];
        let groups = [tokens.div_ceil(16), queries];
        // Of 16 queries, every key and every value.
        let work = 16 * tokens as u64 * (features + self.value_features) as u64;
        recorder.dispatch_in_parts(sequence, "attention", params, &buffers, groups, work);
        found
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
