use super::*;
use crate::selection::Pattern;

fn row(weights: &[f32]) -> Vec<u8> {
    bytemuck::cast_slice(weights).to_vec()
}

fn check(selection: Selection, original: &[f32], output: &[f32]) -> Result<Counts, RowFault> {
    let asked = (selection, Survivors::Unchanged);
    check_row(Dtype::F32, asked, &row(original), &row(output))
}

const HALF: Selection = Selection::Exact { sparsity: 0.5 };

#[test]
fn a_compensated_weight_is_another_one_and_never_out_of_zero_nor_without_bound() {
    let check = |original: &[f32], output: &[f32]| {
        let asked = (HALF, Survivors::Compensated);
        check_row(Dtype::F32, asked, &row(original), &row(output))
    };
    let original = [1.0, 2.0, 3.0, 4.0];
    assert!(check(&original, &[0.0, 0.0, 3.5, -4.0]).is_ok());
    let bad = Err(RowFault::Survivor { column: 2 });
    assert_eq!(check(&original, &[0.0, 0.0, f32::INFINITY, 4.0]), bad);
    assert_eq!(check(&original, &[0.0, 0.0, f32::NAN, 4.0]), bad);
    assert_eq!(check(&[1.0, 2.0, 0.0, 4.0], &[0.0, 1.0, 3.0, 0.0]), bad);
    let short = Err(RowFault::Row { asked: 2, zeros: 1 });
    assert_eq!(check(&original, &[0.0, 1.0, 3.0, 4.0]), short);
}

#[test]
fn a_row_as_it_should_be_is_counted() {
    let of_row = check(HALF, &[1.0, -0.0, 3.0, 4.0], &[0.0, -0.0, 3.0, 4.0]);
    let counts = Counts {
        weights: 4,
        zeros: 2,
        zeros_before: 1,
        ..Counts::default()
    };
    assert_eq!(of_row, Ok(counts));
}

#[test]
fn a_changed_weight_and_a_negative_zero_are_found_at_their_column() {
    let original = [1.0, 2.0, 3.0, 4.0];
    let changed = check(HALF, &original, &[0.0, 0.0, 3.5, 4.0]);
    assert_eq!(changed, Err(RowFault::Survivor { column: 2 }));
    let negative = check(HALF, &original, &[0.0, -0.0, 3.0, 4.0]);
    assert_eq!(negative, Err(RowFault::NegativeZero { column: 1 }));
}

#[test]
fn a_row_has_exactly_the_zeros_that_were_asked_for() {
    let original = [1.0, 2.0, 3.0, 4.0];
    for (output, zeros) in [([0.0, 2.0, 3.0, 4.0], 1), ([0.0, 0.0, 0.0, 4.0], 3)] {
        let fault = check(HALF, &original, &output);
        assert_eq!(fault, Err(RowFault::Row { asked: 2, zeros }));
    }
    // Zeros that were there before stay, also above what was asked.
    assert!(check(HALF, &[0.0, 0.0, 0.0, 4.0], &[0.0, 0.0, 0.0, 4.0]).is_ok());
}

#[test]
fn what_is_not_finite_stays_and_takes_no_zero_from_the_others() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    assert!(check(HALF, &[nan, 2.0, 3.0, 4.0], &[nan, 0.0, 0.0, 4.0]).is_ok());
    // Fewer finite weights than were to go: all of them went.
    assert!(check(HALF, &[nan, inf, 3.0, nan], &[nan, inf, 0.0, nan]).is_ok());
    let zeroed = check(HALF, &[nan, 2.0, 3.0, 4.0], &[0.0, 0.0, 3.0, 4.0]);
    assert_eq!(zeroed, Err(RowFault::NonFinite { column: 0 }));
    let all = check(HALF, &[1.0, 2.0, -inf, 4.0], &[0.0; 4]);
    assert_eq!(all, Err(RowFault::NonFinite { column: 2 }));
    // Another NaN is another weight.
    let other = f32::from_bits(nan.to_bits() ^ 1);
    let changed = check(HALF, &[nan, 2.0, 3.0, 4.0], &[other, 0.0, 0.0, 4.0]);
    assert_eq!(changed, Err(RowFault::NonFinite { column: 0 }));
    for output in [[nan, 2.0, 3.0, 4.0], [nan, 0.0, 0.0, 0.0]] {
        let zeros = output.iter().filter(|weight| **weight == 0.0).count();
        let fault = check(HALF, &[nan, 2.0, 3.0, 4.0], &output);
        assert_eq!(fault, Err(RowFault::Row { asked: 2, zeros }));
    }
    let pattern = Selection::Pattern(Pattern::new(1, 4).unwrap());
    assert!(check(pattern, &[nan, inf, 3.0, 4.0], &[nan, inf, 0.0, 0.0]).is_ok());
    let fault = check(pattern, &[nan, inf, 3.0, 4.0], &[nan, inf, 0.0, 4.0]);
    let (column, asked, zeros) = (0, 2, 1);
    assert_eq!(
        fault,
        Err(RowFault::Group {
            column,
            asked,
            zeros
        })
    );
}

#[test]
fn every_group_has_its_zeros_and_a_short_one_its_share() {
    let two_of_four = Selection::Pattern(Pattern::new(2, 4).unwrap());
    let original = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
    let good = [0.0, 2.0, 0.0, 4.0, 0.0, 6.0, 7.0];
    assert!(check(two_of_four, &original, &good).is_ok());
    // Four zeros in all, but not in their groups.
    let bad = [0.0, 2.0, 3.0, 4.0, 0.0, 0.0, 7.0];
    assert_eq!(
        check(two_of_four, &original, &bad),
        Err(RowFault::Group {
            column: 0,
            asked: 2,
            zeros: 1
        })
    );
}
