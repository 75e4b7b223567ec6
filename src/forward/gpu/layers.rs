//! Matrix products, norms, nonlinearities and rows of experts on the adapter.

use super::buffers::GpuTensor;
use super::recorder::Recorder;
use super::weights::{GpuMatrix, GpuNorm, GpuNormKind};
use crate::device::product::{self, Destination, Operand, Weights};
use crate::device::recorder::Recording;
use crate::device::storage::filled;
use crate::forward::kernels::{
    ActivationParams, ElementwiseParams, HeadsParams, NormParams, RowsParams,
};
use crate::model::{ExpertAssignment, Nonlinearity};

/// All of a tensor.
pub(super) fn all(of: &GpuTensor) -> Destination<'_> {
    Destination {
        buffer: &of.buffer,
        stride: of.features,
        first: 0,
        add: false,
    }
}

/// `x W^T + b` to where it goes.
pub(super) fn product(
    recorder: &Recorder<'_>,
    recording: &mut Recording,
    matrix: &GpuMatrix,
    x: &GpuTensor,
    to: Destination<'_>,
) {
    product_of_rows(recorder, recording, matrix, (x, 0, x.tokens), to);
}

/// The same for so many rows of `x`, from one on.
pub(super) fn product_of_rows(
    recorder: &Recorder<'_>,
    recording: &mut Recording,
    matrix: &GpuMatrix,
    (x, row, rows): (&GpuTensor, usize, usize),
    to: Destination<'_>,
) {
    let mut first = 0;
    for piece in &matrix.pieces {
        let weights = Weights {
            operand: Operand::by_rows(&piece.weights, matrix.in_features),
            dtype: matrix.dtype,
            columns: piece.features,
            bias: matrix.bias.as_ref().map(|bias| (bias, first)),
            scale: matrix.scale,
        };
        let x = (
            Operand::by_rows(&x.buffer, matrix.in_features).from(row * matrix.in_features),
            [rows, matrix.in_features],
        );
        let to = Destination {
            first: to.first + first,
            ..to
        };
        product::product(recorder, recording, x, &weights, to);
        first += piece.features;
    }
}

/// `x`, normalised, to `y`.
pub(super) fn norm(
    recorder: &Recorder<'_>,
    recording: &mut Recording,
    norm: &GpuNorm,
    x: &GpuTensor,
    y: &GpuTensor,
) {
    let params = NormParams {
        features: norm.features as u32,
        epsilon: norm.epsilon,
    };
    let groups = (x.tokens, 1);
    let steps = 3 * norm.features.div_ceil(256);
    match &norm.kind {
        GpuNormKind::Layer { bias } => {
            let buffers = [(1, &x.buffer), (2, &norm.weight), (3, bias), (4, &y.buffer)];
            recorder.dispatch(recording, "layer_norm", &params, &buffers, groups, steps);
        }
        GpuNormKind::Rms => {
            let buffers = [(1, &x.buffer), (2, &norm.weight), (4, &y.buffer)];
            recorder.dispatch(recording, "rms_norm", &params, &buffers, groups, steps);
        }
    }
}

/// Normalises, in its place, as many features of `x` as the norm has together, then the next ones.
pub(super) fn norm_parts(
    recorder: &Recorder<'_>,
    recording: &mut Recording,
    norm: &GpuNorm,
    x: &GpuTensor,
) {
    let params = HeadsParams {
        head_dim: norm.features as u32,
        token_stride: x.features as u32,
        head_stride: norm.features as u32,
        ..norm.heads_params()
    };
    let bias = norm.bias().unwrap_or(&recorder.nothing);
    let buffers = [(2, &norm.weight), (3, bias), (4, &x.buffer)];
    let groups = (x.features / norm.features, x.tokens);
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

/// Runs one of the kernels of `elementwise.wgsl` over `[tokens, features]` values `y`.
pub(super) fn elementwise(
    recorder: &Recorder<'_>,
    recording: &mut Recording,
    entry_point: &'static str,
    [scale, bound]: [f32; 2],
    x: Option<&wgpu::Buffer>,
    (y, [tokens, features]): (&wgpu::Buffer, [usize; 2]),
) {
    let params = ElementwiseParams {
        count: (tokens * features) as u32,
        row: features as u32,
        scale,
        bound,
    };
    let mut buffers = vec![(2, y)];
    buffers.extend(x.map(|x| (1, x)));
    let groups = (features.div_ceil(256), tokens);
    recorder.dispatch(recording, entry_point, &params, &buffers, groups, 1);
}

/// `act(x)` or `act(x) * up`, in the place of `x`.
pub(super) fn activate(
    recorder: &Recorder<'_>,
    recording: &mut Recording,
    of: Nonlinearity,
    x: &GpuTensor,
    up: Option<&GpuTensor>,
) {
    let [above, slope, below, edge] = of.numbers;
    let params = ActivationParams {
        count: (x.tokens * x.features) as u32,
        activation: of.activation as u32,
        row: x.features as u32,
        above,
        slope,
        below,
        edge,
    };
    let groups = (x.features.div_ceil(256), x.tokens);
    match up {
        Some(up) => {
            let buffers = [(1, &x.buffer), (2, &up.buffer)];
            recorder.dispatch(recording, "gated", &params, &buffers, groups, 1);
        }
        None => recorder.dispatch(recording, "plain", &params, &[(1, &x.buffer)], groups, 1),
    }
}

/// The rows of `x` that an expert assignment names, each times its weight.
pub(super) fn gather(
    recorder: &Recorder<'_>,
    recording: &mut Recording,
    x: &GpuTensor,
    assignment: &ExpertAssignment,
) -> GpuTensor {
    let rows = recorder.activations(assignment.tokens.len(), x.features);
    dispatch_rows(recorder, recording, "gather", [x, &rows], assignment);
    rows
}

/// Adds rows, each times its weight, to those of `sum` that a assignment names.
pub(super) fn scatter(
    recorder: &Recorder<'_>,
    recording: &mut Recording,
    rows: &GpuTensor,
    assignment: &ExpertAssignment,
    sum: &GpuTensor,
) {
    dispatch_rows(recorder, recording, "scatter", [rows, sum], assignment);
}

fn dispatch_rows(
    recorder: &Recorder<'_>,
    recording: &mut Recording,
    entry_point: &'static str,
    [x, y]: [&GpuTensor; 2],
    assignment: &ExpertAssignment,
) {
    let places = assignment.tokens.iter().zip(&assignment.weights);
    let places: Vec<[u32; 2]> = places
        .map(|(&token, weight)| [token, weight.to_bits()])
        .collect();
    let places = filled(recorder.context, "places", &places);
    let params = RowsParams {
        features: x.features as u32,
    };
    let buffers = [(1, &places), (2, &x.buffer), (3, &y.buffer)];
    let groups = (x.features.div_ceil(256), assignment.tokens.len());
    recorder.dispatch(recording, entry_point, &params, &buffers, groups, 1);
}
