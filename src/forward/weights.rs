//! Weights on their way into the forward pass: read by name when they are needed, and not kept.

use bytemuck::Zeroable as _;
use half::{bf16, f16};
use rayon::prelude::*;

use super::Error;
use crate::checkpoint::{Checkpoint, Place, Reader};
use crate::dtype::Dtype;
use crate::model::{Block, Linear, NormTensors};

/// The data of a checkpoint.
pub(super) struct Weights<'a>(Reader<'a>);

/// One block's weights on a device: matrices `M`, norms `N`.
pub(super) struct BlockWeights<M, N> {
    pub(super) attention_norm: N,
    pub(super) projections: Vec<M>,
    pub(super) head_norms: Option<[N; 2]>,
    pub(super) output: M,
    pub(super) mlp_norm: N,
    pub(super) up: Vec<M>,
    pub(super) down: M,
    pub(super) window: Option<usize>,
}

impl<M, N> BlockWeights<M, N> {
    /// Brings each tensor to the device.
    pub(super) fn load(
        block: &Block,
        matrix: impl Fn(&Linear) -> Result<M, Error>,
        norm: impl Fn(&NormTensors) -> Result<N, Error>,
    ) -> Result<Self, Error> {
        let matrices =
            |linears: &[Linear]| -> Result<Vec<M>, Error> { linears.iter().map(&matrix).collect() };
        Ok(Self {
            attention_norm: norm(&block.attention_norm)?,
            projections: matrices(&block.projections)?,
            head_norms: match &block.head_norms {
                Some([q, k]) => Some([norm(q)?, norm(k)?]),
                None => None,
            },
            output: matrix(&block.output)?,
            mlp_norm: norm(&block.mlp_norm)?,
            up: matrices(&block.up)?,
            down: matrix(&block.down)?,
            window: block.window,
        })
    }
}

impl<'a> Weights<'a> {
    pub(super) fn open(checkpoint: &'a Checkpoint) -> Result<Self, Error> {
        Ok(Self(Reader::open(checkpoint)?))
    }

    /// A whole tensor as f32, row-major.
    pub(super) fn read(&self, name: &str) -> Result<Vec<f32>, Error> {
        let tensor = self.find(name)?.tensor;
        let elements = tensor.shape.iter().product();
        self.read_range(name, 0, elements)
    }

    /// Rows `first .. first + rows` of a matrix as f32.
    pub(super) fn read_rows(
        &self,
        name: &str,
        first: usize,
        rows: usize,
    ) -> Result<Vec<f32>, Error> {
        let tensor = self.find(name)?.tensor;
        let features: usize = tensor.shape.iter().skip(1).product();
        self.read_range(name, first * features, rows * features)
    }

    // The architecture was held against the headers, so an error is for a name that it forgot to check.
    fn find(&self, name: &str) -> Result<Place<'a>, Error> {
        Ok(self.0.find(name)?)
    }

    /// How a tensor's elements are stored.
    pub(super) fn dtype(&self, name: &str) -> Result<Dtype, Error> {
        let tensor = self.find(name)?.tensor;
        Dtype::from_stored(tensor.dtype).ok_or_else(|| Error::NoSuchTensor(name.to_owned()))
    }

    /// The bytes of a tensor from byte `first` on, as they are stored.
    pub(super) fn read_bytes(
        &self,
        name: &str,
        first: usize,
        bytes: &mut [u8],
    ) -> Result<(), Error> {
        Ok(self.0.read_range(&self.find(name)?, first as u64, bytes)?)
    }

    fn read_range(&self, name: &str, first: usize, elements: usize) -> Result<Vec<f32>, Error> {
        let dtype = self.dtype(name)?;
        let fill = |bytes: &mut [u8]| self.read_bytes(name, first * dtype.size(), bytes);
        Ok(match dtype {
            Dtype::F32 => {
                let mut floats = vec![0.0_f32; elements];
                fill(bytemuck::cast_slice_mut(&mut floats))?;
                floats
            }
            Dtype::Bf16 => {
                let mut halves = vec![bf16::zeroed(); elements];
                fill(bytemuck::cast_slice_mut(&mut halves))?;
                halves.into_par_iter().map(bf16::to_f32).collect()
            }
            Dtype::F16 => {
                let mut halves = vec![f16::zeroed(); elements];
                fill(bytemuck::cast_slice_mut(&mut halves))?;
                halves.into_par_iter().map(f16::to_f32).collect()
            }
        })
    }
}
