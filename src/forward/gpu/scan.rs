//! Convolutions and recurrences along a sequence on the adapter.

use super::buffers::GpuTensor;
use super::recorder::Recorder;
use crate::device::recorder::Sequence;
use crate::device::storage::filled;
use crate::forward::engine::Convolved;
use crate::forward::kernels::{
    ConvolutionParams, CopyHeadsParams, DeltaNetParams, StateSpaceParams,
};
use crate::model::{DeltaSizes, Scan, ScanSizes, StateSizes};

/// The most numbers that a channel may keep: `KEPT` vectors of four in the shaders.
pub(super) const MAX_KEPT: usize = 256;

/// Each channel of `x`, convolved with those before it.
pub(super) fn convolve(
    recorder: &Recorder<'_>,
    sequence: &mut Sequence,
    convolution: &Convolved<'_>,
    x: &GpuTensor,
) -> GpuTensor {
    let bias = convolution.bias.unwrap_or_default();
    let numbers = [convolution.weight, bias].concat();
    let numbers = filled(recorder.context, "convolution", &numbers);
    let params = ConvolutionParams {
        channels: x.features as u32,
        width: convolution.width as u32,
        biased: u32::from(convolution.bias.is_some()),
    };
    let y = recorder.activations(x.tokens, x.features);
    let buffers = [(1, &x.buffer), (2, &numbers), (3, &y.buffer)];
    let groups = (x.features.div_ceil(64), x.tokens);
    recorder.dispatch(sequence, "convolution", &params, &buffers, groups);
    y
}

/// What comes out of a scan.
pub(super) fn scan(
    recorder: &Recorder<'_>,
    sequence: &mut Sequence,
    scan: &Scan,
    inputs: &[&GpuTensor],
) -> GpuTensor {
    let tokens = inputs[0].tokens;
    let all = side_by_side(recorder, sequence, inputs);
    let numbers = [&scan.decays[..], &scan.bias, &scan.skip].concat();
    let numbers = filled(recorder.context, "scan", &numbers);
    let y = recorder.activations(tokens, scan.sizes.output());
    let buffers = [(1, &all.buffer), (2, &numbers), (3, &y.buffer)];
    let groups = (y.features.div_ceil(64), 1);
    // No infinities, which are at the mercy of fast arithmetic.
    let [least, most] = scan.limits.map(|limit| limit.min(f32::MAX));
    match scan.sizes {
        ScanSizes::StateSpace(sizes) => {
            let StateSizes {
                heads,
                features,
                groups: of_states,
                states,
            } = sizes;
            let params = StateSpaceParams {
                tokens: tokens as u32,
                heads: heads as u32,
                features: features as u32,
                groups: of_states as u32,
                states: states as u32,
                decays: (scan.decays.len() / heads) as u32,
                least,
                most,
            };
            recorder.dispatch(sequence, "state_space", &params, &buffers, groups);
        }
        ScanSizes::DeltaNet(sizes) => {
            let DeltaSizes {
                key_heads,
                value_heads,
                key_features,
                value_features,
            } = sizes;
            let params = DeltaNetParams {
                tokens: tokens as u32,
                key_heads: key_heads as u32,
                value_heads: value_heads as u32,
                key_features: key_features as u32,
                value_features: value_features as u32,
                least,
                most,
            };
            recorder.dispatch(sequence, "delta_net", &params, &buffers, groups);
        }
    }
    y
}

/// Tensors as one, in each token's row one behind the other: a kernel has few bindings.
fn side_by_side(
    recorder: &Recorder<'_>,
    sequence: &mut Sequence,
    parts: &[&GpuTensor],
) -> GpuTensor {
    let tokens = parts[0].tokens;
    let features = parts.iter().map(|part| part.features).sum();
    let all = recorder.activations(tokens, features);
    let mut first = 0;
    for part in parts {
        let params = CopyHeadsParams {
            features: part.features as u32,
            from_token_stride: part.features as u32,
            to_first: first as u32,
            to_token_stride: features as u32,
            ..Default::default()
        };
        let buffers = [(1, &part.buffer), (2, &all.buffer)];
        recorder.dispatch(sequence, "copy_heads", &params, &buffers, (1, tokens));
        first += part.features;
    }
    all
}
