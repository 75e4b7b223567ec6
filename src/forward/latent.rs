//! Latent projections, from an engine's primitives.

use super::engine::{Engine, LoadedLatent};
use super::error::Error;
use crate::model::LatentQuery;

/// Queries, keys and values of `x`. The narrow vectors are observed, as they are inputs too.
pub(super) fn heads<E: Engine>(
    engine: &E,
    sequence: &mut E::Sequence,
    latent: &LoadedLatent<E>,
    x: &E::Tensor,
) -> Result<E::Heads, Error> {
    let queries = match &latent.query {
        LatentQuery::Direct(query) => engine.product(sequence, query, x)?,
        LatentQuery::Latent { down, norm, up } => {
            let narrow = engine.product(sequence, down, x)?;
            let narrow = engine.norm(sequence, norm, &narrow)?;
            engine.observe(sequence, &narrow)?;
            engine.product(sequence, up, &narrow)?
        }
    };
    let rope_key = engine.product(sequence, &latent.rope_key, x)?;
    let narrow = engine.product(sequence, &latent.compression, x)?;
    let narrow = engine.norm(sequence, &latent.compression_norm, &narrow)?;
    engine.observe(sequence, &narrow)?;
    let keys_and_values = engine.product(sequence, &latent.expansion, &narrow)?;
    engine.heads_of_latents(
        sequence,
        latent.widths,
        &queries,
        &rope_key,
        &keys_and_values,
    )
}
