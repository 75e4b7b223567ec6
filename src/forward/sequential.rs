//! Block by block on pruned blocks: the statistics of each block's inputs, after the blocks before it were pruned.
//!
//! A block is run twice. With its weights as they are its inputs are observed; with those that whoever observes makes of
//! them, all sequences go on to the next block. So the hidden states of all sequences are in memory at once.

use super::block;
use super::engine::Engine;
use super::error::Error;
use super::hidden::{HIDDEN_BYTES, longest};
use super::progress::{Meter, Watch};
use super::site_statistics::SiteStatistics;
use super::statistics::{Statistic, StatisticSums};
use super::weights::{WeightOverlay, WeightReader};
use crate::checkpoint::Checkpoint;
use crate::model::Architecture;

/// Has all sequences go through a block with these weights in the place of those in the files.
pub(crate) type GoOn<'g> = &'g mut dyn FnMut(&dyn WeightOverlay) -> Result<(), Error>;

/// Is handed the statistics of a block, and has the sequences go on.
pub(crate) type TakeBlock<'t, E> =
    &'t mut dyn FnMut(Vec<SiteStatistics>, GoOn<'_>) -> Result<(), E>;

/// Refuses more tokens than hidden states are held of.
pub(super) fn check(tokens: usize, hidden_size: usize) -> Result<(), Error> {
    let bytes = tokens.saturating_mul(4 * hidden_size);
    if bytes <= HIDDEN_BYTES {
        return Ok(());
    }
    Err(Error::TooManyTokens {
        tokens,
        bytes,
        limit: HIDDEN_BYTES,
        fit: HIDDEN_BYTES / (4 * hidden_size),
    })
}

/// Hands the statistics of each block to `take`, which has the sequences go on before the next one is observed.
pub(super) fn run<E: Engine, X: From<Error>>(
    engine: &E,
    (checkpoint, architecture): (&Checkpoint, &Architecture),
    statistics: &[Statistic],
    (sequences, mut hidden): (&[&[u32]], Vec<E::Tensor>),
    progress: &Watch<'_>,
    take: TakeBlock<'_, X>,
) -> Result<(), X> {
    let blocks = &architecture.blocks;
    let files = WeightReader::open(checkpoint, None)?;
    let in_flight = engine.in_flight(longest(sequences));
    let tokens = |sequences: &[&[u32]]| sequences.iter().map(|s| s.len()).sum();
    // Nothing reads what the last block gives.
    let mut meter = Meter::new(sequences, (2 * blocks.len()).saturating_sub(1), progress);
    let mut sums = StatisticSums::new(architecture);
    for (index, block) in blocks.iter().enumerate() {
        let dense = block::load(engine, &files, block)?;
        if let Some(next) = blocks.get(index + 1) {
            block::will_load(&files, next)?;
        }
        let chunks = hidden.chunks(in_flight).zip(sequences.chunks(in_flight));
        for (hidden, sequences) in chunks {
            let copies = hidden.iter().map(|x| engine.copy(x));
            let mut copies = copies.collect::<Result<Vec<_>, _>>()?;
            for observed in engine.run(&dense, &mut copies, block::pass(true))? {
                sums.add(index, &observed);
            }
            meter.step(tokens(sequences))?;
        }
        drop(dense);
        let of_block = SiteStatistics::of_block(architecture, index, statistics, sums.take(index))?;
        let mut go_on = |overlay: &dyn WeightOverlay| -> Result<(), Error> {
            if index + 1 == blocks.len() {
                return Ok(());
            }
            let weights = WeightReader::open(checkpoint, Some(overlay))?;
            let pruned = block::load(engine, &weights, block)?;
            let chunks = hidden.chunks_mut(in_flight);
            for (hidden, sequences) in chunks.zip(sequences.chunks(in_flight)) {
                engine.run(&pruned, hidden, block::pass(false))?;
                meter.step(tokens(sequences))?;
            }
            Ok(())
        };
        take(of_block, &mut go_on)?;
    }
    Ok(())
}
