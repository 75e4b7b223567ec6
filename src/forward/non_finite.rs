//! Why activations are no numbers: the first weight on their way that is none, or the first place where they are none.

use std::collections::BTreeSet;

use super::Forward;
use super::batch::longest;
use super::error::Error;
use super::weights::WeightReader;
use crate::model::{Linear, NormTensors, Vector, Visitor};

impl Forward<'_> {
    /// An error of a pass over `windows`; where it is that activations are not finite, with the weight that is why. The files
    /// are read again for that, and where all their weights are finite, losses are told from which block on there are none.
    pub(super) fn explained(&self, error: Error, windows: &[&[u32]]) -> Error {
        let Error::NotFinite { at } = error else {
            return error;
        };
        match self.first_non_finite_weight(windows) {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return error,
        }
        let is_head = at == self.architecture.lm_head;
        match is_head.then(|| self.observed(windows)) {
            Some(Err(error @ Error::NotFinite { .. })) => error,
            _ => Error::NotFinite { at },
        }
    }

    /// The error of the first weight in the order of the pass that is not finite. Of embeddings, the rows count that the
    /// windows take.
    fn first_non_finite_weight(&self, windows: &[&[u32]]) -> Result<Option<Error>, Error> {
        let weights = WeightReader::open(self.checkpoint, self.overlay)?;
        let architecture = self.architecture;
        let error = |name: &str| -> Result<Option<Error>, Error> {
            Ok(Some(Error::NotFiniteWeight {
                file: weights.path(name)?,
                tensor: name.to_owned(),
            }))
        };
        let tokens: BTreeSet<u32> = windows.iter().copied().flatten().copied().collect();
        for token in tokens {
            let row = weights.read_rows(&architecture.embedding, token as usize, 1)?;
            if row.iter().any(|x| !x.is_finite()) {
                return error(&architecture.embedding);
            }
        }
        if let Some(table) = &architecture.position_embedding {
            let rows = weights.read_rows(&table.tensor, table.offset, longest(windows))?;
            if rows.iter().any(|x| !x.is_finite()) {
                return error(&table.tensor);
            }
        }
        let mut seen = BTreeSet::new();
        for name in self.names_in_order()? {
            if seen.insert(name.clone()) && !weights.is_finite(&name)? {
                return error(&name);
            }
        }
        Ok(None)
    }

    /// The tensors between the embedding and the logits, block by block.
    fn names_in_order(&self) -> Result<Vec<String>, Error> {
        let architecture = self.architecture;
        let mut names = Names(Vec::new());
        let projections = architecture.embedding_projections.as_ref();
        if let Some([inwards, _]) = projections {
            names.linear(inwards)?;
        }
        if let Some(norm) = &architecture.embedding_norm {
            names.norm(norm)?;
        }
        for block in &architecture.blocks {
            block.visit(&mut names)?;
        }
        names.norm(&architecture.final_norm)?;
        if let Some([_, outwards]) = projections {
            names.linear(outwards)?;
        }
        names.0.push(architecture.lm_head.clone());
        names.0.extend(architecture.lm_head_bias.clone());
        Ok(names.0)
    }
}

/// The tensors that it was shown.
struct Names(Vec<String>);

impl Visitor for Names {
    type Error = Error;

    fn linear(&mut self, linear: &Linear) -> Result<(), Error> {
        self.0.push(linear.weight.clone());
        self.0.extend(linear.bias.clone());
        Ok(())
    }

    fn norm(&mut self, norm: &NormTensors) -> Result<(), Error> {
        let of_norm = norm.weight.iter().chain(&norm.bias);
        self.0.extend(of_norm.flat_map(|name| norm.tensors(name)));
        Ok(())
    }

    fn vector(&mut self, vector: &Vector) -> Result<(), Error> {
        self.0.push(vector.tensor.clone());
        Ok(())
    }
}
