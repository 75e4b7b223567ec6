//! Rows compensated on an adapter: the steps of `compensation/compensate.rs` as kernels, on all rows of a chunk at once.
//!
//! A step is two thin products and one dispatch with a workgroup a row. What the steps leave for each other stays on the device:
//! weights go there, and values, errors and the mask come back.
//!
//! Memory on the device, whatever the matrix: [`PLANES`] floats a weight of a chunk of at most [`CHUNK_WEIGHTS`] weights (80 MiB),
//! `rank` floats a row, and `rank` floats a feature for each Hessian of the last [`RECENT`] inputs (twice that for a pattern).

use std::sync::Arc;

use wgpu::BufferUsages as Usage;

use super::kernels::{
    COMPENSATE, CompensateParams, PLANES, PRODUCT_PLANE, SUMS, VALUES_PLANE, WEIGHTS_PLANE,
};
use crate::compensation::{CompensatedRows, Compensator, Product};
use crate::device::error::Error;
use crate::device::gpu::Gpu;
use crate::device::gpu::dispatches::Work;
use crate::device::product::{Destination, Operand, PRODUCT, Weights, product};
use crate::device::recorder::{Recorder, Recording};
use crate::device::storage::{buffer, filled};
use crate::dtype::Dtype;
use crate::mask::Mask;
use crate::passes::fused::GROUPS;
use crate::passes::params::Binding;
use crate::recipe::{Factors, Recipe, Rows};
use crate::selection::Selection;

/// Weights that are compensated together at most; each takes [`PLANES`] floats on the device.
const CHUNK_WEIGHTS: usize = 4 << 20;

/// Inputs whose Hessians stay on the device: weights that read the same one follow each other closely in a file.
const RECENT: usize = 2;

/// Compensates rows on an adapter.
pub(crate) struct RowCompensator<'a> {
    gpu: &'a Gpu,
    recorder: Recorder<'a>,
    rows: Option<RowBuffers>,
    /// The latest first.
    recent: Vec<(Arc<Compensator>, HessianBuffers)>,
}

/// What belongs to the rows of a chunk. They only ever grow.
struct RowBuffers {
    /// Of so many weights, rows, words of mask, and numbers of the thin products.
    sizes: [usize; 4],
    planes: wgpu::Buffer,
    thin: wgpu::Buffer,
    mask: wgpu::Buffer,
    sums: wgpu::Buffer,
}

/// `H`, and the inverse that chooses masks.
struct HessianBuffers {
    product: ProductBuffers,
    inverse: Option<ProductBuffers>,
    /// Column factors of a mask that is chosen by values alone.
    ones: wgpu::Buffer,
}

/// `D + s V V^T`.
struct ProductBuffers {
    diagonal: wgpu::Buffer,
    vectors: wgpu::Buffer,
    rank: usize,
    sign: f32,
}

/// One chunk on its way.
struct Chunk<'r, 'a> {
    recorder: &'r Recorder<'a>,
    recording: &'r mut Recording,
    buffers: &'r RowBuffers,
    shape: [usize; 2],
}

/// Rows of so many weights that can be compensated together, with a sketch of this rank.
pub(crate) fn chunk_rows(gpu: &Gpu, in_features: usize, rank: usize) -> usize {
    let context = gpu.context();
    let largest = usize::try_from(context.largest_buffer() / 4).unwrap_or(usize::MAX);
    let groups = context.limits.max_compute_workgroups_per_dimension as usize;
    let weights = CHUNK_WEIGHTS.min(largest / PLANES);
    let rows = weights / in_features.max(1);
    rows.min(largest / rank.max(1)).min(groups)
}

/// Bytes of the host that a chunk takes on its way: as f32, scaled, on its way there and back, its values.
pub(crate) fn host_memory(gpu: &Gpu, in_features: usize, rank: usize) -> u64 {
    5 * 4 * chunk_rows(gpu, in_features, rank) as u64 * in_features as u64
}

impl<'a> RowCompensator<'a> {
    /// For an adapter whose kernels have been tried (`probe.rs`).
    pub(crate) fn new(gpu: &'a Gpu) -> Self {
        let shaders = [&COMPENSATE.shader, &PRODUCT.shader, &GROUPS];
        Self {
            gpu,
            recorder: Recorder::new(gpu.context(), shaders),
            rows: None,
            recent: Vec::new(),
        }
    }

    /// Whether it can compensate rows that are selected so, with a Hessian of that size: where values choose the mask, that is a
    /// pattern, and a sketch has to fit a buffer.
    pub(crate) fn can_compensate(&self, compensator: &Compensator, selection: &Selection) -> bool {
        let is_known =
            compensator.inverse().is_none() || matches!(selection, Selection::Pattern(_));
        let bytes = 4 * compensator.product().vectors.len() as u64;
        is_known && bytes <= self.gpu.context().largest_buffer()
    }

    /// As [`Compensator::compensate`], for as many rows as [`chunk_rows`] says.
    pub(crate) fn compensate(
        &mut self,
        compensator: &Arc<Compensator>,
        selection: Selection,
        weights: &[f32],
        mask: &mut Mask,
    ) -> Result<CompensatedRows, Error> {
        let scaled = compensator.scaled(weights);
        let in_features = mask.in_features;
        self.upload_hessian(compensator)?;
        let Some((_, hessian)) = self.recent.first() else {
            return Err(self
                .gpu
                .context()
                .failed("nothing to compensate with".to_owned()));
        };
        let sizes = [
            scaled.len(),
            mask.rows,
            mask.words.len(),
            mask.rows * hessian.product.rank,
        ];
        let rows = grown(&mut self.rows, self.gpu, sizes);
        let by_value = Recipe {
            selection,
            factors: Factors::new(Vec::new(), None),
        };
        let as_stored = Rows::new(Dtype::F32, in_features, bytemuck::cast_slice(&scaled));
        let choice = self.gpu.fused(as_stored, 0, &by_value);
        self.recorder.submit(|recording| {
            let queue = &self.gpu.context().queue;
            let place = 4 * WEIGHTS_PLANE as u64 * scaled.len() as u64;
            queue.write_buffer(&rows.planes, place, bytemuck::cast_slice(&scaled));
            queue.write_buffer(&rows.mask, 0, bytemuck::cast_slice(&mask.words));
            let mut chunk = Chunk {
                recorder: &self.recorder,
                recording,
                buffers: rows,
                shape: [mask.rows, in_features],
            };
            chunk.prune_values();
            if let Some(inverse) = &hessian.inverse {
                chunk.choose(compensator, hessian, inverse, &choice);
            }
            chunk.descend(compensator.options().steps, &hessian.product);
        })?;
        let count = scaled.len();
        let values_at = VALUES_PLANE * count;
        let downloads = self.recorder.downloads(&[
            (&rows.planes, values_at..values_at + count),
            (&rows.sums, 0..SUMS * mask.rows),
            (&rows.mask, 0..mask.words.len()),
        ])?;
        let [values, sums, words] = &downloads[..] else {
            return Err(self.gpu.context().failed("buffers are missing".to_owned()));
        };
        mask.words.copy_from_slice(words);
        self.compensated(
            compensator,
            bytemuck::cast_slice(values),
            bytemuck::cast_slice(sums),
            mask,
        )
    }

    /// What came back, held against the mask.
    fn compensated(
        &self,
        compensator: &Compensator,
        values: &[f32],
        sums: &[f32],
        mask: &Mask,
    ) -> Result<CompensatedRows, Error> {
        let mut values = values.to_vec();
        for (row, values) in values.chunks_exact_mut(mask.in_features.max(1)).enumerate() {
            let pruned = (0..mask.in_features).filter(|&column| mask.prunes(row, column));
            for column in pruned {
                if values[column] != 0.0 {
                    let reason = "it filled a weight that is pruned".to_owned();
                    return Err(self.gpu.context().failed(reason));
                }
                values[column] = 0.0;
            }
        }
        compensator.unscale(&mut values);
        let of_rows = |place: usize| sums.iter().skip(place).step_by(SUMS).map(|&x| f64::from(x));
        let before = if compensator.inverse().is_some() {
            0
        } else {
            1
        };
        Ok(CompensatedRows {
            values,
            before: of_rows(before).collect(),
            after: of_rows(2).map(|left| left.max(0.0)).collect(),
        })
    }

    /// Has the Hessian of a compensator on the device, first among the recent ones.
    fn upload_hessian(&mut self, compensator: &Arc<Compensator>) -> Result<(), Error> {
        let found = self
            .recent
            .iter()
            .position(|(known, _)| Arc::ptr_eq(known, compensator));
        if let Some(found) = found {
            self.recent.swap(0, found);
            return Ok(());
        }
        let context = self.gpu.context();
        let _turn = context.turn();
        let upload = |product: &Product| ProductBuffers {
            diagonal: filled(context, "diagonal", &product.diagonal),
            rank: product.rank,
            vectors: filled(context, "vectors", &product.vectors),
            sign: product.sign,
        };
        let uploaded = HessianBuffers {
            product: upload(compensator.product()),
            inverse: compensator.inverse().map(upload),
            ones: filled(
                context,
                "ones",
                &vec![1.0_f32; compensator.product().diagonal.len()],
            ),
        };
        context.check()?;
        self.recent.insert(0, (Arc::clone(compensator), uploaded));
        self.recent.truncate(RECENT);
        Ok(())
    }
}

/// Buffers of these sizes at least.
fn grown<'r>(rows: &'r mut Option<RowBuffers>, gpu: &Gpu, sizes: [usize; 4]) -> &'r RowBuffers {
    let known = rows.as_ref().map_or([0; 4], |rows| rows.sizes);
    let is_small = known.iter().zip(&sizes).any(|(known, asked)| known < asked);
    if is_small {
        *rows = None;
    }
    rows.get_or_insert_with(|| {
        let mut larger = known;
        larger
            .iter_mut()
            .zip(sizes)
            .for_each(|(known, asked)| *known = asked.max(*known));
        let [weights, rows, words, thin] = larger;
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let room = |label, numbers: usize| buffer(gpu.context(), label, 4 * numbers as u64, usage);
        RowBuffers {
            sizes: larger,
            planes: room("planes", PLANES * weights),
            thin: room("thin", thin),
            mask: room("mask", words),
            sums: room("sums", SUMS * rows),
        }
    })
}

impl Chunk<'_, '_> {
    /// One kernel, with a workgroup a row; `diagonal` is that of what is multiplied with next.
    fn of_rows(&mut self, entry_point: &'static str, diagonal: Option<&wgpu::Buffer>) {
        let [rows, in_features] = self.shape;
        let params = CompensateParams {
            in_features: in_features as u32,
            plane: (rows * in_features) as u32,
            mask_words: Mask::words_per_row(in_features) as u32,
        };
        let bindings = COMPENSATE
            .shader
            .entry_points
            .iter()
            .find(|known| known.name == entry_point);
        let bindings = bindings.map_or(&[][..], |entry_point| entry_point.bindings);
        let of = |&binding: &u32| {
            let bound = match binding {
                1 => &self.buffers.planes,
                2 => diagonal?,
                3 => &self.buffers.mask,
                4 => &self.buffers.sums,
                _ => return None,
            };
            Some((binding, bound))
        };
        let buffers: Vec<_> = bindings.iter().filter_map(of).collect();
        // A lane goes through its part of a row a few times.
        let steps = 4 * in_features.div_ceil(256);
        let groups = (rows, 1);
        self.recorder.dispatch(
            self.recording,
            entry_point,
            &params,
            &buffers,
            groups,
            steps,
        );
    }

    /// Adds the thin products of the input to where the diagonal's part is already.
    fn multiply(&mut self, by: &ProductBuffers) {
        let [rows, in_features] = self.shape;
        let (planes, thin) = (&self.buffers.planes, &self.buffers.thin);
        let input = (Operand::by_rows(planes, in_features), [rows, in_features]);
        let first = Weights::of_floats(Operand::by_terms(&by.vectors, by.rank), by.rank);
        let to_thin = Destination {
            buffer: thin,
            stride: by.rank,
            first: 0,
            add: false,
        };
        product(self.recorder, self.recording, input, &first, to_thin);
        let second = Weights {
            scale: by.sign,
            ..Weights::of_floats(Operand::by_rows(&by.vectors, by.rank), in_features)
        };
        let to_product = Destination {
            buffer: planes,
            stride: in_features,
            first: PRODUCT_PLANE * rows * in_features,
            add: true,
        };
        let thin = (Operand::by_rows(thin, by.rank), [rows, by.rank]);
        product(self.recorder, self.recording, thin, &second, to_product);
    }

    fn prune_values(&mut self) {
        self.of_rows("prune_values", None);
    }

    /// Alternating directions: the mask, and values to go on from.
    fn choose(
        &mut self,
        compensator: &Compensator,
        hessian: &HessianBuffers,
        inverse: &ProductBuffers,
        choice: &Work,
    ) {
        let diagonal = Some(&hessian.product.diagonal);
        self.of_rows("input_error", diagonal);
        self.multiply(&hessian.product);
        self.of_rows("row_errors", None);
        self.of_rows("begin_directions", None);
        for _ in 0..compensator.options().mask_steps {
            self.of_rows("input_directions", Some(&inverse.diagonal));
            self.multiply(inverse);
            self.of_rows("score_directions", None);
            for &(entry_point, (x, y)) in &choice.dispatches {
                let of = |&binding: &u32| {
                    let bound = match Binding::ALL[binding as usize] {
                        Binding::Weights => &self.buffers.planes,
                        Binding::Factors => &hessian.ones,
                        Binding::Result => &self.buffers.mask,
                        _ => return None,
                    };
                    Some((binding, bound))
                };
                let buffers: Vec<_> = entry_point.bindings.iter().filter_map(of).collect();
                let groups = (x as usize, y as usize);
                let (name, params) = (entry_point.name, &choice.params);
                // Eight weights a lane (`passes/eight.wgsl`).
                self.recorder
                    .dispatch(self.recording, name, params, &buffers, groups, 8);
            }
        }
        self.of_rows("end_directions", None);
    }

    /// Conjugate gradients from the values.
    fn descend(&mut self, steps: usize, product: &ProductBuffers) {
        let diagonal = Some(&product.diagonal);
        self.of_rows("input_error", diagonal);
        self.multiply(product);
        self.of_rows("begin_descent", diagonal);
        for _ in 0..steps {
            self.multiply(product);
            self.of_rows("descend", diagonal);
        }
    }
}
