use super::*;
use crate::device::adapter::adapters;
use crate::device::adapter::faults::{Fault, Faults};
use crate::device::compensation::COMPENSATE;
use crate::device::product::PRODUCT;
use crate::fixtures::WeightMatrix;

/// Every adapter here, with a fault.
fn every_adapter(fault: Option<Fault>) -> Vec<(String, Gpu)> {
    let open = |adapter: crate::device::adapter::Adapter| {
        let name = adapter.info.to_string();
        (
            name,
            Gpu::new(adapter.open(Faults::new(fault)).unwrap()).unwrap(),
        )
    };
    adapters(true).into_iter().map(open).collect()
}

fn compensator(selection: Selection, steps: usize) -> Arc<Compensator> {
    let options = Compensation {
        rank: RANK,
        steps,
        ..Compensation::new(&selection)
    };
    let (_, hessian) = example();
    Arc::new(Compensator::new(&hessian.unwrap(), options).unwrap())
}

const HALF: Selection = Selection::Exact { sparsity: 0.5 };

fn pattern() -> Selection {
    Selection::Pattern(Pattern::new(2, 4).unwrap())
}

/// Rows of more than a tile, with a mask by their values.
fn many_rows() -> Vec<f32> {
    let rows = WeightMatrix::trained(9, Dtype::F32, 131, IN_FEATURES);
    bytemuck::pod_collect_to_vec(rows.view().bytes)
}

fn compensate_here(
    compensator: &Compensator,
    selection: Selection,
    weights: &[f32],
    mask: &mut Mask,
) -> CompensatedRows {
    let mut choose =
        |values: &[f32]| -> Result<Mask, products::Error> { Ok(mask_of(values, selection)) };
    compensator.compensate(weights, mask, &mut choose).unwrap()
}

#[test]
fn every_adapter_here_compensates_as_the_host_does() {
    for (name, gpu) in every_adapter(None) {
        assert_eq!(kernels(&gpu).unwrap(), Ok(()), "{name}");
    }
}

#[test]
fn an_adapter_that_ignores_the_barriers_of_a_kernel_does_not_compensate() {
    for shader in [&COMPENSATE.shader, &PRODUCT.shader] {
        for (name, gpu) in every_adapter(Some(Fault::WithoutBarriers(shader.name))) {
            let found = kernels(&gpu);
            assert!(!matches!(found, Ok(Ok(()))), "{} on {name}", shader.name);
        }
    }
}

/// So that what is a little off in the last bits cannot turn the mask of the start-up check.
#[test]
fn the_rows_that_are_tried_have_no_near_ties() {
    let (weights, _) = example();
    let compensator = compensator(pattern(), 8);
    let mut expected = mask_of(&weights, pattern());
    compensate_here(&compensator, pattern(), &weights, &mut expected);
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut blurred = weights.clone();
        for weight in &mut blurred {
            *weight *= 1.0 + 1e-5 * (random.below(2001) as f32 / 1000.0 - 1.0);
        }
        let mut mask = mask_of(&weights, pattern());
        compensate_here(&compensator, pattern(), &blurred, &mut mask);
        assert!(mask == expected, "seed {seed}");
    }
}

#[test]
fn many_rows_are_compensated_as_the_host_does_and_with_another_input_they_are_not() {
    let weights = many_rows();
    for selection in [HALF, pattern()] {
        let compensator = compensator(selection, 8);
        let mut here = mask_of(&weights, selection);
        let expected = compensate_here(&compensator, selection, &weights, &mut here);
        // An input whose columns come in another order.
        let mut other = weights.clone();
        other
            .chunks_exact_mut(IN_FEATURES)
            .for_each(|row| row.rotate_left(1));
        for (name, gpu) in every_adapter(None) {
            let mut row_compensator = RowCompensator::new(&gpu);
            let mut there = mask_of(&weights, selection);
            let got = row_compensator
                .compensate(&compensator, selection, &weights, &mut there)
                .unwrap();
            let words = here.words.iter().zip(&there.words);
            let differing: u32 = words.map(|(a, b)| (a ^ b).count_ones()).sum();
            if selection == HALF {
                assert_eq!(differing, 0, "{name}");
                assert_eq!(difference(&expected, &got), None, "{name}");
            } else {
                // Near ties may go the other way.
                let share = f64::from(differing) / weights.len() as f64;
                println!("{name}: {share} of the mask differs");
                assert!(share < 1e-3, "{name}: {share}");
                let sum = |rows: &CompensatedRows| rows.after.iter().sum::<f64>();
                let ratio = sum(&got) / sum(&expected);
                assert!((0.999..1.001).contains(&ratio), "{name}: {ratio}");
            }
            let mut wrong = mask_of(&other, selection);
            let got = row_compensator
                .compensate(&compensator, selection, &other, &mut wrong)
                .unwrap();
            assert!(difference(&expected, &got).is_some(), "{name}");
        }
    }
}

#[test]
fn an_adapter_tells_the_errors_that_its_rows_have_in_f64() {
    let weights = many_rows();
    let (_, hessian) = example();
    let whole = hessian.unwrap().whole();
    let error = |weights: &[f32], values: &[f32]| -> f64 {
        let difference: Vec<f64> = (weights.iter().zip(values))
            .map(|(&w, &v)| f64::from(v) - f64::from(w))
            .collect();
        let rows = whole.chunks_exact(IN_FEATURES).zip(&difference);
        rows.map(|(row, d)| d * row.iter().zip(&difference).map(|(h, e)| h * e).sum::<f64>())
            .sum()
    };
    for (name, gpu) in every_adapter(None) {
        for selection in [HALF, pattern()] {
            let mut mask = mask_of(&weights, selection);
            let first = mask.clone();
            let got = RowCompensator::new(&gpu).compensate(
                &compensator(selection, 8),
                selection,
                &weights,
                &mut mask,
            );
            let got = got.unwrap();
            let rows = weights
                .chunks_exact(IN_FEATURES)
                .zip(got.values.chunks_exact(IN_FEATURES));
            for (row, (weights, values)) in rows.enumerate() {
                let alone: Vec<f32> = (0..IN_FEATURES)
                    .map(|c| {
                        if first.prunes(row, c) {
                            0.0
                        } else {
                            weights[c]
                        }
                    })
                    .collect();
                let (before, after) = (error(weights, &alone), error(weights, values));
                assert!(
                    (got.before[row] - before).abs() < 1e-3 * before,
                    "{name}, row {row}"
                );
                assert!(
                    (got.after[row] - after).abs() < 1e-3 * before,
                    "{name}, row {row}"
                );
                assert!(
                    after < 0.9 * before,
                    "{name}, row {row}: {after} of {before}"
                );
                for (column, &value) in values.iter().enumerate() {
                    let is_pruned = mask.prunes(row, column) || weights[column] == 0.0;
                    assert!(
                        !is_pruned || value.to_bits() == 0,
                        "{name}: {row}, {column}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_same_adapter_gives_the_same_bits_again_and_in_other_chunks() {
    let weights = many_rows();
    for (name, gpu) in every_adapter(None) {
        let mut row_compensator = RowCompensator::new(&gpu);
        let compensator = compensator(pattern(), 8);
        let mut bits = |first: usize, last: usize| -> Vec<u32> {
            let weights = &weights[first * IN_FEATURES..last * IN_FEATURES];
            let mut mask = mask_of(weights, pattern());
            let compensated = row_compensator
                .compensate(&compensator, pattern(), weights, &mut mask)
                .unwrap();
            compensated
                .values
                .iter()
                .map(|value| value.to_bits())
                .collect()
        };
        let all = bits(0, 131);
        assert!(all == bits(0, 131), "{name}");
        let parts = [bits(0, 40), bits(40, 131)].concat();
        assert!(all == parts, "{name}");
    }
}
