//! What stands for the parts of a description that hold weights, and how one description becomes another.
//!
//! As read from a model these are the names of tensors ([`Named`]); loaded by a device, they are its weights. Everything else,
//! such as the number of heads, goes along unchanged, so that the code that runs a block reads it from the same place.

use std::fmt::Debug;

use super::scan::{Convolution, ScanTensors};
use super::tensors::{Linear, NormTensors, Vector};

/// The types of the parts with weights.
pub(crate) trait Parts {
    /// A linear layer.
    type Linear: Clone + Debug + Send + Sync;
    /// A norm.
    type Norm: Clone + Debug + Send + Sync;
    /// A list of numbers for the device.
    type Vector: Clone + Debug + Send + Sync;
    /// A list of numbers that the host computes with.
    type Numbers: Clone + Debug + Send + Sync;
    /// A causal convolution of each channel for itself.
    type Convolution: Clone + Debug + Send + Sync;
    /// A recurrence along the tokens.
    type Scan: Clone + Debug + Send + Sync;
}

/// Parts as they are read from a model: the names of their tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named {}

impl Parts for Named {
    type Linear = Linear;
    type Norm = NormTensors;
    type Vector = Vector;
    type Numbers = Vector;
    type Convolution = Convolution;
    type Scan = ScanTensors;
}

/// Parts of which nothing is kept: for whoever only looks at them.
impl Parts for () {
    type Linear = ();
    type Norm = ();
    type Vector = ();
    type Numbers = ();
    type Convolution = ();
    type Scan = ();
}

/// Makes other parts out of named ones; it comes to them in the order in which a block computes with them.
pub(crate) trait Loader {
    /// What it makes.
    type Parts: Parts;
    /// Why it could not.
    type Error;

    fn linear(&mut self, linear: &Linear) -> Result<<Self::Parts as Parts>::Linear, Self::Error>;

    fn norm(&mut self, norm: &NormTensors) -> Result<<Self::Parts as Parts>::Norm, Self::Error>;

    fn vector(&mut self, vector: &Vector) -> Result<<Self::Parts as Parts>::Vector, Self::Error>;

    fn numbers(&mut self, numbers: &Vector)
    -> Result<<Self::Parts as Parts>::Numbers, Self::Error>;

    fn convolution(
        &mut self,
        convolution: &Convolution,
    ) -> Result<<Self::Parts as Parts>::Convolution, Self::Error>;

    fn scan(&mut self, scan: &ScanTensors) -> Result<<Self::Parts as Parts>::Scan, Self::Error>;
}

/// Looks at every tensor of a description.
pub(crate) trait Visitor {
    /// Why it does not go on.
    type Error;

    /// A linear layer: its weight and its bias.
    fn linear(&mut self, linear: &Linear) -> Result<(), Self::Error>;

    /// A norm.
    fn norm(&mut self, norm: &NormTensors) -> Result<(), Self::Error>;

    /// Any other list of numbers.
    fn vector(&mut self, vector: &Vector) -> Result<(), Self::Error>;
}

/// A [`Visitor`] as the loader of nothing.
pub(super) struct Visit<'v, V>(pub(super) &'v mut V);

impl<V: Visitor> Loader for Visit<'_, V> {
    type Parts = ();
    type Error = V::Error;

    fn linear(&mut self, linear: &Linear) -> Result<(), V::Error> {
        self.0.linear(linear)
    }

    fn norm(&mut self, norm: &NormTensors) -> Result<(), V::Error> {
        self.0.norm(norm)
    }

    fn vector(&mut self, vector: &Vector) -> Result<(), V::Error> {
        self.0.vector(vector)
    }

    fn numbers(&mut self, numbers: &Vector) -> Result<(), V::Error> {
        self.0.vector(numbers)
    }

    fn convolution(&mut self, convolution: &Convolution) -> Result<(), V::Error> {
        convolution
            .vectors()
            .try_for_each(|vector| self.0.vector(vector))
    }

    fn scan(&mut self, scan: &ScanTensors) -> Result<(), V::Error> {
        scan.vectors().try_for_each(|vector| self.0.vector(vector))
    }
}
