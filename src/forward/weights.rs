//! Weights on their way into the forward pass: read by name when they are needed, and not kept.
//!
//! However a linear layer is stored, an engine gets it as `[out_features, in_features]`.

use std::path::PathBuf;

use bytemuck::Zeroable as _;
use half::{bf16, f16};
use rayon::prelude::*;

use super::error::Error;
use crate::checkpoint::{Checkpoint, Place, Reader};
use crate::dtype::Dtype;
use crate::model::{Linear, NormTensors};
use crate::names::rules::Layout;
use crate::untrusted::shown;

/// Elements that are looked at together.
const SCANNED: usize = 1 << 20;

/// Weights that take the place of those in the files, byte for byte as a file would hold them.
pub(crate) trait WeightOverlay: std::fmt::Debug + Sync {
    /// Fills `bytes` with those of a tensor from its byte `first` on; `false` for a tensor that stays as it is.
    ///
    /// # Errors
    /// [`Error::Overlay`].
    fn read(&self, tensor: &str, first: u64, bytes: &mut [u8]) -> Result<bool, Error>;
}

/// The data of a checkpoint, as the forward pass takes it.
pub(super) struct WeightReader<'a> {
    files: Reader<'a>,
    overlay: Option<&'a dyn WeightOverlay>,
}

impl<'a> WeightReader<'a> {
    pub(super) fn open(
        checkpoint: &'a Checkpoint,
        overlay: Option<&'a dyn WeightOverlay>,
    ) -> Result<Self, Error> {
        Ok(Self {
            files: Reader::open(checkpoint)?,
            overlay,
        })
    }

    /// How a tensor's elements are stored.
    pub(super) fn dtype(&self, name: &str) -> Result<Dtype, Error> {
        let stored = self.find(name)?.tensor.dtype;
        Dtype::from_stored(stored)
            .ok_or_else(|| Error::Engine(format!("{} is stored as {stored:?}", shown(name))))
    }

    /// Tells the system that a tensor will be read soon.
    pub(super) fn will_read(&self, name: &str) -> Result<(), Error> {
        self.files.will_read(&self.find(name)?);
        Ok(())
    }

    /// A whole tensor as f32, row-major.
    pub(super) fn read(&self, name: &str) -> Result<Vec<f32>, Error> {
        let tensor = self.find(name)?.tensor;
        let elements = tensor.shape.iter().product();
        self.read_elements(name, 0, elements)
    }

    /// Whether all elements of a tensor are finite.
    pub(super) fn is_finite(&self, name: &str) -> Result<bool, Error> {
        let tensor = self.find(name)?.tensor;
        let elements: usize = tensor.shape.iter().product();
        for first in (0..elements).step_by(SCANNED) {
            let part = self.read_elements(name, first, SCANNED.min(elements - first))?;
            if part.iter().any(|element| !element.is_finite()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The file that holds a tensor.
    pub(super) fn path(&self, name: &str) -> Result<PathBuf, Error> {
        Ok(self.find(name)?.path.to_path_buf())
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
        self.read_elements(name, first * features, rows * features)
    }

    /// The weights of a linear layer as f32, `[out_features, in_features]`.
    pub(super) fn read_matrix(&self, linear: &Linear) -> Result<Vec<f32>, Error> {
        let dtype = self.dtype(&linear.weight)?;
        let elements = linear.out_features * linear.in_features;
        as_f32(dtype, elements, |bytes| {
            self.read_features(linear, 0, bytes)
        })
    }

    /// Its bias as f32, `[out_features]`.
    pub(super) fn read_bias(&self, linear: &Linear) -> Result<Option<Vec<f32>>, Error> {
        let slice = linear.slice.map_or(0, |slice| slice.index);
        let first = linear.stored_feature(0);
        let last = linear.stored_feature(linear.out_features.saturating_sub(1));
        let read = |name: &String| -> Result<Vec<f32>, Error> {
            let before = slice * linear.stored_features + first;
            let spread = self.read_elements(name, before, last - first + 1)?;
            let own = (0..linear.out_features).map(|f| spread[linear.stored_feature(f) - first]);
            Ok(own.collect())
        };
        linear.bias.as_ref().map(read).transpose()
    }

    /// The factors of a norm, and its summands where they are stored, `[heads, features]` each.
    pub(super) fn read_norm(
        &self,
        norm: &NormTensors,
    ) -> Result<(Vec<f32>, Option<Vec<f32>>), Error> {
        let numbers = norm.heads * norm.features;
        let read = |name: &String| -> Result<Vec<f32>, Error> {
            let tensors = norm.tensors(name).into_iter();
            let parts: Vec<_> = tensors
                .map(|name| self.read(&name))
                .collect::<Result<_, _>>()?;
            Ok(parts.concat())
        };
        let mut factors = match &norm.weight {
            Some(name) => read(name)?,
            None => vec![1.0; numbers],
        };
        factors.iter_mut().for_each(|x| *x += norm.weight_offset);
        let summands = norm.bias.as_ref().map(read).transpose()?;
        Ok((factors, summands))
    }

    /// The weights of some output features of a linear layer from number `first` on, `[features, in_features]`, in the
    /// dtype that they are stored in; as many as there is room for.
    pub(super) fn read_features(
        &self,
        linear: &Linear,
        first: usize,
        bytes: &mut [u8],
    ) -> Result<(), Error> {
        let size = self.dtype(&linear.weight)?.size();
        let inputs = linear.in_features;
        let slice = linear.slice.map_or(0, |slice| slice.index);
        let before = slice * linear.stored_features * inputs;
        let features = bytes.len() / (inputs * size);
        match linear.layout {
            Layout::OutIn => {
                let mut done = 0;
                while done < features {
                    let stored = linear.stored_feature(first + done);
                    let run = linear.side_by_side(first + done).min(features - done);
                    let from = (before + stored * inputs) * size;
                    let to = done * inputs * size..(done + run) * inputs * size;
                    self.read_bytes(&linear.weight, from, &mut bytes[to])?;
                    done += run;
                }
                Ok(())
            }
            Layout::InOut if features == 0 => Ok(()),
            Layout::InOut => {
                // What is stored side by side is one term of every feature.
                let begin = linear.stored_feature(first);
                let last = linear.stored_feature(first + features - 1);
                let mut terms = vec![0; (last - begin + 1) * size];
                let owns = (first..first + features).map(|f| linear.stored_feature(f) - begin);
                let owns: Vec<usize> = owns.map(|own| own * size).collect();
                for term in 0..inputs {
                    let from = (before + term * linear.stored_features + begin) * size;
                    self.read_bytes(&linear.weight, from, &mut terms)?;
                    for (feature, &own) in owns.iter().enumerate() {
                        let to = (feature * inputs + term) * size;
                        bytes[to..to + size].copy_from_slice(&terms[own..own + size]);
                    }
                }
                Ok(())
            }
        }
    }

    // The architecture was held against the headers, so an error is for a name that it forgot to check.
    fn find(&self, name: &str) -> Result<Place<'a>, Error> {
        Ok(self.files.find(name)?)
    }

    /// The bytes of a tensor from byte `first` on, as they are stored.
    fn read_bytes(&self, name: &str, first: usize, bytes: &mut [u8]) -> Result<(), Error> {
        if let Some(overlay) = self.overlay
            && overlay.read(name, first as u64, bytes)?
        {
            return Ok(());
        }
        Ok((self.files).read_range(&self.find(name)?, first as u64, bytes)?)
    }

    fn read_elements(&self, name: &str, first: usize, elements: usize) -> Result<Vec<f32>, Error> {
        let dtype = self.dtype(name)?;
        as_f32(dtype, elements, |bytes| {
            self.read_bytes(name, first * dtype.size(), bytes)
        })
    }
}

/// So many elements as f32, of the bytes that `fill` reads.
fn as_f32(
    dtype: Dtype,
    elements: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<(), Error>,
) -> Result<Vec<f32>, Error> {
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
