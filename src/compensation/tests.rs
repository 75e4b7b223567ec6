//! Compensated rows against an exact least squares in f64, by elimination: the optimum, not the iteration again.

use super::*;
use crate::fixtures::Random;
use crate::mask::Mask;
use crate::sketch::{Sketch, omega};

/// Inputs of a layer whose features go together: `[tokens, in_features]`.
fn inputs(tokens: usize, in_features: usize) -> Vec<f32> {
    let mut random = Random::new(7);
    let mut next = move || random.below(20_001) as f32 / 10_000.0 - 1.0;
    let directions = 6;
    let mixing: Vec<f32> = (0..directions * in_features).map(|_| next()).collect();
    let mut all = Vec::new();
    for _ in 0..tokens {
        let strengths: Vec<f32> = (0..directions).map(|_| next()).collect();
        for feature in 0..in_features {
            let along = (0..directions).map(|d| strengths[d] * mixing[d * in_features + feature]);
            all.push(along.sum::<f32>() + 0.3 * next());
        }
    }
    all
}

/// `X^T X`.
fn gram(x: &[f32], in_features: usize) -> Vec<f64> {
    let mut gram = vec![0.0; in_features * in_features];
    for row in x.chunks_exact(in_features) {
        for (sums, &left) in gram.chunks_exact_mut(in_features).zip(row) {
            for (sum, &right) in sums.iter_mut().zip(row) {
                *sum += f64::from(left) * f64::from(right);
            }
        }
    }
    gram
}

fn norms_and_sketch(gram: &[f64], in_features: usize, rank: usize) -> (Vec<f32>, Sketch) {
    let norms = (0..in_features).map(|j| gram[j * in_features + j] as f32);
    let omega = omega(in_features, rank);
    let mut values = Vec::new();
    for row in gram.chunks_exact(in_features) {
        for k in 0..rank {
            let along = row.iter().zip(omega.iter().skip(k).step_by(rank));
            values.push(along.map(|(g, &o)| g * f64::from(o)).sum::<f64>() as f32);
        }
    }
    let sketch = Sketch {
        in_features,
        rank,
        values,
    };
    (norms.collect(), sketch)
}

/// A rank above the features of an input is that of all its features: `H` is then `X^T X` itself, with the ridge.
#[test]
fn an_input_of_fewer_features_than_the_rank_has_a_hessian() {
    for in_features in (1..=24).chain([48, 100, 128, 191]) {
        for rank in [128, 192] {
            let gram = gram(&inputs(300, in_features), in_features);
            let (norms, sketch) = norms_and_sketch(&gram, in_features, rank);
            let ridge = 0.03;
            let hessian = Hessian::new(&norms, &sketch, rank, ridge);
            let whole = hessian
                .unwrap_or_else(|| panic!("{in_features} at {rank}"))
                .whole();
            let mean = norms.iter().map(|&n| f64::from(n)).sum::<f64>() / in_features as f64;
            for (index, (&h, &g)) in whole.iter().zip(&gram).enumerate() {
                let is_diagonal = index % (in_features + 1) == 0;
                let right = g / mean + if is_diagonal { ridge } else { 0.0 };
                // Below a few features a column of signs may have to go, and what it would have said.
                let most = match (is_diagonal, in_features) {
                    (true, _) | (_, 16..) => 0.02,
                    _ => continue,
                };
                assert!(
                    (h - right).abs() < most,
                    "{in_features} at {rank}: {index}: {h} is not {right}"
                );
            }
        }
    }
}

/// Half of each row goes, every other column.
fn every_other(rows: usize, in_features: usize) -> Mask {
    let mut mask = Mask::empty(rows, in_features);
    for row in 0..rows {
        (row % 2..in_features)
            .step_by(2)
            .for_each(|column| mask.set(row, column));
    }
    mask
}

fn weights(rows: usize, in_features: usize) -> Vec<f32> {
    let mut random = Random::new(11);
    let all = (0..rows * in_features).map(|_| random.below(2001) as f32 / 1000.0 - 1.0);
    all.collect()
}

/// The output error of a row.
fn error(gram: &[f64], weights: &[f32], values: &[f32]) -> f64 {
    let e: Vec<f64> = (weights.iter().zip(values))
        .map(|(&w, &v)| f64::from(w) - f64::from(v))
        .collect();
    let rows = gram.chunks_exact(e.len()).zip(&e);
    rows.map(|(row, e_j)| e_j * factor::dot(row, &e)).sum()
}

/// The least output error that a row can have with these columns kept: by elimination with pivots.
fn optimum(gram: &[f64], weights: &[f32], kept: &[usize]) -> Vec<f32> {
    let in_features = weights.len();
    let size = kept.len();
    let mut system: Vec<Vec<f64>> = (kept.iter())
        .map(|&row| {
            let row = &gram[row * in_features..(row + 1) * in_features];
            let right: f64 = row
                .iter()
                .zip(weights)
                .map(|(g, &w)| g * f64::from(w))
                .sum();
            kept.iter()
                .map(|&column| row[column])
                .chain([right])
                .collect()
        })
        .collect();
    for column in 0..size {
        let pivot = (column..size)
            .max_by(|&a, &b| system[a][column].abs().total_cmp(&system[b][column].abs()))
            .unwrap();
        system.swap(column, pivot);
        for row in 0..size {
            if row != column {
                let factor = system[row][column] / system[column][column];
                let pivot_row = system[column].clone();
                for (x, p) in system[row].iter_mut().zip(&pivot_row) {
                    *x -= factor * p;
                }
            }
        }
    }
    let mut values = vec![0.0; in_features];
    for (index, &column) in kept.iter().enumerate() {
        values[column] = (system[index][size] / system[index][index]) as f32;
    }
    values
}

fn options(steps: usize) -> Compensation {
    Compensation {
        rank: MAX,
        ridge: 1e-3,
        steps,
        mask_steps: 0,
    }
}

const MAX: usize = usize::MAX;

fn compensate(
    hessian: &Hessian,
    options: Compensation,
    weights: &[f32],
    mask: &mut Mask,
) -> CompensatedRows {
    let compensator = Compensator::new(hessian, options).unwrap();
    let mut never =
        |_: &[f32]| -> Result<Mask, crate::products::Error> { unreachable!("the mask is given") };
    compensator.compensate(weights, mask, &mut never).unwrap()
}

#[test]
fn with_a_sketch_of_full_rank_a_compensated_row_is_the_exact_least_squares() {
    let (rows, in_features) = (4, 24);
    let mut gram = gram(&inputs(200, in_features), in_features);
    let (norms, sketch) = norms_and_sketch(&gram, in_features, in_features);
    let hessian = Hessian::new(&norms, &sketch, MAX, 1e-3).unwrap();
    // What Hessian puts on the diagonal: the floor and the ridge.
    let mean: f64 = norms.iter().map(|&n| f64::from(n)).sum::<f64>() / in_features as f64;
    (0..in_features).for_each(|j| gram[j * in_features + j] += 2e-3 * mean);
    let weights = weights(rows, in_features);
    let mut mask = every_other(rows, in_features);
    let compensated = compensate(&hessian, options(200), &weights, &mut mask);
    for row in 0..rows {
        let range = row * in_features..(row + 1) * in_features;
        let (weights, values) = (&weights[range.clone()], &compensated.values[range]);
        let kept: Vec<usize> = (0..in_features).filter(|&c| !mask.prunes(row, c)).collect();
        let best = optimum(&gram, weights, &kept);
        let (least, found) = (error(&gram, weights, &best), error(&gram, weights, values));
        assert!(
            (found - least).abs() < 1e-3 * least,
            "row {row}: {found} against {least}"
        );
        for (value, best) in values.iter().zip(&best) {
            assert!(
                (value - best).abs() < 2e-2,
                "row {row}: {value} against {best}"
            );
        }
        let told = compensated.after[row] * mean;
        assert!(
            (told - least).abs() < 1e-2 * least,
            "row {row}: {told} is told, {least} is"
        );
    }
}

#[test]
fn the_error_never_rises_from_one_step_to_the_next() {
    let (rows, in_features) = (5, 40);
    let gram = gram(&inputs(100, in_features), in_features);
    let (norms, sketch) = norms_and_sketch(&gram, in_features, 12);
    let hessian = Hessian::new(&norms, &sketch, MAX, 0.05).unwrap();
    let weights = weights(rows, in_features);
    let mut before = vec![f64::INFINITY; rows];
    for steps in 0..12 {
        let mut mask = every_other(rows, in_features);
        let compensated = compensate(&hessian, options(steps), &weights, &mut mask);
        for (row, (after, before)) in compensated.after.iter().zip(&before).enumerate() {
            assert!(*after <= before * (1.0 + 1e-6), "step {steps}, row {row}");
        }
        before = compensated.after;
    }
}

#[test]
fn the_true_error_falls_and_with_the_sketch_of_other_columns_it_does_not() {
    let (rows, in_features, rank) = (16, 64, 16);
    let gram = gram(&inputs(400, in_features), in_features);
    let (norms, sketch) = norms_and_sketch(&gram, in_features, rank);
    let weights = weights(rows, in_features);
    let error_with = |sketch: &Sketch| -> (f64, f64) {
        let hessian = Hessian::new(&norms, sketch, MAX, 0.1).unwrap();
        let mut mask = every_other(rows, in_features);
        let compensated = compensate(&hessian, options(16), &weights, &mut mask);
        let pruned: Vec<f32> = (0..rows * in_features)
            .map(|i| {
                if mask.prunes(i / in_features, i % in_features) {
                    0.0
                } else {
                    weights[i]
                }
            })
            .collect();
        let sum = |values: &[f32]| -> f64 {
            let rows = weights
                .chunks_exact(in_features)
                .zip(values.chunks_exact(in_features));
            rows.map(|(w, v)| error(&gram, w, v)).sum()
        };
        (sum(&pruned), sum(&compensated.values))
    };
    let (pruned, compensated) = error_with(&sketch);
    assert!(compensated < 0.5 * pruned, "{compensated} of {pruned}");
    // The sketch of an input whose columns come in another order.
    let place = |column: usize| (column + 17) % in_features;
    let mut shuffled = vec![0.0; gram.len()];
    for row in 0..in_features {
        for column in 0..in_features {
            shuffled[row * in_features + column] = gram[place(row) * in_features + place(column)];
        }
    }
    let (_, wrong_sketch) = norms_and_sketch(&shuffled, in_features, rank);
    let (_, wrong) = error_with(&wrong_sketch);
    assert!(wrong > pruned, "a wrong sketch: {wrong} of {pruned}");
}

#[test]
fn an_input_in_one_direction_is_made_up_for_by_any_kept_weight() {
    let in_features = 16;
    let direction: Vec<f32> = (0..in_features).map(|j| 1.0 + (j % 5) as f32).collect();
    let gram = gram(&direction, in_features);
    let (norms, sketch) = norms_and_sketch(&gram, in_features, 4);
    let hessian = Hessian::new(&norms, &sketch, MAX, 1e-6).unwrap();
    let weights = weights(1, in_features);
    let mut mask = every_other(1, in_features);
    let compensated = compensate(&hessian, options(30), &weights, &mut mask);
    let output = |values: &[f32]| -> f32 { direction.iter().zip(values).map(|(x, w)| x * w).sum() };
    let (wanted, found) = (output(&weights), output(&compensated.values));
    assert!(
        (wanted - found).abs() < 0.02 * wanted.abs(),
        "{found} against {wanted}"
    );
}

#[test]
fn at_rank_one_the_score_is_that_of_swiftprune() {
    // All tokens alike: X^T X is of rank one, and D is the ridge alone.
    let in_features = 12;
    let direction: Vec<f32> = (0..in_features).map(|j| 0.5 + j as f32).collect();
    let gram = gram(&direction, in_features);
    let (norms, sketch) = norms_and_sketch(&gram, in_features, 1);
    let ridge = 1.0;
    let hessian = Hessian::new(&norms, &sketch, 1, ridge).unwrap();
    let factors = hessian.column_factors().unwrap();
    // Sherman and Morrison's formula for D I + x x^T: [H^-1]_jj = (1 - x_j^2 / (D + S)) / D.
    let total: f64 = norms.iter().map(|&n| f64::from(n)).sum();
    let d = (1e-3 + ridge) * total / in_features as f64;
    let wanted: Vec<f64> = (norms.iter())
        .map(|&n| 1.0 / (1.0 - f64::from(n) / (d + total)).sqrt())
        .collect();
    let largest = wanted.iter().copied().fold(0.0, f64::max);
    for (found, wanted) in factors.iter().zip(&wanted) {
        let wanted = wanted / largest;
        assert!(
            (f64::from(*found) - wanted).abs() < 2e-3,
            "{found} against {wanted}"
        );
    }
}

#[test]
fn alternating_directions_keep_the_pattern_and_find_a_better_mask() {
    use crate::device::cpu;
    use crate::dtype::Dtype;
    use crate::recipe::{Factors, Recipe, Rows};
    use crate::selection::{Pattern, Selection};
    let (rows, in_features, rank) = (32, 64, 32);
    let gram = gram(&inputs(400, in_features), in_features);
    let (norms, sketch) = norms_and_sketch(&gram, in_features, rank);
    let hessian = Hessian::new(&norms, &sketch, MAX, 0.03).unwrap();
    let weights = weights(rows, in_features);
    let selection = Selection::Pattern(Pattern::new(2, 4).unwrap());
    let mask_of = |values: &[f32], factors: Vec<f32>| {
        let recipe = Recipe::with_factors(selection, Factors::new(factors, None));
        let bytes = bytemuck::cast_slice(values);
        cpu::mask(Rows::new(Dtype::F32, in_features, bytes), 0, &recipe)
    };
    let by_score = mask_of(&weights, hessian.column_factors().unwrap());
    let total = |options: Compensation| {
        let mut mask = by_score.clone();
        let compensator = Compensator::new(&hessian, options).unwrap();
        let mut choose = |values: &[f32]| -> Result<Mask, crate::products::Error> {
            Ok(mask_of(values, vec![1.0; in_features]))
        };
        let compensated = compensator
            .compensate(&weights, &mut mask, &mut choose)
            .unwrap();
        for row in 0..rows {
            for group in 0..in_features / 4 {
                let pruned = (0..4).filter(|c| mask.prunes(row, 4 * group + c)).count();
                assert_eq!(pruned, 2);
            }
            for column in 0..in_features {
                let is_zero = compensated.values[row * in_features + column] == 0.0;
                assert_eq!(is_zero, mask.prunes(row, column));
            }
        }
        let rows = weights
            .chunks_exact(in_features)
            .zip(compensated.values.chunks_exact(in_features));
        rows.map(|(w, v)| error(&gram, w, v)).sum::<f64>()
    };
    let defaults = Compensation::new(&selection);
    let alone = total(Compensation {
        mask_steps: 0,
        ..defaults
    });
    let chosen = total(defaults);
    assert!(chosen < alone, "{chosen} against {alone}");
}

#[test]
fn there_is_no_hessian_of_nothing_or_of_what_does_not_fit() {
    let sketch = |in_features| Sketch {
        in_features,
        rank: 2,
        values: vec![0.0; 2 * in_features],
    };
    assert!(
        Hessian::new(&[0.0; 3], &sketch(3), 2, 0.1).is_none(),
        "no energy"
    );
    assert!(
        Hessian::new(&[1.0; 3], &sketch(4), 2, 0.1).is_none(),
        "another input"
    );
    let not_positive = Sketch {
        values: vec![-1e9, 1e9, 3.0, f32::MAX, 1.0, 2.0],
        ..sketch(3)
    };
    assert!(
        Hessian::new(&[1.0; 3], &not_positive, 2, 0.1).is_none(),
        "not a Gram matrix"
    );
}
