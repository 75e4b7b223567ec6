//! Start-up: what an adapter has and how it computes, held against what the shaders assume, before it gets a model.

use super::cpu;
use super::error::Error;
use super::gpu::Gpu;
use crate::dtype::Dtype;
use crate::fixtures::{WeightMatrix, random_norms, rules, trained_norms};
use crate::recipe::{MAX_IN_FEATURES, Recipe, Step};
use crate::scores::SCORES;

/// What the shaders need of an adapter; `tests/shaders` holds them to no more.
pub(super) fn limits(limits: &wgpu::Limits) -> Result<(), String> {
    let need = [
        (
            "invocations a workgroup",
            u64::from(limits.max_compute_invocations_per_workgroup),
            256,
        ),
        (
            "workgroup size",
            u64::from(limits.max_compute_workgroup_size_x),
            256,
        ),
        (
            "bytes of workgroup memory",
            u64::from(limits.max_compute_workgroup_storage_size),
            16 << 10,
        ),
        (
            "storage buffers a stage",
            u64::from(limits.max_storage_buffers_per_shader_stage),
            4,
        ),
        (
            "workgroups a dimension",
            u64::from(limits.max_compute_workgroups_per_dimension),
            65535,
        ),
        (
            "bytes a storage binding",
            limits.max_storage_buffer_binding_size,
            MAX_IN_FEATURES as u64 * 16,
        ),
    ];
    match need.iter().find(|(_, has, needs)| has < needs) {
        Some((what, has, needs)) => Err(format!("it offers {has} {what}, and {needs} are needed")),
        None => Ok(()),
    }
}

/// Computes a few rows on the adapter and on the CPU, by every pass: awkward ones, and such as a model has.
///
/// A compiler may flush what is small, fuse a multiplication with an addition or take a division by zero as it likes. The
/// shaders leave it no room to, as far as anybody knows; here an adapter that finds some is refused in time.
pub(super) fn arithmetic(gpu: &Gpu) -> Result<(), Error> {
    let unfit = |what: &str| Error::Unfit {
        device: gpu.context().info.to_string(),
        reason: format!(
            "its {what} differs from the CPU's on the rows that are tried at start-up; the self-test says more"
        ),
    };
    let (rows, in_features) = (3, 301);
    let tensors = (1..).zip(Dtype::ALL).flat_map(|(seed, dtype)| {
        let awkward = WeightMatrix::random(seed, dtype, rows, in_features, true);
        let trained = WeightMatrix::trained(seed, dtype, rows, in_features);
        [
            (awkward, random_norms(seed, in_features)),
            (trained, trained_norms(seed, in_features)),
        ]
    });
    for (tensor, norms) in tensors {
        let sums = cpu::sums(tensor.view());
        if gpu.sums(tensor.view())? != sums {
            return Err(unfit("sum of weights"));
        }
        for score in SCORES.iter().filter(|score| score.weights.has_terms()) {
            let statistics = cpu::statistics(tensor.view(), score);
            for rule in rules() {
                let recipe = Recipe::new(
                    rule.selection,
                    score,
                    in_features,
                    Some(&norms),
                    statistics.as_ref(),
                );
                // Every key, as a mask shows few of the ways to differ; then the mask of the fused passes.
                if rule.selection.ewma().is_some() {
                    let expected = cpu::alone(tensor.view(), 0, &recipe, Step::Ewma);
                    if gpu.alone(tensor.view(), 0, &recipe, Step::Ewma)? != expected {
                        return Err(unfit(&format!("moving average by {}", rule.name)));
                    }
                }
                let expected = cpu::mask(tensor.view(), 0, &recipe);
                if gpu.mask(tensor.view(), 0, &recipe)? != expected {
                    return Err(unfit(&format!("mask by {} ({})", rule.name, score.name)));
                }
            }
        }
    }
    Ok(())
}
