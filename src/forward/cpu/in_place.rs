//! Values that change where they lie: on the core that has the tensor, or on all of them where they work on it together.

use rayon::prelude::*;

use super::activations::Activations;
use crate::forward::error::Error;

/// Values that one task changes.
const TASK: usize = 1 << 14;

/// Changes values by a function of slices of them.
pub(super) fn change(x: &mut Activations, change: impl Fn(&mut [f32]) + Sync) {
    x.values_mut().par_chunks_mut(TASK).for_each(&change);
}

/// Changes values by a function of whole parts of so many of them, some parts at a time.
pub(super) fn change_parts(x: &mut [f32], part: usize, change: impl Fn(&mut [f32]) + Sync) {
    let part = part.max(1);
    let parts = (TASK / part).max(1);
    x.par_chunks_mut(parts * part).for_each(&change);
}

/// Changes values by a function that is also given those at the same places of `other`.
///
/// # Errors
/// Another shape.
pub(super) fn change_by(
    x: &mut Activations,
    other: &Activations,
    change: impl Fn(&mut [f32], &[f32]) + Sync,
) -> Result<(), Error> {
    let (x, other) = x.beside(other)?;
    let tasks = x.par_chunks_mut(TASK).zip(other.par_chunks(TASK));
    tasks.for_each(|(x, other)| change(x, other));
    Ok(())
}

/// `sum += scale x`.
///
/// # Errors
/// Another shape.
pub(super) fn add_scaled(sum: &mut Activations, scale: f32, x: &Activations) -> Result<(), Error> {
    change_by(sum, x, |sum, x| {
        // Rounded twice, as a product and a sum.
        sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x * scale);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_change_where_they_lie_in_whole_parts() {
        // More values than a task has.
        let many = |scale: f32| (0..40_000).map(|i| scale * i as f32).collect::<Vec<f32>>();
        let mut sum = Activations::new(many(1.0), 20_000).unwrap();
        let x = Activations::new(many(2.0), 20_000).unwrap();
        add_scaled(&mut sum, 0.5, &x).unwrap();
        assert_eq!(sum.values(), many(2.0));
        change(&mut sum, |x| x.iter_mut().for_each(|x| *x *= 2.0));
        assert_eq!(sum.values(), many(4.0));
        change_parts(sum.values_mut(), 7_000, |parts| {
            assert!(parts.len() == 14_000 || parts.len() == 12_000);
        });
        assert!(add_scaled(&mut sum, 1.0, &Activations::zeros(1, 40_000)).is_err());
    }
}
