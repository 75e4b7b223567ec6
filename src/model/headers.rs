//! The tensors of a checkpoint, to hold a description against.

use super::block::{Linear, NormTensors};
use super::error::Error;
use crate::checkpoint::{Catalog, Checkpoint};
use crate::dtype::Dtype;

/// The headers of a checkpoint, to look names up in.
pub(super) struct Headers<'a> {
    checkpoint: &'a Checkpoint,
    catalog: Catalog<'a>,
}

impl<'a> Headers<'a> {
    pub(super) fn of(checkpoint: &'a Checkpoint) -> Self {
        Self {
            checkpoint,
            catalog: Catalog::of(checkpoint),
        }
    }

    /// Tensors there are.
    pub(super) fn len(&self) -> usize {
        self.catalog.len()
    }

    /// Whether there is one of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.catalog.get(name).is_some()
    }

    /// One whose name begins with `prefix`, if there is any.
    pub(super) fn starting_with(&self, prefix: &str) -> Option<&'a str> {
        let first = self.catalog.starting_with(prefix).next();
        first.map(|place| place.tensor.name.as_str())
    }

    /// Says what is wrong with a tensor, and in which file.
    pub(super) fn wrong(&self, tensor: &str, problem: String) -> Error {
        let file = match self.catalog.get(tensor) {
            Some(place) => self.checkpoint.shards[place.shard].path.clone(),
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
        match self.catalog.get(name).map(|place| place.tensor) {
            None => Err(self.wrong(name, "is missing".to_owned())),
            Some(tensor) if tensor.shape != shape => Err(self.wrong(
                name,
                format!(
                    "is {:?}, by config.json it would be {shape:?}",
                    tensor.shape
                ),
            )),
            Some(tensor) if Dtype::from_stored(tensor.dtype).is_none() => {
                let problem = format!("is {}, only BF16, F16 and F32 can be run", tensor.dtype);
                Err(self.wrong(name, problem))
            }
            Some(_) => Ok(()),
        }
    }

    /// Checks the tensors of a norm.
    pub(super) fn check_norm(&self, norm: &NormTensors) -> Result<(), Error> {
        let shape = norm.stored_shape();
        let mut tensors = norm.weight.iter().chain(&norm.bias);
        tensors.try_for_each(|tensor| self.check(tensor, &shape))
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
