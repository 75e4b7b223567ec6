//! The head: the losses of tokens, from logits that are made for a piece of the vocabulary at a time.

use super::engine::{Engine, LmHeadPart, PartialLoss};
use super::error::Error;
use super::weights::WeightReader;
use crate::model::Architecture;

/// Bytes of f32 that a piece of the head may take, and of its logits.
const HEAD_BYTES: usize = 64 << 20;

/// A softmax's denominator, gathered piece by piece, and the logit it is for.
#[derive(Clone, Copy, Debug)]
struct LogSumExp {
    largest: f32,
    /// Of `exp(logit - largest)`.
    sum: f64,
    target: f32,
}

impl Default for LogSumExp {
    fn default() -> Self {
        Self {
            largest: f32::NEG_INFINITY,
            sum: 0.0,
            target: f32::NAN,
        }
    }
}

impl LogSumExp {
    fn add(&mut self, partial: &PartialLoss, has_target: bool) {
        let largest = self.largest.max(partial.largest);
        let assignment = |sum: f64, of: f32| sum * f64::from(of - largest).exp();
        self.sum = assignment(self.sum, self.largest)
            + assignment(f64::from(partial.sum), partial.largest);
        self.largest = largest;
        if has_target {
            self.target = partial.target;
        }
    }

    fn loss(&self) -> f32 {
        (f64::from(self.largest) + self.sum.ln() - f64::from(self.target)) as f32
    }
}

/// Rows of the head from number `first` on, so that the logits come out scaled.
pub(super) fn lm_head_part(
    weights: &WeightReader<'_>,
    architecture: &Architecture,
    first: usize,
    rows: usize,
) -> Result<LmHeadPart, Error> {
    let scale = architecture.logit_scale;
    let read = |name: &String| -> Result<Vec<f32>, Error> {
        let mut values = weights.read_rows(name, first, rows)?;
        if scale != 1.0 {
            values.iter_mut().for_each(|x| *x *= scale);
        }
        Ok(values)
    };
    Ok(LmHeadPart {
        first,
        rows: read(&architecture.lm_head)?,
        bias: architecture.lm_head_bias.as_ref().map(read).transpose()?,
    })
}

/// What the head reads of hidden states: their norm, on the way back to the width of the embedding where that is another.
pub(super) fn finished<E: Engine>(
    engine: &E,
    weights: &WeightReader<'_>,
    architecture: &Architecture,
    mut hidden: Vec<E::Tensor>,
) -> Result<Vec<E::Tensor>, Error> {
    let norm = engine.load_norm(weights, &architecture.final_norm)?;
    for hidden in &mut hidden {
        *hidden = engine.normalise(&norm, hidden)?;
    }
    if let Some([_, outwards]) = &architecture.embedding_projections {
        let projection = engine.load_matrix(weights, outwards)?;
        for hidden in &mut hidden {
            let tokens = engine.tokens(hidden)?;
            let sum = engine.embed(vec![0.0; tokens * outwards.out_features], tokens)?;
            *hidden = engine.project(&projection, hidden, sum)?;
        }
    }
    Ok(hidden)
}

/// The losses of some sequences, at most of `context` tokens each, from their hidden states: of every token but the first.
pub(super) fn losses<E: Engine>(
    engine: &E,
    weights: &WeightReader<'_>,
    architecture: &Architecture,
    sequences: &[&[u32]],
    context: usize,
    hidden: Vec<E::Tensor>,
) -> Result<Vec<Vec<f32>>, Error> {
    let Architecture {
        embedding_size,
        vocab_size,
        ..
    } = *architecture;
    let hidden = finished(engine, weights, architecture, hidden)?;
    let next: Vec<&[u32]> = sequences
        .iter()
        .map(|sequence| &sequence[1.min(sequence.len())..])
        .collect();
    let mut sums: Vec<Vec<LogSumExp>> = next
        .iter()
        .map(|next| vec![LogSumExp::default(); next.len()])
        .collect();
    let in_flight = engine.in_flight(context);
    let piece = (HEAD_BYTES / (4 * embedding_size.max(context * in_flight))).max(1);
    let head = &architecture.lm_head;
    for first in (0..vocab_size).step_by(piece) {
        let rows = first..(first + piece).min(vocab_size);
        let part = lm_head_part(weights, architecture, first, rows.len())?;
        let chunks = hidden
            .chunks(in_flight)
            .zip(next.chunks(in_flight))
            .zip(sums.chunks_mut(in_flight));
        for ((hidden, next), sums) in chunks {
            let partials = engine.partial_losses(&part, hidden, next)?;
            for ((partials, next), sums) in partials.iter().zip(next).zip(sums) {
                for ((partial, next), sum) in partials.iter().zip(*next).zip(sums) {
                    sum.add(partial, rows.contains(&(*next as usize)));
                }
            }
        }
    }
    let losses: Vec<Vec<f32>> = sums
        .iter()
        .map(|sums| sums.iter().map(LogSumExp::loss).collect())
        .collect();
    if losses.iter().flatten().any(|loss| !loss.is_finite()) {
        return Err(Error::NotFinite { at: head.clone() });
    }
    Ok(losses)
}
