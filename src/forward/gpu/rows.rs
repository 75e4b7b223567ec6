//! Some tokens' rows out of a hidden state on the adapter, and back into one.

use super::buffers::GpuTensor;
use super::recorder::Recorder;
use crate::device::recorder::Recording;
use crate::device::storage::filled;
use crate::forward::kernels::RowsParams;
use crate::model::ExpertAssignment;

/// The rows of `x` that an expert assignment names, each times its weight.
pub(super) fn gather(
    recorder: &Recorder<'_>,
    recording: &mut Recording,
    x: &GpuTensor,
    assignment: &ExpertAssignment,
) -> GpuTensor {
    let rows = recorder.activations(assignment.tokens.len(), x.features);
    dispatch(recorder, recording, "gather", [x, &rows], assignment);
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
    dispatch(recorder, recording, "scatter", [rows, sum], assignment);
}

fn dispatch(
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
