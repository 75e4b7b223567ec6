//! The forward pass: statistics of a model's activations, and its losses, one decoder block in memory at a time.
//!
//! All sequences go through a block before the next one is read, so that a model larger than memory works: what is held
//! is a block in f32, and the hidden states of the sequences, [`HIDDEN_BYTES`] of them at a time. The head is read in
//! pieces of the vocabulary, whose log-sum-exps are merged.
//!
//! The trait `Engine` is what a device has to do; `cpu` does it with loops and the library for products, `gpu` with kernels of
//! its own. `block.rs` puts a block together from it, `loss.rs` the head.

mod block;
mod cpu;
mod engine;
mod error;
mod experts;
mod gpu;
mod hidden;
pub(crate) mod kernels;
mod latent;
mod loss;
mod mixer;
mod mlp;
mod non_finite;
mod peak;
mod progress;
mod recurrence;
mod sequential;
mod site_statistics;
mod statistics;
#[cfg(test)]
mod tests;
mod weights;

use crate::checkpoint::Checkpoint;
use crate::device::{self, Backend, Device};
use crate::model::Architecture;

use engine::Engine;
pub use error::Error;
pub use hidden::HIDDEN_BYTES;
use hidden::longest;
pub(crate) use peak::PeakProduct;
use progress::Meter;
pub use progress::{Progress, Watch, unwatched};
pub(crate) use sequential::{GoOn, TakeBlock};
pub use site_statistics::SiteStatistics;
use statistics::{Statistic, StatisticSums};
pub(crate) use weights::WeightOverlay;
use weights::WeightReader;

/// A checkpoint ready to run.
#[derive(Debug)]
pub struct Forward<'a> {
    checkpoint: &'a Checkpoint,
    architecture: &'a Architecture,
    device: &'a Device,
    means: bool,
    overlay: Option<&'a dyn WeightOverlay>,
}

/// Why a pass ended early that hands on what it observes.
enum Ended<X> {
    /// It failed itself.
    Forward(Error),
    /// Whoever was handed it ended it.
    Taken(X),
}

impl<X> From<Error> for Ended<X> {
    fn from(error: Error) -> Self {
        Self::Forward(error)
    }
}

/// What the forward pass comes to.
enum Seen<'a> {
    /// One sequence has shown these numbers in a block.
    Numbers(usize, &'a [f32]),
    /// All sequences of a group have been through a block.
    Block(usize),
}

/// Calls `$work` with the engine of the device, which takes `$statistics` of every layer's input.
macro_rules! with_engine {
    ($self:ident, $sequences:expr, $statistics:expr, |$engine:ident| $work:expr) => {{
        let architecture = $self.architecture;
        let context = $self.check($sequences)?;
        match $self.device.backend() {
            Backend::Cpu(cpu) => {
                let threads = cpu.threads();
                let $engine = cpu::CpuEngine::new(architecture, context, $statistics, threads)?;
                $work
            }
            Backend::Gpu(gpu) => {
                let adapter = gpu.context();
                let $engine = gpu::GpuEngine::new(architecture, context, $statistics, adapter)?;
                $work
            }
        }
    }};
}

impl<'a> Forward<'a> {
    /// A forward pass of `checkpoint`, which `architecture` was read from.
    #[must_use]
    pub fn new(
        checkpoint: &'a Checkpoint,
        architecture: &'a Architecture,
        device: &'a Device,
    ) -> Self {
        Self {
            checkpoint,
            architecture,
            device,
            means: false,
            overlay: None,
        }
    }

    /// The same, which takes the means of the inputs, too, if they are wanted.
    #[must_use]
    pub const fn with_means(self, means: bool) -> Self {
        Self { means, ..self }
    }

    /// The same, with these weights in the place of those in the files, where there are any.
    #[must_use]
    pub(crate) const fn with_overlay(self, overlay: Option<&'a dyn WeightOverlay>) -> Self {
        Self { overlay, ..self }
    }

    /// The statistics of every linear layer's input, summed over all tokens of all sequences, in the order of
    /// [`Architecture::sites`].
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn statistics(
        &self,
        sequences: &[&[u32]],
        progress: &Watch<'_>,
    ) -> Result<Vec<SiteStatistics>, Error> {
        let mut all = Vec::new();
        let mut take = |of_site| -> Result<(), Error> {
            all.push(of_site);
            Ok(())
        };
        self.statistics_by_block(sequences, None, progress, &mut take)?;
        Ok(all)
    }

    /// Has all sequences go through all blocks, to see whether their inputs are finite.
    fn observed(&self, sequences: &[&[u32]]) -> Result<(), Error> {
        let statistics = [Statistic::ColumnNorms, Statistic::Tokens];
        with_engine!(self, sequences, &statistics, |engine| self
            .sums_on::<_, Error>(
                &engine,
                &statistics,
                sequences,
                &unwatched,
                &mut |_| Ok(())
            ))
    }

    /// The same, with sketches of so many columns where a rank is given; each is handed to `take` as soon as its block is done
    /// with, so that they need not all be in memory.
    ///
    /// # Errors
    /// Every variant of [`Error`], and what `take` gives.
    pub fn statistics_by_block<E: From<Error>>(
        &self,
        sequences: &[&[u32]],
        sketch_rank: Option<usize>,
        progress: &Watch<'_>,
        take: &mut dyn FnMut(SiteStatistics) -> Result<(), E>,
    ) -> Result<(), E> {
        let statistics = self.taken(sketch_rank);
        let mut take_all = |of_block: Vec<SiteStatistics>| {
            let result = of_block.into_iter().try_for_each(&mut *take);
            result.map_err(Ended::Taken)
        };
        let pass = || -> Result<(), Ended<E>> {
            with_engine!(self, sequences, &statistics, |engine| self.sums_on(
                &engine,
                &statistics,
                sequences,
                progress,
                &mut take_all
            ))
        };
        self.ended(pass, sequences)
    }

    /// Runs a pass that hands on what it observes, and explains its errors.
    fn ended<X: From<Error>>(
        &self,
        pass: impl FnOnce() -> Result<(), Ended<X>>,
        sequences: &[&[u32]],
    ) -> Result<(), X> {
        pass().map_err(|ended| match ended {
            Ended::Forward(error) => self.explained(error, sequences).into(),
            Ended::Taken(error) => error,
        })
    }

    /// The statistics of each block's inputs once the blocks before it have the weights that `take` makes of them: it is handed
    /// what was observed of a block, and has the sequences go on through that block with other weights. See `sequential.rs`.
    ///
    /// # Errors
    /// Every variant of [`Error`], and what `take` gives.
    pub(crate) fn statistics_on_pruned<E: From<Error>>(
        &self,
        sequences: &[&[u32]],
        sketch_rank: Option<usize>,
        progress: &Watch<'_>,
        take: TakeBlock<'_, E>,
    ) -> Result<(), E> {
        let statistics = self.taken(sketch_rank);
        let tokens = sequences.iter().map(|s| s.len()).sum();
        sequential::check(tokens, self.architecture.hidden_size)?;
        let mut take_all = |of_block: Vec<SiteStatistics>, go_on: GoOn<'_>| {
            take(of_block, go_on).map_err(Ended::Taken)
        };
        let pass = || -> Result<(), Ended<E>> {
            with_engine!(self, sequences, &statistics, |engine| {
                let files = WeightReader::open(self.checkpoint, None)?;
                let hidden = self.embed(&engine, &files, sequences)?;
                let model = (self.checkpoint, self.architecture);
                sequential::run(
                    &engine,
                    model,
                    &statistics,
                    (sequences, hidden),
                    progress,
                    &mut take_all,
                )
            })
        };
        self.ended(pass, sequences)
    }

    /// What is observed of every input.
    fn taken(&self, sketch_rank: Option<usize>) -> Vec<Statistic> {
        let mut statistics = vec![Statistic::ColumnNorms, Statistic::Tokens];
        statistics.extend(self.means.then_some(Statistic::ColumnSums));
        statistics.extend(sketch_rank.map(Statistic::Sketch));
        statistics
    }

    /// The loss of every token but the first of each sequence, in nats.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn losses(
        &self,
        sequences: &[&[u32]],
        progress: &Watch<'_>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let losses = with_engine!(self, sequences, &[], |engine| self
            .losses_on(&engine, sequences, progress));
        losses.map_err(|error| self.explained(error, sequences))
    }

    /// The logits of one sequence, `[tokens, vocab_size]`: for tests, as they are large.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn logits(&self, sequence: &[u32]) -> Result<Vec<f32>, Error> {
        with_engine!(self, &[sequence], &[], |engine| self
            .logits_on(&engine, sequence))
    }

    /// The longest sequence, if every token and every position has a row in its embedding.
    fn check(&self, sequences: &[&[u32]]) -> Result<usize, Error> {
        if let Some(embedding) = &self.architecture.position_embedding
            && longest(sequences) > embedding.positions
        {
            return Err(Error::NoPosition {
                tokens: longest(sequences),
                positions: embedding.positions,
            });
        }
        let vocab_size = self.architecture.vocab_size;
        let tokens = sequences.iter().copied().flatten();
        match tokens.max() {
            Some(&token) if token as usize >= vocab_size => {
                Err(Error::TokenOutOfRange { token, vocab_size })
            }
            _ => self.check_length(longest(sequences)),
        }
    }

    /// The length of the longest sequence, if every rope is known up to there.
    fn check_length(&self, tokens: usize) -> Result<usize, Error> {
        let mut limits = self.architecture.rotaries.iter().filter_map(|r| r.longest);
        match limits.find(|longest| tokens > *longest) {
            Some(longest) => Err(Error::TooLong { tokens, longest }),
            None => Ok(tokens),
        }
    }

    fn sums_on<E: Engine, X: From<Error>>(
        &self,
        engine: &E,
        statistics: &[Statistic],
        sequences: &[&[u32]],
        progress: &Watch<'_>,
        take: &mut dyn FnMut(Vec<SiteStatistics>) -> Result<(), X>,
    ) -> Result<(), X> {
        let blocks = self.architecture.blocks();
        let weights = WeightReader::open(self.checkpoint, self.overlay)?;
        let mut sums = StatisticSums::new(self.architecture);
        let mut meter = Meter::new(sequences, blocks, progress);
        let groups: Vec<_> = self.groups(sequences).collect();
        for (index, group) in groups.iter().enumerate() {
            let is_last = index + 1 == groups.len();
            let mut see = |seen: Seen<'_>| match seen {
                Seen::Numbers(block, observed) => {
                    sums.add(block, observed);
                    Ok(())
                }
                Seen::Block(block) if is_last => take(SiteStatistics::of_block(
                    self.architecture,
                    block,
                    statistics,
                    sums.take(block),
                )?),
                Seen::Block(_) => Ok(()),
            };
            self.blocks(engine, &weights, group, &mut see, &mut meter)?;
        }
        Ok(())
    }

    fn losses_on<E: Engine>(
        &self,
        engine: &E,
        sequences: &[&[u32]],
        progress: &Watch<'_>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let architecture = self.architecture;
        let weights = WeightReader::open(self.checkpoint, self.overlay)?;
        let mut meter = Meter::new(sequences, architecture.blocks() + 1, progress);
        let mut losses = Vec::new();
        for group in self.groups(sequences) {
            let hidden = self.blocks(
                engine,
                &weights,
                group,
                &mut |_| Ok::<_, Error>(()),
                &mut meter,
            )?;
            losses.extend(loss::losses(
                engine,
                &weights,
                architecture,
                group,
                longest(group),
                hidden,
            )?);
            meter.step(group.iter().map(|sequence| sequence.len()).sum())?;
        }
        Ok(losses)
    }

    fn logits_on<E: Engine>(&self, engine: &E, sequence: &[u32]) -> Result<Vec<f32>, Error> {
        let architecture = self.architecture;
        let weights = WeightReader::open(self.checkpoint, self.overlay)?;
        let mut meter = Meter::new(&[sequence], architecture.blocks(), &unwatched);
        let hidden = self.blocks(
            engine,
            &weights,
            &[sequence],
            &mut |_| Ok::<_, Error>(()),
            &mut meter,
        )?;
        let hidden = loss::finished(engine, &weights, architecture, hidden)?;
        let head = loss::lm_head_part(&weights, architecture, 0, architecture.vocab_size)?;
        engine.logits(&head, &hidden[0])
    }

    /// Sequences in groups whose hidden states fit into [`HIDDEN_BYTES`].
    fn groups<'s>(&self, sequences: &'s [&'s [u32]]) -> impl Iterator<Item = &'s [&'s [u32]]> {
        let context = longest(sequences).max(1);
        let bytes = 4 * context * self.architecture.hidden_size;
        sequences.chunks((HIDDEN_BYTES / bytes).max(1))
    }

    /// What the first block reads of some sequences.
    fn embed<E: Engine>(
        &self,
        engine: &E,
        weights: &WeightReader<'_>,
        sequences: &[&[u32]],
    ) -> Result<Vec<E::Tensor>, Error> {
        let architecture = self.architecture;
        let positions = architecture.position_embedding.as_ref();
        let positions = positions
            .map(|table| weights.read_rows(&table.tensor, table.offset, longest(sequences)))
            .transpose()?;
        let norm = architecture.embedding_norm.as_ref();
        let norm = norm
            .map(|norm| engine.load_norm(weights, norm))
            .transpose()?;
        let projections = architecture.embedding_projections.as_ref();
        let projection = projections
            .map(|[inwards, _]| engine.load_matrix(weights, inwards))
            .transpose()?;
        let of_sequence = |sequence: &&[u32]| {
            let tokens = sequence.len();
            let mut rows = Vec::with_capacity(tokens * architecture.embedding_size);
            for &token in *sequence {
                rows.extend(weights.read_rows(&architecture.embedding, token as usize, 1)?);
            }
            if architecture.embedding_scale != 1.0 {
                let scale = architecture.embedding_scale;
                rows.iter_mut().for_each(|x: &mut f32| *x *= scale);
            }
            let hidden = match &projection {
                None => {
                    for (x, position) in rows.iter_mut().zip(positions.iter().flatten()) {
                        *x += position;
                    }
                    engine.embed(rows, tokens)?
                }
                Some(projection) => {
                    let mut sums = vec![0.0; tokens * architecture.hidden_size];
                    for (sum, position) in sums.iter_mut().zip(positions.iter().flatten()) {
                        *sum = *position;
                    }
                    let sum = engine.embed(sums, tokens)?;
                    engine.project(projection, &engine.embed(rows, tokens)?, sum)?
                }
            };
            match &norm {
                Some(norm) => engine.normalise(norm, &hidden),
                None => Ok(hidden),
            }
        };
        sequences.iter().map(of_sequence).collect()
    }

    /// Some sequences through the embedding and all blocks; gives their hidden states. `see` gets what comes by.
    fn blocks<E: Engine, X: From<Error>>(
        &self,
        engine: &E,
        weights: &WeightReader<'_>,
        sequences: &[&[u32]],
        see: &mut dyn FnMut(Seen<'_>) -> Result<(), X>,
        meter: &mut Meter<'_>,
    ) -> Result<Vec<E::Tensor>, X> {
        let architecture = self.architecture;
        let mut hidden = self.embed(engine, weights, sequences)?;
        let in_flight = engine.in_flight(longest(sequences));
        for (index, block) in architecture.blocks.iter().enumerate() {
            let block = block::load(engine, weights, block)?;
            // Fetched while this one computes, into the system's memory and not this process's.
            if let Some(next) = architecture.blocks.get(index + 1) {
                block::will_load(weights, next)?;
            }
            let chunks = hidden
                .chunks_mut(in_flight)
                .zip(sequences.chunks(in_flight));
            for (hidden, sequences) in chunks {
                // In the order of the sequences, whatever the order they were done in.
                for observed in engine.run(&block, hidden, block::pass(true))? {
                    see(Seen::Numbers(index, &observed))?;
                }
                meter.step(sequences.iter().map(|s| s.len()).sum())?;
            }
            see(Seen::Block(index))?;
        }
        Ok(hidden)
    }
}

/// Tries on a device what a forward pass needs of it. The CPU needs nothing.
///
/// # Errors
/// [`device::Error::Unfit`] if a kernel gives something else than it should, [`device::Error::Failed`].
pub(crate) fn check(device: &Device) -> Result<(), device::Error> {
    match device.backend() {
        Backend::Cpu(_) => Ok(()),
        Backend::Gpu(gpu) => gpu::check(gpu.context()),
    }
}
