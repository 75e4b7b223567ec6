//! Block by block on pruned blocks: the statistics of each block's inputs, after the blocks before it were pruned.
//!
//! A block is run twice. With its weights as they are its inputs are observed; with those that whoever observes makes of
//! them, all windows go on to the next block. So the hidden states of all windows are in memory at once.

use super::batch::{Batch, rows_of};
use super::block::{self, through};
use super::engine::Engine;
use super::error::Error;
use super::progress::{Meter, Watch};
use super::statistics::{BlockSums, SiteStatistics, Wanted};
use super::weights::{WeightOverlay, WeightReader};
use crate::checkpoint::Checkpoint;
use crate::model::Architecture;

/// Has all windows go through a block with these weights in the place of those in the files.
pub(crate) type GoOn<'g> = &'g mut dyn FnMut(&dyn WeightOverlay) -> Result<(), Error>;

/// Is handed the statistics of a block, and has the windows go on.
pub(crate) type TakeBlock<'t, E> =
    &'t mut dyn FnMut(Vec<SiteStatistics>, GoOn<'_>) -> Result<(), E>;

/// Refuses more tokens than there is room for hidden states, in bytes.
pub(super) fn check(tokens: usize, hidden_size: usize, room: usize) -> Result<(), Error> {
    let bytes = tokens.saturating_mul(4 * hidden_size);
    if bytes <= room {
        return Ok(());
    }
    Err(Error::TooManyTokens {
        tokens,
        bytes,
        limit: room,
        fit: room / (4 * hidden_size),
    })
}

/// Hands the statistics of each block to `take`, which has the windows go on before the next one is observed.
pub(super) fn run<E: Engine, X: From<Error>>(
    engine: &E,
    (checkpoint, architecture): (&Checkpoint, &Architecture),
    wanted: Wanted,
    mut batches: Vec<Batch<'_, E::Tensor>>,
    progress: &Watch<'_>,
    take: TakeBlock<'_, X>,
) -> Result<(), X> {
    let blocks = &architecture.blocks;
    let files = WeightReader::open(checkpoint, None)?;
    let in_flight = engine.in_flight(rows_of(&batches));
    let tokens = |batches: &[Batch<'_, E::Tensor>]| batches.iter().map(Batch::tokens).sum();
    // Nothing reads what the last block gives.
    let layers = (2 * blocks.len()).saturating_sub(1);
    let mut meter = Meter::new(tokens(&batches), layers, progress);
    for (index, block) in blocks.iter().enumerate() {
        let dense = block::load(engine, &files, block)?;
        if let Some(next) = blocks.get(index + 1) {
            block::will_load(&files, next)?;
        }
        let inputs = block.input_kinds();
        let mut sums = BlockSums::default();
        for batches in batches.chunks_mut(in_flight) {
            for observed in through(engine, &dense, Some(&inputs), batches, false)? {
                sums.add(observed);
            }
            meter.step(tokens(batches))?;
        }
        drop(dense);
        let of_block = SiteStatistics::of_block(architecture.sites_of(index), wanted, sums)?;
        let mut go_on = |overlay: &dyn WeightOverlay| -> Result<(), Error> {
            if index + 1 == blocks.len() {
                return Ok(());
            }
            let weights = WeightReader::open(checkpoint, Some(overlay))?;
            let pruned = block::load(engine, &weights, block)?;
            for batches in batches.chunks_mut(in_flight) {
                through(engine, &pruned, None, batches, true)?;
                meter.step(tokens(batches))?;
            }
            Ok(())
        };
        take(of_block, &mut go_on)?;
    }
    Ok(())
}
