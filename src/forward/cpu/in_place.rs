//! Values that change where they lie.
//!
//! candle's own operations on two tensors make a third, and wake a pool of threads of their own that spin while they wait.
//! Here the core that has the sequence does it, or its pool where that is idle.

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor};
use rayon::prelude::*;

/// Values that one task changes.
const TASK: usize = 1 << 14;

/// Changes the values of a contiguous tensor by a function of slices of them.
pub(super) fn change(x: &Tensor, change: impl Fn(&mut [f32]) + Sync) -> Result<()> {
    x.inplace_op1(&Change(change))
}

/// The same by a function that is also given the values at the same places of `other`, which has the same shape.
pub(super) fn change_by(
    x: &Tensor,
    other: &Tensor,
    change: impl Fn(&mut [f32], &[f32]) + Sync,
) -> Result<()> {
    if x.dims() != other.dims() {
        candle_core::bail!("{:?} is changed by {:?}", x.dims(), other.dims());
    }
    x.inplace_op2(other, &ChangeBy(change))
}

/// Adds `row` to each row of `x`, `[rows, features]`.
pub(super) fn add_to_rows(x: &Tensor, row: &Tensor) -> Result<()> {
    x.inplace_op2(row, &AddToRows)
}

/// `sum += x`.
pub(super) fn add(sum: &Tensor, x: &Tensor) -> Result<()> {
    change_by(sum, x, |sum, x| {
        sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
    })
}

/// `sum += scale x`.
pub(super) fn add_scaled(sum: &Tensor, scale: f32, x: &Tensor) -> Result<()> {
    change_by(sum, x, |sum, x| {
        // Rounded twice, as a product and a sum.
        sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x * scale);
    })
}

struct Change<F>(F);

impl<F: Fn(&mut [f32]) + Sync> InplaceOp1 for Change<F> {
    fn name(&self) -> &'static str {
        "change"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let tasks = values_mut(x, layout)?.par_chunks_mut(TASK);
        tasks.for_each(&self.0);
        Ok(())
    }
}

struct ChangeBy<F>(F);

impl<F: Fn(&mut [f32], &[f32]) + Sync> InplaceOp2 for ChangeBy<F> {
    fn name(&self) -> &'static str {
        "change-by"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        layout: &Layout,
        other: &CpuStorage,
        of_other: &Layout,
    ) -> Result<()> {
        let other = values(other, of_other)?.par_chunks(TASK);
        let tasks = values_mut(x, layout)?.par_chunks_mut(TASK);
        tasks.zip(other).for_each(|(x, other)| (self.0)(x, other));
        Ok(())
    }
}

struct AddToRows;

impl InplaceOp2 for AddToRows {
    fn name(&self) -> &'static str {
        "add-to-rows"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        layout: &Layout,
        row: &CpuStorage,
        of_row: &Layout,
    ) -> Result<()> {
        let row = values(row, of_row)?;
        let features = row.len().max(1);
        if layout.dims().last() != Some(&row.len()) {
            candle_core::bail!("a row of {} is added to {:?}", row.len(), layout.dims());
        }
        let rows = (TASK / features).max(1);
        let tasks = values_mut(x, layout)?.par_chunks_mut(rows * features);
        tasks.for_each(|x| {
            for x in x.chunks_exact_mut(features) {
                x.iter_mut().zip(row).for_each(|(x, y)| *x += y);
            }
        });
        Ok(())
    }
}

/// The values of a contiguous tensor.
pub(super) fn values<'x>(x: &'x CpuStorage, layout: &Layout) -> Result<&'x [f32]> {
    match (x, layout.contiguous_offsets()) {
        (CpuStorage::F32(x), Some((first, end))) => Ok(&x[first..end]),
        _ => candle_core::bail!("activations are contiguous, in f32"),
    }
}

/// The same, to be changed.
pub(super) fn values_mut<'x>(x: &'x mut CpuStorage, layout: &Layout) -> Result<&'x mut [f32]> {
    match (x, layout.contiguous_offsets()) {
        (CpuStorage::F32(x), Some((first, end))) => Ok(&mut x[first..end]),
        _ => candle_core::bail!("activations are contiguous, in f32"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn tensor(values: &[f32], rows: usize) -> Tensor {
        let shape = (rows, values.len() / rows);
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
    }

    fn numbers(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn sums_and_rows_are_added_where_they_lie() {
        // More values than a task has.
        let many = |scale: f32| (0..40_000).map(|i| scale * i as f32).collect::<Vec<f32>>();
        let sum = tensor(&many(1.0), 2);
        add(&sum, &tensor(&many(2.0), 2)).unwrap();
        add_scaled(&sum, 0.5, &tensor(&many(2.0), 2)).unwrap();
        assert_eq!(numbers(&sum), many(4.0));

        let x = tensor(&[1.0, 2.0, 3.0, 4.0], 2);
        add_to_rows(&x, &Tensor::new(&[10.0_f32, 20.0], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(numbers(&x), [11.0, 22.0, 13.0, 24.0]);
    }

    #[test]
    fn a_part_of_a_tensor_changes_alone() {
        let x = tensor(&[1.0, 2.0, 3.0, 4.0], 2);
        change(&x.narrow(0, 1, 1).unwrap(), |x| x.fill(0.0)).unwrap();
        assert_eq!(numbers(&x), [1.0, 2.0, 0.0, 0.0]);
    }

    #[test]
    fn shapes_that_differ_and_gaps_are_refused() {
        let x = tensor(&[1.0, 2.0, 3.0, 4.0], 2);
        assert!(add(&x, &tensor(&[1.0, 2.0], 1)).is_err());
        assert!(add_to_rows(&x, &Tensor::new(&[1.0_f32], &Device::Cpu).unwrap()).is_err());
        let column = x.narrow(1, 0, 1).unwrap();
        assert!(change(&column, |x| x.fill(0.0)).is_err());
    }
}
