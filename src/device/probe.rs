//! Start-up: what an adapter has and how it computes, held against what the shaders assume, before it gets a model.

use super::cpu;
use super::error::Error;
use super::gpu::Gpu;
use crate::dtype::Dtype;
use crate::fixtures::{NamedSelection, WeightMatrix, random_norms, rules, trained_norms};
use crate::passes::fused::{CAPACITY, WIDE_CAPACITY};
use crate::recipe::{MAX_IN_FEATURES, Recipe, Step};
use crate::scores::SCORES;

/// What the shaders need of an adapter; `tests/library/shaders` holds them to no more.
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

/// Weights of a row that is kept in workgroup memory only where there is much of it, and of one that never is.
const WIDE: [usize; 2] = [CAPACITY + 37, WIDE_CAPACITY + 67];

/// Computes a few rows on the adapter and on the CPU, by every pass: awkward ones, such as a model has, and wide ones.
///
/// A compiler may flush what is small, fuse a multiplication with an addition, take a division by zero as it likes, or leave
/// out a barrier. The shaders leave it no room to, as far as anybody knows; here an adapter that finds some is refused in
/// time.
pub(super) async fn arithmetic(gpu: &Gpu) -> Result<(), Error> {
    let (rows, in_features) = (3, 301);
    for (seed, dtype) in (1..).zip(Dtype::ALL) {
        let awkward = WeightMatrix::random(seed, dtype, rows, in_features, true);
        let trained = WeightMatrix::trained(seed, dtype, rows, in_features);
        let norms = random_norms(seed, in_features);
        matrix(gpu, &awkward, &norms, &rules()).await?;
        let norms = trained_norms(seed, in_features);
        matrix(gpu, &trained, &norms, &rules()).await?;
    }
    let [ewma, exact, ..] = rules();
    for (in_features, rule) in WIDE.into_iter().zip([ewma, exact]) {
        let trained = WeightMatrix::trained(7, Dtype::Bf16, rows, in_features);
        matrix(gpu, &trained, &trained_norms(7, in_features), &[rule]).await?;
    }
    Ok(())
}

/// Holds the adapter against the CPU on one matrix.
async fn matrix(
    gpu: &Gpu,
    tensor: &WeightMatrix,
    norms: &[f32],
    rules: &[NamedSelection],
) -> Result<(), Error> {
    let in_features = tensor.in_features;
    let unfit = |what: &str| Error::Unfit {
        device: gpu.context().info.to_string(),
        reason: format!(
            "its {what} of rows of {in_features} weights differs from the CPU's when tried at start-up; the self-test says \
             more"
        ),
    };
    let sums = cpu::sums(tensor.view());
    if gpu.sums(tensor.view()).await? != sums {
        return Err(unfit("sum of weights"));
    }
    for score in SCORES.iter().filter(|score| score.weights.has_terms()) {
        let statistics = cpu::statistics(tensor.view(), score);
        for rule in rules {
            let recipe = Recipe::new(
                rule.selection,
                score,
                in_features,
                Some(norms),
                statistics.as_ref(),
            );
            // Every key, as a mask shows few of the ways to differ; the mask of the keys; that of the fused passes.
            let has_ewma = rule.selection.ewma().is_some();
            for (step, what) in [
                (Step::Ewma, "moving average"),
                (Step::Select, "cut of stored keys"),
            ] {
                if step == Step::Ewma && !has_ewma {
                    continue;
                }
                let expected = cpu::alone(tensor.view(), 0, &recipe, step);
                if gpu.alone(tensor.view(), 0, &recipe, step).await? != expected {
                    return Err(unfit(&format!("{what} by {}", rule.name)));
                }
            }
            let expected = cpu::mask(tensor.view(), 0, &recipe);
            if gpu.mask(tensor.view(), 0, &recipe).await? != expected {
                return Err(unfit(&format!("mask by {} ({})", rule.name, score.name)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::device::adapter::adapters;
    use crate::device::adapter::faults::{Fault, Faults};
    use crate::passes::{FUSED, PASSES};

    /// The start-up check of every adapter here, each with a fault.
    fn check(fault: Option<Fault>) -> Vec<(String, Result<(), Error>)> {
        let check = |adapter: crate::device::adapter::Adapter| {
            let name = adapter.info.to_string();
            let context = adapter.open(Faults::new(fault)).unwrap();
            let start = Instant::now();
            let gpu = Gpu::new(context).unwrap();
            let compiled = start.elapsed();
            let result = pollster::block_on(arithmetic(&gpu));
            println!(
                "{name}: {compiled:?} to compile, {:?} in all",
                start.elapsed()
            );
            (name, result)
        };
        adapters(true).into_iter().map(check).collect()
    }

    #[test]
    fn every_adapter_here_passes() {
        for (name, result) in check(None) {
            assert!(result.is_ok(), "{name}: {result:?}");
        }
    }

    #[test]
    fn an_adapter_that_ignores_the_barriers_of_a_shader_does_not_pass() {
        let mut tried = 0;
        for shader in PASSES.iter().chain(FUSED) {
            if !shader.wgsl.contains("Barrier();") {
                continue;
            }
            for (name, result) in check(Some(Fault::WithoutBarriers(shader.name))) {
                let unfit = matches!(result, Err(Error::Unfit { .. }));
                // A device whose lanes all go in step would not need the barrier; the software adapters do.
                assert!(unfit, "{} on {name}: {result:?}", shader.name);
                tried += 1;
            }
        }
        println!("{tried} shaders without barriers were noticed");
    }
}
