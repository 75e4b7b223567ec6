//! The head: the losses of tokens, from logits that are made for a piece of the vocabulary at a time.

use super::batch::Batch;
use super::block::each_chunk;
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

/// Makes what the head reads of hidden states: their norm, on the way back to the width of the embedding where that is another.
pub(super) fn finish<E: Engine>(
    engine: &E,
    weights: &WeightReader<'_>,
    architecture: &Architecture,
    batches: &mut [Batch<'_, E::Tensor>],
) -> Result<(), Error> {
    let norm = engine.load_norm(weights, &architecture.final_norm)?;
    let projection = architecture.embedding_projections.as_ref();
    let projection = projection
        .map(|[_, outwards]| engine.load_matrix(weights, outwards))
        .transpose()?;
    each_chunk(engine, batches, |step, x| {
        let normed = engine.norm(step, &norm, x)?;
        *x = match &projection {
            Some(projection) => engine.product(step, projection, &normed)?,
            None => normed,
        };
        Ok(())
    })
}

/// The losses of some windows, from their hidden states after the last block: of every token but the first of each.
pub(super) fn losses<E: Engine>(
    engine: &E,
    weights: &WeightReader<'_>,
    architecture: &Architecture,
    mut batches: Vec<Batch<'_, E::Tensor>>,
) -> Result<Vec<Vec<f32>>, Error> {
    let Architecture {
        embedding_size,
        vocab_size,
        ..
    } = *architecture;
    finish(engine, weights, architecture, &mut batches)?;
    let chunks: Vec<(&E::Tensor, Vec<u32>)> = (batches.iter())
        .flat_map(|batch| {
            batch
                .chunks
                .iter()
                .map(|chunk| (&chunk.x, batch.next_tokens(chunk)))
        })
        .collect();
    let chunks: Vec<(&E::Tensor, &[u32])> = chunks
        .iter()
        .map(|(x, next)| (*x, next.as_slice()))
        .collect();
    let mut sums: Vec<Vec<LogSumExp>> = chunks
        .iter()
        .map(|(_, next)| vec![LogSumExp::default(); next.len()])
        .collect();
    let rows = chunks.iter().map(|(_, next)| next.len()).max().unwrap_or(0);
    let in_flight = engine.in_flight(rows);
    let piece = (HEAD_BYTES / (4 * embedding_size.max(rows * in_flight))).max(1);
    let head = &architecture.lm_head;
    for first in (0..vocab_size).step_by(piece) {
        let rows = first..(first + piece).min(vocab_size);
        let part = lm_head_part(weights, architecture, first, rows.len())?;
        for (chunks, sums) in chunks.chunks(in_flight).zip(sums.chunks_mut(in_flight)) {
            let partials = engine.partial_losses(&part, chunks)?;
            for ((partials, (_, next)), sums) in partials.iter().zip(chunks).zip(sums) {
                for ((partial, next), sum) in partials.iter().zip(*next).zip(sums) {
                    sum.add(partial, rows.contains(&(*next as usize)));
                }
            }
        }
    }
    // By window again.
    let mut sums = sums.into_iter();
    let mut losses = Vec::new();
    for batch in &batches {
        let mut own = vec![Vec::new(); batch.windows.len()];
        for (chunk, sums) in batch.chunks.iter().zip(&mut sums) {
            for (span, own) in chunk.spans.iter().zip(&mut own) {
                let last = usize::from(!span.goes_on());
                let scored = span.row..span.end().saturating_sub(last).max(span.row);
                own.extend(sums[scored].iter().map(LogSumExp::loss));
            }
        }
        losses.extend(own);
    }
    if losses.iter().flatten().any(|loss| !loss.is_finite()) {
        return Err(Error::NotFinite { at: head.clone() });
    }
    Ok(losses)
}
