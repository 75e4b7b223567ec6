//! The tensors of a checkpoint, to hold a description against.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::block::{Linear, NormTensors};
use super::error::Error;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::dtype::Dtype;

/// The headers of a checkpoint, to look names up in.
pub(super) struct Headers<'a> {
    checkpoint: &'a Checkpoint,
    by_name: BTreeMap<&'a str, (usize, &'a Tensor)>,
}

impl<'a> Headers<'a> {
    pub(super) fn of(checkpoint: &'a Checkpoint) -> Self {
        let by_name = checkpoint
            .tensors()
            .map(|(shard, tensor)| (tensor.name.as_str(), (shard, tensor)))
            .collect();
        Self {
            checkpoint,
            by_name,
        }
    }

    /// Tensors there are.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is one of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// One whose name begins with `prefix`, if there is any.
    pub(super) fn starting_with(&self, prefix: &str) -> Option<&'a str> {
        let mut from = self
            .by_name
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.next()
            .map(|(name, _)| *name)
            .filter(|name| name.starts_with(prefix))
    }

    /// Says what is wrong with a tensor, and in which file.
    pub(super) fn wrong(&self, tensor: &str, problem: String) -> Error {
        let file = match self.by_name.get(tensor) {
            Some((shard, _)) => self.checkpoint.shards[*shard].path.clone(),
            None => self.checkpoint.source.weights().path().to_path_buf(),
        };
        Error::Tensor {
            file,
            tensor: tensor.to_owned(),
            problem,
        }
    }

    /// Checks that a tensor is there, in this shape, as floats.
    pub(super) fn check(&self, name: &str, shape: &[usize]) -> Result<(), Error> {
        match self.by_name.get(name) {
            None => Err(self.wrong(name, "is missing".to_owned())),
            Some((_, tensor)) if tensor.shape != shape => Err(self.wrong(
                name,
                format!(
                    "is {:?}, by config.json it would be {shape:?}",
                    tensor.shape
                ),
            )),
            Some((_, tensor)) if Dtype::from_safetensors(tensor.dtype).is_none() => {
                let problem = format!("is {:?}, only BF16, F16 and F32 can be run", tensor.dtype);
                Err(self.wrong(name, problem))
            }
            Some(_) => Ok(()),
        }
    }

    /// Checks the tensors of a norm.
    pub(super) fn check_norm(&self, norm: &NormTensors) -> Result<(), Error> {
        self.check(&norm.weight, &[norm.features])?;
        match &norm.bias {
            Some(bias) => self.check(bias, &[norm.features]),
            None => Ok(()),
        }
    }

    /// Checks the tensors of a linear layer, and that no bias is left over.
    pub(super) fn check_linear(&self, linear: &Linear) -> Result<(), Error> {
        self.check(&linear.weight, &linear.stored_shape())?;
        match &linear.bias {
            Some(bias) => self.check(bias, &[linear.stored_features]),
            None => {
                let bias = linear.weight.replace(".weight", ".bias");
                if bias != linear.weight && self.has(&bias) {
                    let problem = "is a bias that config.json knows nothing of".to_owned();
                    return Err(self.wrong(&bias, problem));
                }
                Ok(())
            }
        }
    }
}
