//! Why activations are no numbers: the first weight on their way that is none, or the first place where they are none.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::Forward;
use super::error::Error;
use super::weights::WeightReader;
use crate::model::NormTensors;

impl Forward<'_> {
    /// An error of a pass over `sequences`; where it is that activations are not finite, with the weight that is why. The files
    /// are read again for that, and where all their weights are finite, losses are told from which block on there are none.
    pub(super) fn explained(&self, error: Error, sequences: &[&[u32]]) -> Error {
        let Error::NotFinite { at } = error else {
            return error;
        };
        match self.first_non_finite_weight(sequences) {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return error,
        }
        let is_head = at == self.architecture.lm_head;
        match is_head.then(|| self.observed(sequences)) {
            Some(Err(error @ Error::NotFinite { .. })) => error,
            _ => Error::NotFinite { at },
        }
    }

    /// The error of the first weight in the order of the pass that is not finite. Of embeddings, the rows count that the
    /// sequences take.
    fn first_non_finite_weight(&self, sequences: &[&[u32]]) -> Result<Option<Error>, Error> {
        let weights = WeightReader::open(self.checkpoint, self.overlay)?;
        let architecture = self.architecture;
        let error = |name: &str| -> Result<Option<Error>, Error> {
            Ok(Some(Error::NotFiniteWeight {
                file: weights.path(name)?,
                tensor: name.to_owned(),
            }))
        };
        let tokens: BTreeSet<u32> = sequences.iter().copied().flatten().copied().collect();
        for token in tokens {
            let row = weights.read_rows(&architecture.embedding, token as usize, 1)?;
            if row.iter().any(|x| !x.is_finite()) {
                return error(&architecture.embedding);
            }
        }
        if let Some(table) = &architecture.position_embedding {
            let rows = weights.read_rows(&table.tensor, table.offset, super::longest(sequences))?;
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
        let names = RefCell::new(Vec::new());
        let see = |name: &String| names.borrow_mut().push(name.clone());
        let see_norm = |norm: &NormTensors| {
            let of_norm = norm.weight.iter().chain(&norm.bias);
            names
                .borrow_mut()
                .extend(of_norm.flat_map(|name| norm.tensors(name)));
            Ok::<_, Error>(())
        };
        let projections = architecture.embedding_projections.as_ref();
        projections
            .iter()
            .for_each(|[inwards, _]| see(&inwards.weight));
        architecture.embedding_norm.iter().try_for_each(see_norm)?;
        for block in &architecture.blocks {
            block.try_map(
                |linear| {
                    see(&linear.weight);
                    linear.bias.iter().for_each(see);
                    Ok::<_, Error>(())
                },
                see_norm,
                |vector| {
                    see(&vector.tensor);
                    Ok(())
                },
            )?;
        }
        see_norm(&architecture.final_norm)?;
        projections
            .iter()
            .for_each(|[_, outwards]| see(&outwards.weight));
        see(&architecture.lm_head);
        architecture.lm_head_bias.iter().for_each(see);
        Ok(names.into_inner())
    }
}
