//! The tensors of a checkpoint, to hold a description against.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::error::Error;
use super::tensors::{Linear, NormTensors, Vector};
use crate::checkpoint::{Catalog, Checkpoint, Place};
use crate::dtype::Dtype;

/// The headers of a checkpoint, to look names up in.
pub(super) struct Headers<'a> {
    checkpoint: &'a Checkpoint,
    catalog: Catalog<'a>,
    /// Names that were looked up and are none.
    not_found: RefCell<BTreeSet<String>>,
}

impl<'a> Headers<'a> {
    pub(super) fn of(checkpoint: &'a Checkpoint) -> Self {
        Self {
            checkpoint,
            catalog: Catalog::of(checkpoint),
            not_found: RefCell::default(),
        }
    }

    fn get(&self, name: &str) -> Option<Place<'a>> {
        let place = self.catalog.get(name);
        if place.is_none() {
            self.not_found.borrow_mut().insert(name.to_owned());
        }
        place
    }

    /// Whether a name was looked up in vain: a tensor that the model would have.
    pub(super) fn was_not_found(&self, name: &str) -> bool {
        self.not_found.borrow().contains(name)
    }

    /// Tensors there are.
    pub(super) fn len(&self) -> usize {
        self.catalog.len()
    }

    /// Whether there is one of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The shape of the one of this name, if there is one.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        let place = self.get(name)?;
        Some(&place.tensor.shape)
    }

    /// One whose name begins with `prefix`, if there is any.
    pub(super) fn starting_with(&self, prefix: &str) -> Option<&'a str> {
        let mut places = self.catalog.starting_with(prefix);
        places.next().map(|place| place.tensor.name.as_str())
    }

    /// Says what is wrong with a tensor, and in which file.
    pub(super) fn wrong(&self, tensor: &str, problem: String) -> Error {
        let file = match self.catalog.get(tensor) {
            Some(place) => place.path.to_path_buf(),
            None => self.checkpoint.source.weights().path().to_path_buf(),
        };
        Error::Tensor {
            file,
            tensor: tensor.to_owned(),
            problem,
        }
    }

    /// Checks that a tensor is there.
    pub(super) fn require(&self, name: &str) -> Result<(), Error> {
        if self.has(name) {
            Ok(())
        } else {
            Err(self.wrong(name, "is missing".to_owned()))
        }
    }

    /// Checks that a tensor is there, in this shape, as floats.
    pub(super) fn check(&self, name: &str, shape: &[usize]) -> Result<(), Error> {
        let place = self.get(name);
        let place = place.ok_or_else(|| self.wrong(name, "is missing".to_owned()))?;
        let (found, dtype) = (&place.tensor.shape, place.tensor.dtype);
        if found != shape {
            let problem = format!("is {found:?}, by config.json it would be {shape:?}");
            return Err(self.wrong(name, problem));
        }
        if Dtype::from_stored(dtype).is_none() {
            let problem = format!("is {dtype:?}, only BF16, F16 and F32 can be run");
            return Err(self.wrong(name, problem));
        }
        Ok(())
    }

    /// Checks the tensors of a norm.
    pub(super) fn check_norm(&self, norm: &NormTensors) -> Result<(), Error> {
        let shape = norm.stored_shape();
        let named = norm.weight.iter().chain(&norm.bias);
        let mut tensors = named.flat_map(|name| norm.tensors(name));
        tensors.try_for_each(|tensor| self.check(&tensor, &shape))
    }

    /// Checks a list of numbers.
    pub(super) fn check_vector(&self, vector: &Vector) -> Result<(), Error> {
        self.check(&vector.tensor, &vector.shape)
    }

    /// Checks the tensors of a linear layer, and that no bias is left over.
    pub(super) fn check_linear(&self, linear: &Linear) -> Result<(), Error> {
        self.check(&linear.weight, &linear.stored_shape())?;
        match &linear.bias {
            Some(bias) => self.check(bias, &linear.stored_bias_shape()),
            None => {
                let bias = linear.weight.replace(".weight", ".bias");
                // Not a name that the model has.
                if bias != linear.weight && self.catalog.get(&bias).is_some() {
                    let problem = "is a bias, but config.json says that there is none".to_owned();
                    return Err(self.wrong(&bias, problem));
                }
                Ok(())
            }
        }
    }
}
